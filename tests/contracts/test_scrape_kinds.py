"""Every kind of scrape check against the pages of a real client library, and against pages that nobody should write."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, Histogram, Summary
from prometheus_client import Counter as Metric

from deployguard.model.reading import Buckets, Counter, Counters, Gauges, Missing
from deployguard.model.target import CANDIDATE, STABLE
from deployguard.signals.scrape import ScrapePool, ScrapeSource
from tests.contracts.pages import NOW, Servers, buckets, check, counted, read

# The pages of prometheus_client


def test_a_histogram_is_counted_by_category(servers: Servers, pool: ScrapePool) -> None:
    """Categories are what was observed between neighbouring bounds, summed over the routes; labels of the selector choose routes."""
    registry, values = CollectorRegistry(), [0.001 * n**2 for n in range(1, 120)]
    times = Histogram("latency_seconds", "", ["route"], buckets=(0.01, 0.25, 1, 2.5), registry=registry)
    for n, value in enumerate(values):
        times.labels(("/", "/login")[n % 2]).observe(value)
    one = servers.add(registry)
    edges = (0.01, 0.25, 1.0, 2.5)
    assert buckets(pool, "latency_seconds", one) == Buckets(NOW, edges, {"u1": counted(values, edges)}, {"u1": NOW})
    assert buckets(pool, 'latency_seconds{route="/"}', one).by_instance == {"u1": counted(values[::2], edges)}
    assert buckets(pool, 'latency_seconds{route=~"/.+"}', one).by_instance == {"u1": counted(values[1::2], edges)}
    assert len(servers.accepted) == 3
    assert not any("protobuf" in accept for accept in servers.accepted), "whoever has buckets in text is asked for nothing else"


@pytest.mark.parametrize(
    ("within", "slow", "warned"),
    [("250ms", 0.25, False), ("1s", 1, False), ("200ms", 0.25, True), ("1ms", 0.01, True)],
)
def test_slow_requests_are_those_beyond_a_bound(
    servers: Servers, pool: ScrapePool, caplog: pytest.LogCaptureFixture, within: str, slow: float, warned: bool
) -> None:
    """With `within`, bad is what took longer than the smallest bound that is not below it; another bound than the wanted one is said."""
    registry, values = CollectorRegistry(), [0.001 * n**2 for n in range(1, 120)]
    times = Histogram("latency_seconds", "", buckets=(0.01, 0.25, 1, 2.5), registry=registry)
    for value in values:
        times.observe(value)
    with caplog.at_level(logging.WARNING):
        answer = read(pool, check(histogram="latency_seconds", within=within), servers.add(registry))
    assert answer == Counters(NOW, {"u1": Counter(sum(v > slow for v in values), len(values))}, {"u1": NOW})
    assert [f"slower than {slow:g} counts as bad" in message for message in caplog.messages] == [True] * warned


def test_a_time_beyond_all_bounds_is_missing(servers: Servers, pool: ScrapePool) -> None:
    """What the histogram cannot tell is not guessed."""
    answer = read(pool, check(histogram="h", within="20s"), servers.add(b'h_bucket{le="10"} 3\nh_bucket{le="+Inf"} 4\nh_count 4\n'))
    assert isinstance(answer, Missing)
    assert (answer.reason, "the largest bucket bound of `h` is 10, and `within` is 20s" in answer.detail) == ("edges", True)


def test_milliseconds_are_told_by_the_name(servers: Servers, pool: ScrapePool) -> None:
    """`within` is a time, whatever the unit of the histogram."""
    page = b'h_milliseconds_bucket{le="250"} 3\nh_milliseconds_bucket{le="500"} 5\nh_milliseconds_bucket{le="+Inf"} 9\n'
    answer = read(pool, check(histogram="h_milliseconds", within="500ms"), servers.add(page))
    assert answer == Counters(NOW, {"u1": Counter(4, 9)}, {"u1": NOW})


def test_counts_are_split_into_strata(servers: Servers, pool: ScrapePool) -> None:
    """Each listed value and the rest have counts of their own from the same scrape, zeros included; the whole stays the whole."""
    registry = CollectorRegistry()
    requests = Metric("requests", "", ["route", "code"], registry=registry)
    for route, code, number in (("/login", "200", 5), ("/login", "500", 2), ("/", "200", 7), ("/help", "500", 1)):
        requests.labels(route, code).inc(number)
    asked = check(bad='requests_total{code="500"}', total="requests_total", strata={"route": ["/login", "/checkout"]})
    answer = read(pool, asked, servers.add(registry))
    strata = {"/login": Counter(2, 7), "/checkout": Counter(0, 0), "other": Counter(1, 8)}
    assert answer == Counters(NOW, {"u1": Counter(3, 15)}, {"u1": NOW}, (), {name: {"u1": one} for name, one in strata.items()})


def test_classes_count_each_request_once(servers: Servers, pool: ScrapePool) -> None:
    """A class without a series has 0 beside one that has some; what two classes select counts in the worse one."""
    registry = CollectorRegistry()
    requests = Metric("requests", "", ["code"], registry=registry)
    for code, number in (("200", 5), ("404", 2), ("500", 1)):
        requests.labels(code).inc(number)
    one = servers.add(registry)
    classes = ["requests_total", 'requests_total{code=~"4.."}', 'requests_total{code=~"5.."}', "timeouts_total"]
    assert read(pool, check(classes=classes), one) == Buckets(NOW, (), {"u1": (5, 2, 1, 0)}, {"u1": NOW})
    nothing = read(pool, check(classes=["ok_total", "lost_total"]), one)
    assert isinstance(nothing, Missing)
    assert (nothing.reason, "`ok_total` or `lost_total`" in nothing.detail) == ("no_series", True)


def test_a_gauge_is_summed_and_a_quantile_is_one(servers: Servers, pool: ScrapePool) -> None:
    """Gauges may be below zero; a summary's quantile is read as a gauge, also where it is written as another number."""
    registry = CollectorRegistry()
    queue = Gauge("queue", "", ["lane"], registry=registry)
    queue.labels("a").set(-3)
    queue.labels("b").set(1.5)
    Summary("took_seconds", "", registry=registry).observe(0.7)
    quantiles = b'took{quantile="0.99"} 0.25\ntook{quantile="1.0"} 0.75\n'
    one, two = servers.add(registry), servers.add(quantiles)
    assert read(pool, check(gauge="queue"), one) == Gauges(NOW, {"u1": -1.5}, {"u1": NOW})
    assert read(pool, check(gauge="took_seconds_sum"), one) == Gauges(NOW, {"u1": 0.7}, {"u1": NOW})
    assert read(pool, check(gauge='took{quantile="1"}'), two) == Gauges(NOW, {"u2": 0.75}, {"u2": NOW})


def test_an_instance_without_a_number_is_unread(servers: Servers, pool: ScrapePool) -> None:
    """NaN and infinity are no gauge, and an absent series is none; the other instances are read."""
    instances = [servers.add(page) for page in (b"queue 2\n", b"queue NaN\n", b"queue +Inf\n", b"other 1\n")]
    answer = read(pool, check(gauge="queue"), *instances)
    assert answer == Gauges(NOW, {"u1": 2}, {"u1": NOW}, ("u2", "u3", "u4"))


def test_what_is_selected_in_vain_is_remarked_on(servers: Servers, pool: ScrapePool, caplog: pytest.LogCaptureFixture) -> None:
    """Before a rollout: what cannot be read, which metric or label is nowhere, and where slow begins; bad without a series is no remark."""
    page = b'requests_total{code="200"} 5\nh_bucket{le="1"} 3\nh_bucket{le="+Inf"} 4\n'
    instances = (servers.add(page), servers.add(page))

    def remarks(**fields: Any) -> list[str]:
        return ScrapeSource(check(**fields), pool).remarks(instances, NOW)

    assert remarks(bad='requests_total{code=~"5.."}', total="requests_total") == []
    assert remarks(bad="request_errors_total", total="requests_total") == [
        "no instance shows a metric `request_errors_total`: it is misspelt, or nothing was counted yet"
    ]
    assert remarks(bad='requests_total{status="500"}', total="requests_total") == ["no series of `requests_total` has a label `status`"]
    assert remarks(bad='requests_total{code="5"}', total="requests_total", strata={"route": ["/"]}) == [
        "no series of `requests_total` has a label `route`"
    ]
    assert remarks(classes=["requests_total", "lost_total"]) == [
        "no instance shows a metric `lost_total`: it is misspelt, or nothing was counted yet"
    ]
    assert remarks(gauge="queue") == ["cannot be read (no_series): 0 of 2 instances read; id-u1: no series matches `queue`"]
    assert remarks(histogram="h") == []
    assert remarks(histogram="h", within="1s") == []
    assert remarks(histogram="h", within="300ms") == ["`h` has no bucket that ends at 300ms (0.3); what is slower than 1 counts as bad"]
    assert not caplog.messages, "remarks are for the caller to show"


# Histograms that are not as they should be


@pytest.mark.parametrize(
    ("page", "edges", "counts"),
    [
        ('h_bucket{le="1e+00"} 2\nh_bucket{le="0.50"} 1\nh_bucket{le="inf"} 4\n', (0.5, 1.0), (1, 1, 2)),
        ('h_bucket{le="0.5"} 1\nh_count 4\n', (0.5,), (1, 3)),
        (
            (
                'h_bucket{r="a",le="1"} 1\nh_bucket{r="a",le="2"} 3\nh_bucket{r="a",le="+Inf"} 4\n'
                'h_bucket{r="b",le="2.0"} 5\nh_bucket{r="b",le="5"} 6\nh_bucket{r="b",le="+Inf"} 7\n'
            ),
            (2.0,),
            (8, 3),
        ),
        ('h_bucket{le="1"} 0\nh_bucket{le="+Inf"} 0\n', (1.0,), (0, 0)),
        ('h_bucket{le="-1"} 1\nh_bucket{le="0"} 2\nh_bucket{le="1"} 4\nh_bucket{le="+Inf"} 5\n', (1.0,), (4, 1)),
        ('h_bucket{le="1"} 2 # {t="x"} 0.5\nh_bucket{le="+Inf"} 3\n', (1.0,), (2, 1)),
    ],
)
def test_ways_to_write_a_histogram(
    servers: Servers, pool: ScrapePool, page: str, edges: tuple[float, ...], counts: tuple[int, ...]
) -> None:
    """Order, notation, a missing +Inf beside a count, bounds that no time has, and series that differ, summed on the bounds they share."""
    assert buckets(pool, "h", servers.add(page.encode())) == Buckets(NOW, edges, {"u1": counts}, {"u1": NOW})


@pytest.mark.parametrize(
    ("page", "reason", "detail"),
    [
        ('h_bucket{le="1"} 3\nh_bucket{le="2"} 2\nh_bucket{le="+Inf"} 4\n', "error", "the buckets of `h_bucket` fall: 3, 2, 4"),
        ('h_bucket{le="1"} 3\nh_bucket{le="+Inf"} 2\n', "error", "fall: 3, 2"),
        ('h_bucket{le="1"} NaN\nh_bucket{le="+Inf"} 2\n', "nan", "`h_bucket` shows nan"),
        ('h_bucket{le="1"} -1\nh_bucket{le="+Inf"} 2\n', "nan", "shows -1.0"),
        ('h_bucket{le="1"} 1\nh_bucket{le="+Inf"} +Inf\n', "nan", "shows inf"),
        ('h_bucket{le="1"} 1\n', "error", 'neither a bucket with le="+Inf" nor a `_count`'),
        ("h_bucket 1\nh_count 4\n", "error", 'le="", which is not a bound'),
        ('h_bucket{le="NaN"} 1\nh_count 4\n', "error", 'le="NaN", which is not a bound'),
        ('h_bucket{le="1"} 1\nh_bucket{le="1.0"} 1\nh_count 4\n', "error", 'le="1.0", twice'),
        ('h_bucket{r="a",le="1"} 1\nh_bucket{r="b",le="2"} 1\nh_count{r="a"} 4\nh_count{r="b"} 4\n', "edges", "no bucket bound in common"),
        ('h_bucket{le="+Inf"} 4\nh_count 4\n', "edges", "no bucket with a finite bound, and the page cannot be had as protobuf"),
        ("h_sum 4\n", "no_series", "no series matches `h`"),
    ],
)
def test_a_histogram_that_makes_no_sense_is_missing(servers: Servers, pool: ScrapePool, page: str, reason: str, detail: str) -> None:
    """No count is made up from buckets that contradict one another, are no numbers, or have no end."""
    for asked in (check(histogram="h"), check(histogram="h", within="1s")):
        answer = read(pool, asked, servers.add(page.encode()))
        assert isinstance(answer, Missing)
        assert (answer.reason, detail in answer.detail) == (reason, True), answer


def test_instances_with_other_bounds(servers: Servers, pool: ScrapePool) -> None:
    """The bounds that most instances have are taken; finer ones are summed onto them, and an instance that lacks one is unread."""
    usual = b'h_bucket{le="1"} 1\nh_bucket{le="2"} 3\nh_bucket{le="+Inf"} 6\n'
    finer = b'h_bucket{le="1"} 1\nh_bucket{le="1.5"} 2\nh_bucket{le="2"} 4\nh_bucket{le="+Inf"} 5\n'
    other = b'h_bucket{le="1"} 1\nh_bucket{le="3"} 2\nh_bucket{le="+Inf"} 3\n'
    instances = [servers.add(page) for page in (finer, usual, other, usual)]
    found = buckets(pool, "h", *instances)
    assert found == Buckets(
        NOW, (1.0, 2.0), {"u1": (1, 3, 1), "u2": (1, 2, 3), "u4": (1, 2, 3)}, dict.fromkeys(("u1", "u2", "u4"), NOW), ("u3",)
    )


def test_the_bound_of_slow_requests_never_moves(servers: Servers, pool: ScrapePool) -> None:
    """A candidate whose histogram lacks the bound that stable is counted by is missing: another one would count other requests."""
    stable = servers.add(b'h_bucket{le="0.5"} 1\nh_bucket{le="1"} 3\nh_bucket{le="+Inf"} 6\n')
    candidate = servers.add(b'h_bucket{le="0.25"} 1\nh_bucket{le="1"} 3\nh_bucket{le="+Inf"} 6\n')
    source = ScrapeSource(check(histogram="h", within="200ms"), pool)
    early = source.read(CANDIDATE, (candidate,), None, NOW)
    assert isinstance(early, Missing)
    assert "stable's bounds of `h` are not known yet" in early.detail
    assert source.read(STABLE, (stable,), None, NOW) == Counters(NOW, {"u1": Counter(5, 6)}, {"u1": NOW})
    answer = source.read(CANDIDATE, (candidate,), None, NOW)
    assert isinstance(answer, Missing)
    assert (answer.reason, "no bucket that ends at 0.5 any more" in answer.detail) == ("edges", True)


def test_without_stable_the_bound_is_the_candidates(servers: Servers, pool: ScrapePool) -> None:
    """At full exposure there is no stable instance to choose by: a guard that starts there has its numbers one poll later."""
    source = ScrapeSource(check(histogram="h", within="200ms"), pool)
    candidate = servers.add(b'h_bucket{le="0.25"} 1\nh_bucket{le="1"} 3\nh_bucket{le="+Inf"} 6\n')
    answers = [source.read(arm, (candidate,) if arm == CANDIDATE else (), None, NOW) for arm in (CANDIDATE, STABLE, CANDIDATE)]
    assert [isinstance(answer, Missing) for answer in answers] == [True, True, False]
    assert answers[-1] == Counters(NOW, {"u1": Counter(5, 6)}, {"u1": NOW})
