"""A real Prometheus as a source: the numbers that scrapes give, windows that count once, every way to be addressed and to be silent."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployguard import clock
from deployguard.analysis import counts
from deployguard.analysis.bets import policy_grid
from deployguard.analysis.counts import CountsRules
from deployguard.driver.observe import _through
from deployguard.model.check import PrometheusCheck, ScrapeCheck
from deployguard.model.evidence import CountsEvidence
from deployguard.model.reading import Answer, Buckets, Counter, Counters, Gauges, Missing, Window
from deployguard.model.target import CANDIDATE, STABLE, Instance
from deployguard.model.version import Version
from deployguard.signals.prometheus import PrometheusSource
from deployguard.signals.promql import Refused, Row, arm_matcher, rows_of
from deployguard.signals.scrape import ScrapePool, ScrapeSource
from tests.contracts.monitoring import Gateway, Pages, Prometheus, needs_prometheus, until

VERSION = Version(release="sha256:aa")
SECOND = dt.timedelta(seconds=1)
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
COUNTS = {"bad": 'requests_total{code=~"5.."}', "total": "requests_total"}
PAGE = (
    b'requests_total{code="200",route="/a"} 70\nrequests_total{code="500",route="/a"} 3\nrequests_total{code="200",route="/b"} 27\n'
    b'took_seconds_bucket{le="0.1"} 60\ntook_seconds_bucket{le="0.5"} 90\ntook_seconds_bucket{le="+Inf"} 100\n'
    b"took_seconds_count 100\nmemory_bytes 5e8\nbroken_total NaN\n"
)
TARGETS = {
    "web-1": {"pod": "web-1", "namespace": "shop"},
    "web.2": {"pod": "web.2", "namespace": "shop"},
    "namesake": {"pod": "web-1", "namespace": "elsewhere"},
}
RULES = CountsRules(
    compare=True, ratio=1.25, margin=0.0002, floor=0.01, claims=10, limit=None, dispersion=1.0, late_onset=True, cap=10.0,
    alpha=0.01, weight=1.0, proof=False, grid=policy_grid(10, 1.25), interval=1.0,
)  # fmt: skip
PASSWORD = "open-sesame"
BCRYPT = "$2b$04$dC5HtRp/hTjuemsLgLO6FeXoqxilXXd9CIWeG6FI4IvgiW5j4/w9y"


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    pages = Pages()
    pages.texts = dict.fromkeys(TARGETS, PAGE)
    yield pages
    pages.close()


@pytest.fixture(scope="module")
def running(pages: Pages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One for all tests: the first scrapes of a new one take seconds."""
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), pages, TARGETS)
    yield server
    server.close()


@pytest.fixture
def server(pages: Pages, running: Prometheus) -> Prometheus:
    """A Prometheus that has sampled the pages as they are at first."""
    pages.texts = dict.fromkeys(TARGETS, PAGE)
    one = source(running.url)
    until(lambda: isinstance(got := read(one), Counters) and list(got.by_instance.values()) == [Counter(3, 100)] * 2)
    one.close()
    return running


def check(url: str, **fields: Any) -> PrometheusCheck:
    body = {
        "name": "a",
        "url": url,
        "lag": "1s",
        "timeout": "20s",
        **(COUNTS if not {"gauge", "histogram", "classes", "total"} & fields.keys() else {}),
    }
    return PrometheusCheck.model_validate({**body, **fields})


def instance(name: str, uid: str = "", started: dt.datetime = LONG_AGO, address: str = "") -> Instance:
    return Instance(name, uid or f"u-{name}", VERSION, VERSION, True, started=started, address=address)


def source(url: str, **fields: Any) -> PrometheusSource:
    return PrometheusSource(check(url, **fields), namespace="shop", environ={"TOKEN": "t0", "PASSWORD": PASSWORD, "TENANT": "blue"})


WEB = (instance("web-1"), instance("web.2"))


def read(one: PrometheusSource, *instances: Instance, arm: str = STABLE, through: dt.datetime | None = None) -> Answer:
    return one.read(arm, instances or WEB, through, clock.now())


def whole(one: PrometheusSource, *instances: Instance, arm: str = STABLE, need: int = 2) -> Any:
    """The first reading with all instances in it."""

    def ask() -> Answer | None:
        answer = read(one, *instances, arm=arm)
        return answer if len(getattr(answer, "by_instance", ())) == need else None

    return until(ask)


@needs_prometheus
@pytest.mark.parametrize(
    "fields",
    [
        COUNTS,
        {**COUNTS, "strata": {"route": ["/a"]}},
        {"bad": 'requests_total{code=~"5..",route!="/b"}', "total": 'requests_total{route!="/b"}'},
        {"bad": "errors_total", "total": "requests_total"},
        {"histogram": "took_seconds"},
        {"histogram": "took_seconds", "within": "500ms"},
        {"classes": ['requests_total{code="200"}', 'requests_total{code="500"}']},
        {"gauge": "memory_bytes"},
    ],
    ids=["counts", "strata", "conditions", "no bad series", "histogram", "within", "classes", "gauge"],
)
def test_it_says_what_the_pages_say(pages: Pages, server: Prometheus, fields: dict[str, Any]) -> None:
    """Every kind of check reads the very numbers of each instance that a scrape of its page reads, only as of a little earlier."""
    one = source(server.url, **fields)
    got = whole(one)
    pool = ScrapePool(20.0)
    # A scrape needs an address for each; here both have the same page.
    scraped = [instance(i.id, i.uid, address=pages.address) for i in WEB]
    direct = ScrapeSource(ScrapeCheck.model_validate({"name": "a", **fields, "path": "/web-1"}), pool).read(
        STABLE, tuple(scraped), None, got.at
    )
    pool.close()
    one.close()
    assert got == direct
    assert isinstance(got, (Counters, Buckets, Gauges))
    assert clock.now() - got.at >= SECOND


@needs_prometheus
def test_counts_are_exact_however_short_the_poll(pages: Pages, server: Prometheus) -> None:
    """What was counted between two polls is their difference to the last request: nothing is extrapolated, and namesakes are left out."""
    one = source(server.url)
    before = whole(one, need=2)
    assert before.by_instance == {"u-web-1": Counter(3, 100), "u-web.2": Counter(3, 100)}
    pages.texts["web-1"] = PAGE.replace(b"} 3\n", b"} 4\n").replace(b"} 70\n", b"} 75\n")
    after = until(lambda: (answer := read(one)) and isinstance(answer, Counters) and answer.by_instance["u-web-1"].total != 100 and answer)
    assert after.by_instance == {"u-web-1": Counter(4, 106), "u-web.2": Counter(3, 100)}
    assert after.unread == ()


@needs_prometheus
def test_samples_of_the_process_before_are_not_the_new_one_s(server: Prometheus) -> None:
    """A pod that was restarted has nothing to show until it was sampled anew; a candidate that is that young has served nobody yet."""
    one = source(server.url)
    whole(one)
    fresh = instance("web-1", "u-new", started=clock.now())
    first = read(one, fresh, arm=CANDIDATE)
    assert isinstance(first, Counters)
    assert (first.by_instance, first.unread) == ({}, ("u-new",))
    assert isinstance(read(one, fresh, arm=STABLE), Missing)
    later = until(lambda: (answer := read(one, fresh, arm=CANDIDATE)) and isinstance(answer, Counters) and answer.by_instance and answer)
    assert later.by_instance == {"u-new": Counter(3, 100)}
    assert later.born == {"u-new": fresh.started}


@needs_prometheus
def test_an_instance_that_is_not_sampled_any_more_is_unread(pages: Pages, server: Prometheus) -> None:
    """When a target fails, its series end: one of two is left out, and an arm without any is stale."""
    one = source(server.url)
    whole(one)
    pages.texts["web.2"] = None
    left = until(lambda: (answer := read(one)) and isinstance(answer, Counters) and answer.unread and answer)
    assert (list(left.by_instance), left.unread) == (["u-web-1"], ("u-web.2",))
    pages.texts["web-1"] = None
    missing = until(lambda: (answer := read(one)) and isinstance(answer, Missing) and answer)
    assert missing.reason == "stale"
    assert 'no sample of `requests_total` with pod="web-1"' in missing.detail


@needs_prometheus
def test_what_is_not_there_is_missing_and_never_zero(server: Prometheus) -> None:
    """A metric that nobody has, a value that is not a number, a label that names nobody, and an expression that makes no sense."""
    whole(source(server.url))
    for fields, reason, words in (
        ({"bad": "a_total", "total": "b_total"}, "stale", "no sample of `b_total`"),
        ({"bad": "broken_total", "total": "broken_total"}, "nan", "not a count"),
        ({"instance_label": "podname"}, "stale", "is `instance_label` right?"),
        ({"bad": 'requests_total{code=~"(?!4).*"}', "total": 'requests_total{code=~"(?!4).*"}'}, "error", "bad_data"),
        ({"histogram": "requests"}, "stale", "no sample of `requests_bucket`"),
    ):
        answer = read(source(server.url, **fields))
        assert isinstance(answer, Missing)
        assert (answer.reason, words in answer.detail) == (reason, True), answer
    assert read(source(server.url), instance("x", started=LONG_AGO)) == Missing(
        "stale",
        '0 of 1 instances read; x: no sample of `requests_total` with pod="x"; is `instance_label` right?',
    )


@needs_prometheus
def test_queries_are_windows_that_go_on_where_the_last_one_ended(pages: Pages, server: Prometheus) -> None:
    """A query of the user counts over its window; a shorter one is not asked for, no bad is 0, and nothing at all is missing."""
    total = "sum(increase(requests_total{$arm}[$window]))"
    fields = {"total": total, "bad": 'sum(increase(requests_total{code="500",$arm}[$window]))', "window": "3s"}
    one = source(server.url, **fields)
    first = until(lambda: isinstance(answer := read(one), Window) and answer)
    assert first.end - first.start == 3 * SECOND
    assert (first.bad, first.total) == (0, 0)
    early = one.read(STABLE, WEB, first.end, first.end + 2 * SECOND)
    assert early == Window(first.end, first.end, 0, 0)
    pages.texts["web-1"] = PAGE.replace(b"} 70\n", b"} 90\n")
    second = until(lambda: isinstance(answer := read(one, through=first.end), Window) and answer.total > 0 and answer)
    assert second.start == first.end
    none = read(source(server.url, **{**fields, "bad": "sum(increase(errors_total{$arm}[$window]))"}))
    assert isinstance(none, Window)
    assert none.bad == 0
    for wrong, reason in (
        ("sum(increase(gone_total{$arm}[$window]))", "stale"),
        ("sum(rate(requests_total{$arm}[$window])) * NaN", "nan"),
        ("requests_total{$arm}[$window]", "error"),
        ("sum(increase(requests_total{$arm}[$window])", "error"),
    ):
        answer = read(source(server.url, **{**fields, "total": wrong}))
        assert isinstance(answer, Missing)
        assert answer.reason == reason


@needs_prometheus
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is needed to make a certificate")
def test_tls_and_a_password(pages: Pages, tmp_path: Path) -> None:
    """The server must prove its name, the user must prove who he is, and what is wrong is said without the password."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=prometheus", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    web = {"tls_server_config": {"cert_file": str(cert), "key_file": str(key)}, "basic_auth_users": {"ada": BCRYPT}}
    server = Prometheus(tmp_path / "prometheus", pages, TARGETS, web)
    basic = {"username": "ada", "password_env": "PASSWORD"}
    try:
        for fields in ({"ca_file": str(cert)}, {"insecure_skip_verify": True}):
            assert len(whole(source(server.url, basic=basic, **fields)).by_instance) == 2
        for fields, words in (
            ({"basic": basic}, "the server's certificate is not valid"),
            ({"ca_file": str(cert)}, "does not accept the credentials"),
            ({"ca_file": str(cert), "basic": {"username": "eve", "password_env": "TOKEN"}}, "does not accept the credentials"),
        ):
            answer = read(source(server.url, **fields))
            assert isinstance(answer, Missing)
            assert answer.reason == "error"
            assert words in answer.detail
            assert PASSWORD not in answer.detail
    finally:
        server.close()


@needs_prometheus
def test_tokens_and_headers(server: Prometheus, tmp_path: Path) -> None:
    """A gateway gets the token, from the environment or anew from its file, and the tenant; where it takes no POST, GET does."""
    token = tmp_path / "token"
    token.write_text("t0\n")
    gateway = Gateway(server.port, {"Authorization": "Bearer t0", "X-Scope-OrgID": "blue"})
    try:
        for fields in ({"bearer_token_env": "TOKEN"}, {"bearer_token_file": str(token)}):
            one = source(gateway.url, headers={"X-Scope-OrgID": {"env": "TENANT"}}, **fields)
            assert len(whole(one).by_instance) == 2
            refused = read(source(gateway.url, headers={"X-Scope-OrgID": "red"}, **fields))
            assert isinstance(refused, Missing)
            assert "does not accept the credentials" in refused.detail
        token.write_text("t1")
        assert isinstance(read(one), Missing)
        token.unlink()
        gone = read(one)
        assert isinstance(gone, Missing)
        assert str(token) in gone.detail
    finally:
        gateway.close()
    shy = Gateway(server.port, {}, posts=False)
    try:
        one = source(shy.url)
        assert len(whole(one).by_instance) == 2
        assert shy.asked.count("POST") == 1
    finally:
        shy.close()
    unknown = read(source(server.url, bearer_token_env="NOBODY"))
    assert unknown == Missing("error", "could not set up the check `a`: the environment variable NOBODY is not set")
    unread = read(source(f"https://127.0.0.1:{server.port}", ca_file=str(token)))
    assert isinstance(unread, Missing)
    assert "could not use the certificates" in unread.detail


@needs_prometheus
def test_a_server_that_freezes_or_is_gone(server: Prometheus) -> None:
    """Frozen is a timeout, thawed is well again, and gone is refused; none of it is a number or an exception."""
    patient, hasty = source(server.url), source(server.url, timeout="500ms")
    whole(patient)
    whole(hasty)
    server.freeze()
    assert read(hasty) == Missing("timeout", "127.0.0.1: no whole answer within 0.5 s")
    server.thaw()
    assert isinstance(read(patient), Counters)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{sock.getsockname()[1]}"
    assert read(source(closed)) == Missing("refused", "127.0.0.1: connection refused")


@pytest.mark.parametrize(
    ("status", "body", "reason", "words"),
    [
        (429, b"slow down", "error", "asked too often (429)"),
        (500, b"oops", "error", "answered 500"),
        (503, b'{"status":"error","errorType":"timeout","error":"query timed out"}', "timeout", "query timed out"),
        (422, b'{"status":"error","errorType":"execution","error":"too many samples"}', "error", "too many samples"),
        (200, b'{"status":"error","errorType":"internal","error":"no"}', "error", "internal: no"),
        (200, b"<html>Sign in</html>", "error", "something else than Prometheus' API"),
        (302, b"", "error", "a redirect"),
        (404, b"", "error", "no Prometheus API"),
        (
            200,
            b'{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["store gone"]}',
            "error",
            "not whole: store gone",
        ),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}', "error", "gives a matrix"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"value":["a"]}]}}', "error", "cannot be read"),
    ],
)
def test_an_answer_that_is_no_result(status: int, body: bytes, reason: str, words: str) -> None:
    """Refusals, trouble, part of an answer and things that are no answer at all have a reason each."""
    with pytest.raises(Refused) as refused:
        rows_of(status, body)
    assert refused.value.reason == reason
    assert words in str(refused.value)


def test_results() -> None:
    """Vectors and scalars are results, also beside Prometheus' own notes on the query."""
    vector = b'{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"2"]}]}'
    rows = rows_of(200, b'{"status":"success","data":' + vector + b',"warnings":["PromQL info: x"]}')
    assert rows == [Row({"a": "b"}, (1.5, "2"))]
    assert rows_of(200, b'{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}') == [Row({}, (1.0, "+Inf"))]


def test_names_are_not_patterns() -> None:
    """The dot of a name is no wildcard, and a name cannot end the string that it stands in."""
    assert arm_matcher("pod", ["a.b", 'c"d\\']) == 'pod=~"a\\\\.b|c\\"d\\\\\\\\"'


class Replicas:
    """Two replicas that answer in turn: the second is always a scrape behind."""

    def __init__(self) -> None:
        self.turn = 0

    def rows(self, query: str, at: dt.datetime) -> list[Row]:
        self.turn += 1
        behind = self.turn % 2 == 0
        sampled = at.timestamp() - (14 if behind else 1)
        return [
            Row({"deployguard": "requests_total", "pod": "web-1", "code": "200"}, (0, str(1000 - 10 * behind))),
            Row({"deployguard": "sampled at", "pod": "web-1"}, (0, str(sampled))),
        ]

    def close(self) -> None:
        pass


def test_a_replica_that_is_behind_is_not_a_reset() -> None:
    """Counters that seem to fall because another replica answers are left out, or all of them would be counted a second time."""
    one = source("http://127.0.0.1:1")
    one._server = Replicas()  # type: ignore[assignment]
    now = clock.now()
    answers = [one.read(STABLE, (instance("web-1"),), None, now + n * 10 * SECOND) for n in range(3)]
    assert [type(a).__name__ for a in answers] == ["Counters", "Missing", "Counters"]
    assert isinstance(answers[1], Missing)
    assert "older than the one before" in answers[1].detail


class Slow:
    """A monitoring system that samples every thirty seconds."""

    name = "slow"

    def rows(self, query: str, at: dt.datetime) -> list[Row]:
        sampled = at.timestamp() // 30 * 30
        metric = {"pod": "web-1"}
        return [
            Row({"deployguard": "memory_bytes", **metric}, (0, "5e8")),
            Row({"deployguard": "requests_total", **metric}, (0, "7")),
            Row({"deployguard": "sampled at", **metric}, (0, str(sampled))),
        ]


def test_a_sample_of_a_gauge_speaks_once() -> None:
    """A gauge that is polled more often than it is sampled is missing in between, and says so; counters just have not grown."""
    now = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    for fields, expected in (({"gauge": "memory_bytes"}, [Gauges, Missing, Missing, Gauges]), (COUNTS, [Counters] * 4)):
        one = source("http://127.0.0.1:1", lag="0s", **fields)
        one._server = Slow()  # type: ignore[assignment]
        answers = [one.read(STABLE, (instance("web-1"),), None, now + n * 10 * SECOND) for n in range(4)]
        assert [type(answer) for answer in answers] == expected
        assert one.read(STABLE, (instance("web-1"),), None, now + 30 * SECOND) == answers[-1]


def test_what_is_read_survives_being_saved() -> None:
    """A window is a reading as every other."""
    window = Window(LONG_AGO, LONG_AGO + SECOND, 1.0, 2.0)
    assert msgspec.json.decode(msgspec.json.encode(window), type=Window) == window
    assert json.loads(msgspec.json.encode(window))["kind"] == "window"


# What the engine makes of it


def at(seconds: float) -> dt.datetime:
    return LONG_AGO + seconds * SECOND


def fold(evidence: CountsEvidence, seconds: float, stable: Answer, candidate: Answer) -> CountsEvidence:
    return counts.fold(evidence, {STABLE: stable, CANDIDATE: candidate}, (STABLE, CANDIDATE), RULES, LONG_AGO, at(seconds))


def test_a_window_that_was_missed_is_counted_with_the_next() -> None:
    """Each arm goes on where it was itself counted last, so an arm that was missing once is caught up with, and nothing counts twice."""

    def window(evidence: CountsEvidence, arm: str, end: float) -> Window:
        begin = _through(evidence, arm) or LONG_AGO
        return Window(begin, at(end), 0.0, 10 * (at(end) - begin) / SECOND)

    evidence = fold(CountsEvidence(), 1, window(CountsEvidence(), STABLE, 1), window(CountsEvidence(), CANDIDATE, 1))
    evidence = fold(evidence, 2, window(evidence, STABLE, 2), Missing("timeout"))
    for end in (3, 3, 4):
        evidence = fold(evidence, end, window(evidence, STABLE, end), window(evidence, CANDIDATE, end))
    assert evidence.counted == {STABLE: Counter(0, 40), CANDIDATE: Counter(0, 40)}
    assert evidence.through == at(4)
    assert evidence.gaps == {}


def test_a_candidate_that_was_not_sampled_yet_adds_nothing_and_then_all_of_it() -> None:
    """The first sample of a new instance counts from its first request, however many polls it was waited for."""
    old = {"old": Counter(0, 1000)}
    evidence = fold(CountsEvidence(), 1, Counters(at(1), old), Counters(at(1), {}, {}, ("new",)))
    evidence = fold(evidence, 2, Counters(at(2), old), Counters(at(2), {}, {}, ("new",)))
    assert evidence.gaps == {}
    evidence = fold(evidence, 3, Counters(at(3), {"old": Counter(0, 1050)}), Counters(at(3), {"new": Counter(1, 5)}, {"new": at(1)}))
    assert evidence.counted == {STABLE: Counter(0, 50), CANDIDATE: Counter(1, 5)}
