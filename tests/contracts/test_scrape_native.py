"""Native histograms, from a page of a real client library in text and in protobuf."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import pytest

from deployguard.model.reading import Buckets, Counter, Counters, Gauges, Missing
from deployguard.model.target import CANDIDATE, STABLE, Instance
from deployguard.signals.histogram import FINEST
from deployguard.signals.scrape import ScrapePool, ScrapeSource
from tests.contracts.pages import NOW, Servers, buckets, check, counted, read

NATIVE = Path(__file__).with_name("native")
"""A page of client_golang 1.25 in both formats, with the program that made it."""
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
GRID = [2 ** (k / 4) for k in range(-80, 81)]
EVEN = [n / 1000 for n in range(1, 1001)]
ODD = [0, 0, -0.5, -3, 1e-9, 1e9, math.inf, 0.25, 0.2500001]
"""What was observed, without the NaN: it has no latency."""


def native(servers: Servers) -> Instance:
    return servers.add((NATIVE / "page.txt").read_bytes(), (NATIVE / "page.pb").read_bytes(), OPENMETRICS)


@pytest.mark.parametrize(
    ("histogram", "values", "edges"),
    [
        ('plain_seconds{route="/"}', EVEN, GRID),
        ("plain_seconds", EVEN + [4 * value for value in EVEN[9::10]], GRID),
        ("odd_seconds", ODD, GRID),
        ("empty_seconds", [], GRID),
        ("reduced_seconds", EVEN, [edge for edge in GRID if math.log2(edge) % 2 == 0]),
        ("widened_seconds", EVEN, [edge for edge in GRID if edge > 0.1767]),
        ("both_seconds", EVEN, [0.1, 0.25, 1]),
    ],
)
def test_native_histograms_are_counted_exactly(
    servers: Servers, pool: ScrapePool, histogram: str, values: list[float], edges: list[float]
) -> None:
    """Buckets of every schema hold just what was observed in them; the client's own merging leaves edges out and moves nothing."""
    found = buckets(pool, histogram, native(servers))
    assert found.edges == pytest.approx(edges, rel=1e-15)
    assert found.by_instance == {"u1": counted(values, found.edges)}


def test_protobuf_is_asked_for_once_text_shows_no_buckets(servers: Servers, pool: ScrapePool) -> None:
    """The first tick already has its reading; from then on every instance at the path is asked for protobuf, other paths are not."""
    one, two = native(servers), servers.add(b'plain_seconds_bucket{le="1"} 3\nplain_seconds_bucket{le="+Inf"} 4\nplain_seconds_count 4\n')
    source = ScrapeSource(check(histogram="plain_seconds"), pool)
    elsewhere = ScrapeSource(check(gauge="queue", path="/other"), pool)
    for tick in range(2):
        now = NOW + dt.timedelta(seconds=tick)
        assert isinstance(source.read(CANDIDATE, (one,), None, now), Buckets)
        assert elsewhere.read(CANDIDATE, (one,), None, now) == Gauges(now, {"u1": -3.5}, {"u1": NOW})
    first, second = servers.binary[:3], servers.binary[3:]
    assert first == [("/metrics", False), ("/metrics", True), ("/other", False)]
    assert sorted(second) == [("/metrics", True), ("/other", False)], "pages of one tick are asked for together"
    answer = source.read(CANDIDATE, (two,), None, NOW + dt.timedelta(seconds=9))
    assert isinstance(answer, Buckets)
    assert (answer.edges, answer.by_instance) == ((1.0,), {"u2": (3, 1)}), "a client without protobuf goes on answering in text"


def test_other_checks_read_the_protobuf_page_too(servers: Servers, pool: ScrapePool) -> None:
    """Counters, gauges, quantiles and classic buckets are the same numbers in both formats."""
    asked = [
        check(bad='jobs{code="500"}', total="jobs"),
        check(gauge="queue"),
        check(gauge='old_seconds{quantile="0.99"}'),
        check(gauge="old_seconds_sum"),
        check(histogram="both_seconds", within="250ms"),
    ]
    one = native(servers)
    text = [read(pool, one_check, one) for one_check in asked]
    binary = ScrapePool(timeout=20.0)
    sources = [ScrapeSource(one_check, binary) for one_check in [*asked, check(histogram="plain_seconds")]]
    answers = [source.read(STABLE, (one,), None, NOW) for source in sources]
    binary.close()
    assert not any(isinstance(answer, Missing) for answer in text)
    assert answers[:-1] == text
    assert ["protobuf" in accept for accept in servers.accepted[len(asked) :]] == [False, True]


def test_slow_requests_of_a_native_histogram(servers: Servers, pool: ScrapePool) -> None:
    """`within` a power of two is exact; another time is rounded up to the next bound, of which there are four for each power of two."""
    one = native(servers)
    for within, bound in (("250ms", 0.25), ("300ms", 2**-1.5)):
        answer = read(pool, check(histogram='plain_seconds{route="/"}', within=within), one)
        assert answer == Counters(NOW, {"u1": Counter(sum(value > bound for value in EVEN), 1000)}, {"u1": NOW})
    assert FINEST == 2


@pytest.mark.parametrize("cut", [3, 200, 700, -1])
def test_a_protobuf_page_that_is_cut_off_is_an_error(servers: Servers, pool: ScrapePool, cut: int) -> None:
    """A torn page gives no number, wherever it ends."""
    whole = (NATIVE / "page.pb").read_bytes()
    answer = read(pool, check(histogram="plain_seconds"), servers.add((NATIVE / "page.txt").read_bytes(), whole[:cut], OPENMETRICS))
    assert isinstance(answer, Missing)
    assert (answer.reason, "the protobuf metrics page" in answer.detail) == ("error", True)
