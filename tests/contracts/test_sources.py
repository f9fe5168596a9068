"""What every source keeps, whatever it reads, and what is particular to the balancer's counts and to recorded series."""

from __future__ import annotations

import datetime as dt
import json
import math
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployguard.errors import WorldError
from deployguard.model.base import decode, encode
from deployguard.model.check import BalancerCheck, LogsCheck, ProbeCheck, PrometheusCheck, ScrapeCheck
from deployguard.model.reading import Answer, Buckets, Counter, Counters, Gauges, Missing, Reading, Runs
from deployguard.model.target import CANDIDATE, STABLE, Instance, Served
from deployguard.model.version import Version
from deployguard.ports import Source
from deployguard.signals.balancer import BalancerSource
from deployguard.signals.logs import FileLogs, LogsSource
from deployguard.signals.probe import ProbePool, ProbeSource
from deployguard.signals.prometheus import PrometheusSource
from deployguard.signals.replay import Recorded, ReplayProbe, ReplaySource
from deployguard.signals.scrape import ScrapePool, ScrapeSource

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
VERSION = Version(release="sha256:aa")
REASONS = {"timeout", "refused", "nan", "stale", "no_series", "no_instance", "no_port", "prober", "edges", "lost", "error"}


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
            self.wfile.write(b'took_seconds_bucket{le="0.5"} 7\ntook_seconds_bucket{le="+Inf"} 10\ntook_seconds_count 10\n')

        def do_POST(self) -> None:
            """As a Prometheus that scraped the page."""
            rows = [("requests_total", "500", "3"), ("requests_total", "200", "7"), ("sampled at", "", f"{NOW.timestamp()}")]
            result = [{"metric": {"deployguard": name, "pod": "id-u", "code": code}, "value": [0, value]} for name, code, value in rows]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode())

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


def slow(address: str) -> Source:
    source = ScrapeSource(ScrapeCheck(name="a", histogram="took_seconds", within=SECOND / 2), ScrapePool(20.0))
    if address:  # stable's bounds decide where slow begins
        source.read(STABLE, (instance("u", address),), None, NOW)
    return source


def latency(address: str) -> Source:
    return ScrapeSource(ScrapeCheck(name="a", histogram="took_seconds"), ScrapePool(20.0))


def classes(address: str) -> Source:
    return ScrapeSource(ScrapeCheck(name="a", classes=["requests_total", 'requests_total{code="500"}']), ScrapePool(20.0))


def gauge(address: str) -> Source:
    return ScrapeSource(ScrapeCheck(name="a", gauge="requests_total"), ScrapePool(20.0))


def balancer(address: str) -> Source:
    return BalancerSource(BalancerCheck(name="a"), Ledger({"u": (10, 3)} if address else None))


def prometheus(address: str) -> Source:
    body = {"name": "a", "url": f"http://{address or closed_address()}", "bad": 'requests_total{code="500"}', "total": "requests_total"}
    return PrometheusSource(PrometheusCheck.model_validate({**body, "lag": "0s", "timeout": "20s"}))


def logs(address: str) -> Source:
    path = Path(tempfile.mkdtemp()) / "log"
    source = LogsSource(LogsCheck(name="a", bad="ERROR"), FileLogs(lambda _: path))
    if address:  # what stood there before the first look is nobody's
        path.touch()
        source.read(CANDIDATE, (instance("u", address),), None, NOW)
        path.write_text("ERROR\n" * 3 + "served\n" * 7)
    return source


def probe(address: str) -> Source:
    pool = ProbePool()
    pool.paths({CANDIDATE: address} if address else {})
    return ProbeSource(ProbeCheck.model_validate({"name": "a", "steps": [{"get": "/"}]}), pool)


def replay(address: str) -> Source:
    return ReplaySource(NOW, SECOND, "counts", {CANDIDATE: Recorded({"": ([3.0], [10.0 if address else None])})})


def replay_probe(address: str) -> Source:
    return ReplayProbe(NOW, SECOND, {CANDIDATE: [1.0 if address else None]})


SOURCES = [scrape, slow, latency, classes, gauge, prometheus, logs, balancer, probe, replay, replay_probe]


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
        elif isinstance(answer, (Buckets, Gauges)):
            assert answer.at == NOW
            assert list(answer.by_instance.values()) in ([(7, 3)], [10])
    if not isinstance(answers[0], Runs):
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


def crew(count: int) -> tuple[Instance, ...]:
    return tuple(instance(f"i{n}", "") for n in range(count))


def test_what_is_written_down_is_dealt_out_to_the_instances() -> None:
    """Each value came in that poll and is counted by the instances that serve, in turn; gaps are Missing and count as nothing."""
    total, bad = [10.0, 10.0, 10.0, None, math.nan, 5.0], [0.0, 1.0, 2.0, 0.0, 0.0, 1.0]
    source = ReplaySource(NOW, SECOND, "counts", {STABLE: Recorded({"": (bad, total)})})
    answers = [source.read(STABLE, crew(3), None, NOW + n * SECOND) for n in range(7)]
    sums = [
        (sum(c.bad for c in a.by_instance.values()), sum(c.total for c in a.by_instance.values())) if isinstance(a, Counters) else a.reason
        for a in answers
        if isinstance(a, (Counters, Missing))
    ]
    assert sums == [(0, 10), (1, 20), (3, 30), "stale", "nan", (4, 35), "stale"]
    last = answers[5]
    assert isinstance(last, Counters)
    assert [c.total for c in last.by_instance.values()] == [12, 12, 11]
    assert last.born == {"i0": NOW, "i1": NOW, "i2": NOW}
    assert source.read(STABLE, crew(3), None, NOW - SECOND) == Missing("stale", "the series has not begun")


def test_an_arm_counts_from_its_first_read_and_a_process_from_its_start() -> None:
    """What came before nobody served; polls between two reads are made up for; a reset and a new process begin at zero."""
    source = ReplaySource(NOW, SECOND, "counts", {CANDIDATE: Recorded({"": ([0.0] * 9, [4.0] * 9)})})

    def shown(second: float, *uids: str) -> list[float]:
        answer = source.read(CANDIDATE, tuple(instance(uid, "") for uid in uids), None, NOW + second * SECOND)
        assert isinstance(answer, Counters)
        return [answer.by_instance[uid].total for uid in uids]

    assert shown(2.7, "a", "b") == [2, 2]
    assert shown(5, "a", "b") == [8, 8]
    assert shown(6, "a", "new") == [10, 2]
    source.reset(["a"])
    assert shown(6.5, "a", "new") == [0, 2]
    assert shown(7, "a", "new") == [2, 4]


def test_bad_requests_come_in_clumps_within_what_an_instance_served() -> None:
    """A clump is on one instance, unless that one has not served so many."""
    clumped = Recorded({"": ([5.0, 5.0], [30.0, 6.0])}, clump=5)
    source = ReplaySource(NOW, SECOND, "counts", {STABLE: clumped})
    first, second = (source.read(STABLE, crew(3), None, NOW + n * SECOND) for n in range(2))
    assert isinstance(first, Counters)
    assert isinstance(second, Counters)
    assert [c.bad for c in first.by_instance.values()] == [5, 0, 0]
    assert [c.bad for c in second.by_instance.values()] == [7, 2, 1]


def test_a_lost_scrape_is_made_up_for_by_the_next() -> None:
    """Three in ten of the single instances' scrapes do not come, half of the stable ones must, and nothing is lost for good."""
    source = ReplaySource(NOW, SECOND, "counts", {STABLE: Recorded({"": ([0.0] * 100, [4.0] * 100)}, lost=0.3)})
    answers = [source.read(STABLE, crew(4), None, NOW + n * SECOND) for n in range(100)]
    heard = [len(a.by_instance) for a in answers if isinstance(a, Counters)]
    assert 260 <= sum(heard) <= 300
    assert min(heard) >= 2
    assert all(len(a.by_instance) + len(a.unread) == 4 for a in answers if isinstance(a, Counters))
    last = next(a for a in answers[::-1] if isinstance(a, Counters) and not a.unread)
    assert set(last.by_instance.values()) == {Counter(0, (answers.index(last) + 1))}


def test_categories_gauges_and_strata_are_replayed_as_they_are_scraped() -> None:
    """Cumulative counts by category with their bounds, a gauge on every instance, and strata whose sum is the whole."""
    buckets = ReplaySource(NOW, SECOND, "categories", {STABLE: Recorded({"": ([8.0, 8.0], [2.0, 0.0])}, edges=(0.1,))})
    answer = [buckets.read(STABLE, crew(2), None, NOW + n * SECOND) for n in range(2)][-1]
    assert answer == Buckets(NOW + SECOND, (0.1,), {"i0": (8, 1), "i1": (8, 1)}, {"i0": NOW, "i1": NOW})
    gauge = ReplaySource(NOW, SECOND, "gauge", {STABLE: Recorded({"": ([-2.5],)})})
    assert gauge.read(STABLE, crew(1), None, NOW) == Gauges(NOW, {"i0": -2.5}, {"i0": NOW})
    strata = ReplaySource(NOW, SECOND, "counts", {STABLE: Recorded({"/a": ([1.0], [6.0]), "other": ([0.0], [4.0])})})
    split = strata.read(STABLE, crew(1), None, NOW)
    assert split == Counters(NOW, {"i0": Counter(1, 10)}, {"i0": NOW}, (), {"/a": {"i0": Counter(1, 6)}, "other": {"i0": Counter(0, 4)}})


def test_replayed_walks() -> None:
    """1 is green and 0 is red, one walk per poll; walks that were counted and walks of the future are not answered."""
    probe = ReplayProbe(NOW, SECOND, {CANDIDATE: [1.0, 0.0, None, 0.0, 1.0]})
    answer = probe.read(CANDIDATE, (), NOW, NOW + 3 * SECOND)
    assert isinstance(answer, Runs)
    assert [(run.at - NOW, run.ok) for run in answer.runs] == [(SECOND, False), (3 * SECOND, False)]
    assert probe.read(CANDIDATE, (), NOW, NOW + 2 * SECOND) == Missing("stale", "a gap in the series")
