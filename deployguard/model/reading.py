"""What came from a signal, or why nothing came. Absence is a value: never zero, never health, never guilt."""

from __future__ import annotations

import datetime as dt

from deployguard.model.base import Frozen


class Missing(Frozen, frozen=True, tag="missing", tag_field="kind"):
    """No number: `reason` is one word (timeout, refused, nan, stale, no_series, no_instance, prober, error)."""

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
    """

    at: dt.datetime
    by_instance: dict[str, Counter]
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


Reading = Counters | Window | Runs
Answer = Reading | Missing
