"""What every source keeps, whatever it reads, and what is particular to the balancer's counts and to recorded series."""

from __future__ import annotations

import datetime as dt
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployguard.errors import UserError, WorldError
from deployguard.model.base import decode, encode
from deployguard.model.check import BalancerCheck, ProbeCheck, ScrapeCheck
from deployguard.model.reading import Answer, Counter, Counters, Missing, Reading, Runs
from deployguard.model.target import CANDIDATE, STABLE, Instance, Served
from deployguard.model.version import Version
from deployguard.ports import Source
from deployguard.signals.balancer import BalancerSource
from deployguard.signals.probe import ProbePool, ProbeSource
from deployguard.signals.replay import ReplayProbe, ReplaySource, parse_series
from deployguard.signals.scrape import ScrapePool, ScrapeSource

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
VERSION = Version(release="sha256:aa")
REASONS = {"timeout", "refused", "nan", "stale", "no_series", "no_instance", "prober", "error"}


class Ledger:
    """A balancer's client that counts how often it is asked, and may be unreachable."""

    def __init__(self, counts: dict[str, tuple[int, int]] | None) -> None:
        self.known, self.asked = counts, 0

    def counts(self) -> Mapping[str, Served]:
        self.asked += 1
        if self.known is None:
            raise WorldError("could not ask the balancer: no such socket")
        return {uid: Served(*both) for uid, both in self.known.items()}


def instance(uid: str, address: str) -> Instance:
    return Instance(f"id-{uid}", uid, VERSION, VERSION, True, started=NOW, address=address)


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of a server whose every page is a metrics page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'requests_total{code="500"} 3\nrequests_total{code="200"} 7\n')

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def scrape(address: str) -> Source:
    return ScrapeSource(ScrapeCheck(name="a", bad='requests_total{code="500"}', total="requests_total"), ScrapePool(20.0))


def balancer(address: str) -> Source:
    return BalancerSource(BalancerCheck(name="a"), Ledger({"u": (10, 3)} if address else None))


def probe(address: str) -> Source:
    pool = ProbePool()
    pool.paths({CANDIDATE: address} if address else {})
    return ProbeSource(ProbeCheck.model_validate({"name": "a", "steps": [{"get": "/"}]}), pool)


def replay(address: str) -> Source:
    return ReplaySource(NOW, SECOND, {CANDIDATE: "10" if address else "_"}, {CANDIDATE: "3"})


def replay_probe(address: str) -> Source:
    return ReplayProbe(NOW, SECOND, {CANDIDATE: "1" if address else "_"})


SOURCES = [scrape, balancer, probe, replay, replay_probe]


def closed_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("make", SOURCES)
def test_a_source_answers_with_a_reading(make: Callable[[str], Source], served: str) -> None:
    """Where there is something to read, the answer is a reading that survives being saved, and asking again is harmless."""
    source = make(served)
    try:
        answers: list[Answer] = [source.read(CANDIDATE, (instance("u", served),), None, NOW) for _ in range(2)]
    finally:
        source.close()
        source.close()
    for answer in answers:
        assert not isinstance(answer, Missing)
        assert decode(encode(answer), Reading) == answer  # type: ignore[arg-type]
        if isinstance(answer, Counters):
            assert answer.at == NOW
            assert list(answer.by_instance.values()) == [Counter(3, 10)]
    if isinstance(answers[0], Counters):
        assert answers[0] == answers[1]


@pytest.mark.parametrize("make", SOURCES)
def test_trouble_outside_is_a_value(make: Callable[[str], Source]) -> None:
    """Nothing to read is `Missing` with one of the known words and a detail, never an exception and never a number."""
    source = make("")
    try:
        answer = source.read(CANDIDATE, (instance("u", closed_address()),), None, NOW)
    finally:
        source.close()
    assert isinstance(answer, Missing)
    assert answer.reason in REASONS
    assert answer.detail


@pytest.mark.parametrize("make", SOURCES)
def test_an_arm_without_instances_is_missing(make: Callable[[str], Source], served: str) -> None:
    """An arm that nothing runs on has no reading."""
    source = make(served)
    try:
        answer = source.read(STABLE, (), None, NOW)
    finally:
        source.close()
    assert isinstance(answer, Missing)
    assert answer.reason == "no_instance"


# The balancer


def test_the_balancer_is_asked_once_per_tick_for_both_arms() -> None:
    """Both arms are counted at the same moment, and instances that the balancer does not know are left out."""
    client = Ledger({"a": (10, 3), "b": (5, 9)})
    source = BalancerSource(BalancerCheck(name="a"), client)
    stable = source.read(STABLE, (instance("a", ""), instance("new", "")), None, NOW)
    candidate = source.read(CANDIDATE, (instance("b", ""),), None, NOW)
    assert stable == Counters(NOW, {"a": Counter(3, 10)}, {"a": NOW})
    assert candidate == Counters(NOW, {"b": Counter(5, 5)}, {"b": NOW})
    assert client.asked == 1
    source.read(STABLE, (instance("a", ""),), None, NOW + SECOND)
    assert client.asked == 2


def test_a_balancer_that_does_not_answer_is_an_error() -> None:
    """The reason carries what the client said."""
    answer = BalancerSource(BalancerCheck(name="a"), Ledger(None)).read(STABLE, (instance("a", ""),), None, NOW)
    assert answer == Missing("error", "could not ask the balancer: no such socket")


def test_an_arm_that_the_balancer_does_not_know_is_missing() -> None:
    """Instances that no user has been sent to yet are no reading of zero."""
    answer = BalancerSource(BalancerCheck(name="a"), Ledger({})).read(STABLE, (instance("a", ""),), None, NOW)
    assert answer == Missing("no_instance", "the balancer knows none of the 1 instances of the stable arm")


# Recorded series


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("0x3", [0, 0, 0, 0]),
        ("1+1x3", [1, 2, 3, 4]),
        ("10-2.5x2", [10, 7.5, 5]),
        ("-1 2e1 .5 3x0", [-1, 20, 0.5, 3]),
        ("_ _x2 stale 5", [None, None, None, None, 5]),
        ("  1\n 2 ", [1, 2]),
    ],
)
def test_series_in_promtool_notation(text: str, values: list[float | None]) -> None:
    """A ramp `a+bxn` has n more values after the first, a gap is None."""
    assert parse_series(text) == values


def test_nan_in_a_series() -> None:
    """NaN is a value that was seen, unlike a gap."""
    first, second = parse_series("NaN nan")
    assert first is not None
    assert second is not None
    assert math.isnan(first)
    assert math.isnan(second)


@pytest.mark.parametrize("piece", ["x5", "1+x3", "1+2", "1x-3", "_3", "one", "1x2x3", "0x99999999999"])
def test_a_wrong_piece_is_named(piece: str) -> None:
    """The error shows the piece, not the whole series."""
    with pytest.raises(ValueError, match="`") as caught:
        parse_series(f"1 {piece} 2")
    assert f"`{piece}`" in str(caught.value)


def test_replayed_increments_are_summed_to_counters() -> None:
    """Each value is what came in that poll; the reading is cumulative, gaps are Missing and count as nothing."""
    source = ReplaySource(NOW, SECOND, {STABLE: "10x2 _ NaN 5", CANDIDATE: "4x4"}, {STABLE: "0 1 2 7 1"})
    answers = [source.read(STABLE, (), None, NOW + n * SECOND) for n in range(6)]
    counted = []
    for answer in answers:
        assert isinstance(answer, (Counters, Missing))
        counted.append(answer.by_instance["replay-stable"] if isinstance(answer, Counters) else answer.reason)
    assert counted == [Counter(0, 10), Counter(1, 20), Counter(3, 30), "stale", "nan", "stale"]
    late = source.read(CANDIDATE, (), None, NOW + 2.7 * SECOND)
    assert late == Counters(NOW + 2.7 * SECOND, {"replay-candidate": Counter(0, 12)}, {"replay-candidate": NOW})
    assert source.read(STABLE, (), None, NOW - SECOND) == Missing("stale", "the series has not begun")


def test_replayed_walks() -> None:
    """1 is green and 0 is red, one walk per poll; walks that were counted and walks of the future are not answered."""
    probe = ReplayProbe(NOW, SECOND, {CANDIDATE: "1 0 _ 0 1"})
    answer = probe.read(CANDIDATE, (), NOW, NOW + 3 * SECOND)
    assert isinstance(answer, Runs)
    assert [(run.at - NOW, run.ok) for run in answer.runs] == [(SECOND, False), (3 * SECOND, False)]
    assert probe.read(CANDIDATE, (), NOW, NOW + 2 * SECOND) == Missing("stale", "a gap in the series")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ReplaySource(NOW, SECOND, {STABLE: "1 y"}, {}), "total of stable: `y`"),
        (lambda: ReplaySource(NOW, SECOND, {STABLE: "1"}, {STABLE: "3-2x2"}), "bad of stable: a negative"),
        (lambda: ReplayProbe(NOW, SECOND, {STABLE: "1 2"}), "green of stable: a walk is 1"),
    ],
)
def test_series_that_make_no_sense_are_refused(make: Callable[[], Source], said: str) -> None:
    """A mistake in a recorded series is the writer's to correct, with the series named."""
    with pytest.raises(UserError, match=said):
        make()
