"""The parser of metrics pages, against prometheus_client's writer and reader and against pages nobody should write."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from deployguard.signals.exposition import Memo, openmetrics, parse_page

_VALUES = st.floats(min_value=0, max_value=1e300)
_LABEL_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)


def _plain(page: bytes, *names: str) -> list[tuple[str, dict[str, str], float]]:
    columns = [parse_page(page, name) for name in names]
    return [(s.name, s.labels, value) for column in columns for s, value in zip(column.series, column.values, strict=True)]


def _theirs(families: object, name: str) -> list[tuple[str, dict[str, str], float]]:
    return [(s.name, s.labels, s.value) for family in families for s in family.samples if s.name == name]  # type: ignore[attr-defined]


def _registry(rows: list[tuple[str, str, float]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    requests = Counter("http_requests", 'Says "http_requests_total 7"\nand http_requests_total{}', ["route", "code"], registry=registry)
    for route, code, value in rows:
        requests.labels(route, code).inc(value)
    Counter("http_requests_total_other", "A longer name", registry=registry).inc(3)
    Gauge("note", "A label that looks like a series", ["text"], registry=registry).labels('\nhttp_requests_total{a="b"} 9\n').set(1)
    Histogram("latency", "A histogram", registry=registry).observe(0.3, {"http_requests_total": "1"})
    return registry


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_LABEL_TEXT, _LABEL_TEXT, _VALUES), max_size=6, unique_by=lambda row: row[:2]))
def test_agrees_with_prometheus_client_in_both_formats(rows: list[tuple[str, str, float]]) -> None:
    """Whatever labels and values a client writes, both formats read as prometheus_client itself reads them."""
    registry = _registry(rows)
    text, modern = generate_latest(registry), generate_openmetrics(registry)
    name = "http_requests_total"
    assert _plain(text, name) == _theirs(read_text(text.decode()), name)
    assert _plain(modern, name) == _theirs(read_openmetrics(modern.decode()), name)


def test_exemplars_are_ignored() -> None:
    """A bucket with an exemplar shows its own value, and the braces of the exemplar are not its labels."""
    registry = CollectorRegistry()
    Histogram("latency", "", ["r"], buckets=(0.5, 1), registry=registry).labels("#1 {x}").observe(0.7, {"trace": "a}b"})
    page = generate_openmetrics(registry)
    assert b'# {trace="a}b"}' in page
    assert _plain(page, "latency_bucket") == _theirs(read_openmetrics(page.decode()), "latency_bucket")


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        (b"m 1", {}, 1.0),
        (b"m{} 1", {}, 1.0),
        (b"  m\t2.5e3 1700000000000", {}, 2500.0),
        (b'm { a = "b" , c="d", } 7', {"a": "b", "c": "d"}, 7.0),
        (b'm{a="q\\"q\\\\n\\n}"} 7 # {t="1"} 4 5.5', {"a": 'q"q\\n\n}'}, 7.0),
        (b'm{a="# {"}1', {"a": "# {"}, 1.0),
        (b"m +Inf", {}, math.inf),
        (b"m -3", {}, -3.0),
    ],
)
def test_ways_to_write_a_line(line: bytes, labels: dict[str, str], value: float) -> None:
    """Blanks, escapes, a trailing comma, a time and an exemplar are all as the formats allow, with every line end."""
    for end in (b"\n", b"\r\n", b""):
        assert _plain(b"# HELP m x m 5\nxm 3\nmm 4\n" + line + end, "m") == [("m", labels, value)]


def test_nan_is_read_as_nan() -> None:
    """NaN is a value of the format; what to make of it is for the reader of the sample."""
    assert math.isnan(_plain(b"m NaN\n", "m")[0][2])


@pytest.mark.parametrize(
    "line",
    [
        b"m",
        b"m x",
        b"m 1 2 3",
        b"m 1_0",
        b'm{a="b" 1',
        b'm{a="b} 1',
        b"m{a=b} 1",
        b'm{a="b"}} 1',
        b'm{a="\xff"} 1',
        b'm{a="b"} # {} 1',
        b"m{a",
    ],
)
def test_a_malformed_wanted_line_makes_the_page_unusable(line: bytes) -> None:
    """A torn line of a wanted series is an error that shows the line, never a number."""
    with pytest.raises(ValueError, match="cannot read the metrics line `m"):
        parse_page(b"ok 1\n" + line + b"\n", "m")


def test_other_lines_are_not_looked_at() -> None:
    """Garbage in lines of other series does not disturb the wanted ones."""
    assert _plain(b"\xff\xfe{{{\nother{ 1\nm 4\n\x00\n", "m", "absent") == [("m", {}, 4.0)]


def test_a_memo_gives_one_series_object_over_many_pages() -> None:
    """With a memo the same name and labels give the same object at each poll, so that readers can key on it."""
    memo = Memo()
    first = parse_page(b'm{a="b"} 1\n', "m", memo)
    second = parse_page(b'm{a="b"} 2\n', "m", memo)
    assert first.series[0] is second.series[0]
    assert (first.values, second.values) == ((1.0,), (2.0,))


def test_openmetrics_is_told_by_its_content_type() -> None:
    """Parameters and capitals of the content type do not matter."""
    assert openmetrics("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8")
    assert not openmetrics("text/plain; version=0.0.4")
