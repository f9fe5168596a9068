"""What came from a signal, or why nothing came. Absence is a value: never zero, never health, never guilt."""

from __future__ import annotations

import datetime as dt

from deployguard.model.base import Frozen


class Missing(Frozen, frozen=True, tag="missing", tag_field="kind"):
    """No number: `reason` is one word (timeout, refused, nan, stale, no_series, no_instance, no_port, prober,
    edges, lost, error)."""

    reason: str
    detail: str = ""


class Counter(Frozen, frozen=True, array_like=True):
    """Cumulative counts of one instance since it started: requests that went bad, and all requests."""

    bad: float
    total: float


class Counters(Frozen, frozen=True, tag="counters", tag_field="kind"):
    """Cumulative counters of the instances of one arm, read at `at`, by instance uid.

    `born` holds the start of those instances whose start is known: one that was born since the last reading starts
    from zero, an older one that is met for the first time is only a baseline. `unread` instances did not answer.
    `strata` splits the same counts by stratum (a route, say), for a comparison that a different mix cannot mislead.
    """

    at: dt.datetime
    by_instance: dict[str, Counter]
    born: dict[str, dt.datetime] = {}
    unread: tuple[str, ...] = ()
    strata: dict[str, dict[str, Counter]] = {}


class Buckets(Frozen, frozen=True, tag="buckets", tag_field="kind"):
    """Cumulative counts by ordered category of the instances of one arm, read at `at`, by instance uid; the best category first.

    For a latency histogram `edges` are the upper bounds of all categories but the last, which has none, in rising order, and each
    category counts what lies between its neighbours (not `le`). For classes, such as status codes, `edges` is empty.
    """

    at: dt.datetime
    edges: tuple[float, ...]
    by_instance: dict[str, tuple[float, ...]]
    born: dict[str, dt.datetime] = {}
    unread: tuple[str, ...] = ()


class Gauges(Frozen, frozen=True, tag="gauges", tag_field="kind"):
    """What a gauge shows on the instances of one arm, read at `at`, by instance uid."""

    at: dt.datetime
    by_instance: dict[str, float]
    born: dict[str, dt.datetime] = {}
    unread: tuple[str, ...] = ()


class Window(Frozen, frozen=True, tag="window", tag_field="kind"):
    """Counts of one arm over the half-open interval (start, end], from a source that keeps its own history."""

    start: dt.datetime
    end: dt.datetime
    bad: float
    total: float


class Run(Frozen, frozen=True):
    """One walk through a journey, ended at `at`: green, or red at `step` because of `detail`."""

    at: dt.datetime
    ok: bool
    took: float = 0.0
    step: str = ""
    detail: str = ""


class Runs(Frozen, frozen=True, tag="runs", tag_field="kind"):
    """The latest walks of a journey on one path, oldest first. `beat` is the prober's last heartbeat."""

    beat: dt.datetime
    runs: tuple[Run, ...]


Reading = Counters | Buckets | Gauges | Window | Runs
Answer = Reading | Missing
