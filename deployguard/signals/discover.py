"""Which series of a metrics page tell how users fare: request counters by status and latency histograms, by common names, then by shape."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from deployguard.signals.exposition import parse_page

_LINE = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^\"{}]|\"(?:[^\"\\]|\\.)*\")*)\})?[ \t]+[-+0-9.NI]", re.MULTILINE)
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_HTTP = re.compile(r"[1-5](\d\d|xx)")
_HTTP_LABELS = ("code", "status", "status_code", "http_status_code", "http_response_status_code", "response_code", "http_code")
_RPC_LABELS = ("grpc_code", "rpc_grpc_status_code", "grpc_status_code")
_RPC_BAD = "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss"
_PATH_LABELS = ("path", "route", "handler", "uri", "url", "endpoint", "http_route", "view", "resource")
_OWN_PATH = re.compile(r"/?(metrics|healthz?|livez?|liveness|readyz?|readiness|ping|status|-/healthy|-/ready|actuator.*)/?")
_OUTGOING = re.compile(r"client|outbound|upstream|egress|webhook|scrape|promhttp|prometheus_|kubernetes|rest_")
_SERVED = re.compile(r"request|http|rpc|grpc|server_handled")
_COUNTERS = (
    "http_requests_total",
    "http_server_requests_total",
    "http_server_requests_seconds_count",
    "http_server_request_duration_seconds_count",
    "http_request_duration_seconds_count",
    "http_requests_received_total",
    "flask_http_request_total",
    "starlette_requests_total",
    "django_http_responses_total_by_status_total",
    "requests_total",
    "nginx_ingress_controller_requests",
    "traefik_service_requests_total",
    "istio_requests_total",
    "grpc_server_handled_total",
)
"""What is taken first, the most telling first."""
_HISTOGRAMS = (
    "http_request_duration_seconds",
    "http_server_request_duration_seconds",
    "http_server_requests_seconds",
    "http_server_duration_milliseconds",
    "http_request_duration_milliseconds",
    "http_request_duration_ms",
    "flask_http_request_duration_seconds",
    "starlette_requests_processing_time_seconds",
    "django_http_requests_latency_seconds_by_view_method",
    "request_duration_seconds",
    "traefik_service_request_duration_seconds",
    "istio_request_duration_milliseconds",
    "grpc_server_handling_seconds",
)
_LATENCY = re.compile(r"(duration|latency|handling|processing|response)_?(time)?|_seconds$|_milliseconds$|_ms$")
_SIZE = re.compile(r"bytes|size|length|queue|gc_|_gc")


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter of requests: the conditions that select the bad ones, and those that leave out what are no users' requests."""

    name: str
    bad: str
    without: str = ""

    @property
    def total_selector(self) -> str:
        """All users' requests."""
        return f"{self.name}{{{self.without}}}" if self.without else self.name

    @property
    def bad_selector(self) -> str:
        """The bad ones of them."""
        return f"{self.name}{{{','.join(part for part in (self.bad, self.without) if part)}}}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a page shows. `counters` and `histograms` name the best first; `names` counts all metrics of the page."""

    counters: tuple[Counter, ...] = ()
    histograms: tuple[str, ...] = ()
    names: int = 0


@dataclass(slots=True)
class _Metric:
    """The labels of one metric name, and the values that each was seen with."""

    labels: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def discover(page: bytes) -> Found:
    """What the page shows of how users fare."""
    metrics = _metrics(page)
    counters = [
        (rank, made) for name, metric in metrics.items() if (made := _counter(name, metric)) and (rank := _rank(name, _COUNTERS)) >= 0
    ]
    bases = {name.removesuffix("_bucket") for name, metric in metrics.items() if name.endswith("_bucket") and "le" in metric.labels}
    histograms = [(_rank(base, _HISTOGRAMS), base) for base in bases if _is_latency(base)]
    return Found(
        counters=tuple(made for _, made in sorted(counters, key=lambda one: (one[0], one[1].name))),
        histograms=tuple(base for _, base in sorted(histograms)),
        names=len(metrics),
    )


def counted(page: bytes, counter: Counter) -> float | None:
    """All users' requests that the page has counted; None when it cannot be read."""
    from deployguard.model.selector import parse_selector

    selector = parse_selector(counter.total_selector)
    try:
        column = parse_page(page, counter.name)
    except ValueError:
        return None
    pairs = zip(column.series, column.values, strict=True)
    return sum(value for series, value in pairs if selector.accepts(series.name, series.labels))


def _metrics(page: bytes) -> dict[str, _Metric]:
    found: dict[str, _Metric] = defaultdict(_Metric)
    for match in _LINE.finditer(page):
        metric = found[match[1].decode()]
        for label, value in _LABEL.findall(match[2] or b""):
            metric.labels[label.decode()].add(value.decode(errors="replace"))
    return dict(found)


def _rank(name: str, known: Iterable[str]) -> int:
    """The place among the known names; behind them all for others that look like it."""
    names = list(known)
    return names.index(name) if name in names else len(names)


def _counter(name: str, metric: _Metric) -> Counter | None:
    """The counter that the metric is, when it counts requests that were served, by their status."""
    counts = name.endswith(("_total", "_count")) or name in _COUNTERS
    if not counts or _OUTGOING.search(name) or not _SERVED.search(name) or (name not in _COUNTERS and _SIZE.search(name)):
        return None
    without = _own_paths(metric)
    for label in _HTTP_LABELS:
        if any(_HTTP.fullmatch(value) for value in metric.labels.get(label, ())):
            return Counter(name, f'{label}=~"5.."', without)
    for label in _RPC_LABELS:
        if metric.labels.get(label):
            return Counter(name, f'{label}=~"{_RPC_BAD}"', without)
    return None


def _own_paths(metric: _Metric) -> str:
    """The condition that leaves out probes and scrapes, which are no users' requests; empty when none is counted."""
    for label in _PATH_LABELS:
        own = sorted(value for value in metric.labels.get(label, ()) if _OWN_PATH.fullmatch(value))
        if own:
            escaped = "|".join(value.replace(".", r"\\.") for value in own)
            return f'{label}!~"{escaped}"'
    return ""


def _is_latency(base: str) -> bool:
    if base in _HISTOGRAMS:
        return True
    return bool(_SERVED.search(base) and _LATENCY.search(base)) and not (_OUTGOING.search(base) or _SIZE.search(base))
