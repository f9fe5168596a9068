"""What checks on a latency histogram make of a metrics page: requests by category, or those slower than a time."""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployguard.model.reading import Answer, Buckets, Counter, Counters
from deployguard.model.selector import Selector, parse_selector
from deployguard.model.target import STABLE, Arm
from deployguard.model.units import format_duration
from deployguard.signals.exposition import Column, Series
from deployguard.signals.fetch import Failure
from deployguard.signals.histogram import SCHEMAS, Categories, Native, beyond, by_category, cut_at, of_natives, rebinned, usual_edges
from deployguard.signals.shown import Orders, Shown, column_of, countable, no_series, not_a_count, picked

_UNITS = {"_milliseconds": 1e3, "_ms": 1e3, "_microseconds": 1e6, "_us": 1e6, "_nanoseconds": 1e9, "_ns": 1e9}
"""How many of the unit that a histogram's name ends with make a second; without one it is in seconds."""
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """Where one series of a classic histogram has its buckets, and at last its count; `kept` are those at common edges, None for all."""

    places: tuple[int, ...]
    kept: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Buckets:
    edges: tuple[float, ...]
    rows: tuple[_Row, ...]


class _Histogram:
    """The requests of an instance by category, summed over the series that the selector takes."""

    optional: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Nothing is to be known of it."""
        return ""

    def __init__(self, histogram: str) -> None:
        self._said, self._selector = histogram, parse_selector(histogram)
        self.histogram = self._selector.name
        self.names: tuple[str, ...] = (f"{self.histogram}_bucket", f"{self.histogram}_count")
        self._unbounded = Failure("edges", f"`{histogram}` has no bucket with a finite bound")
        self._orders = Orders(self._places)

    def of(self, page: Shown) -> Categories | Failure:
        """What one instance shows: its classic buckets when there are any, otherwise the native ones."""
        column = column_of(page, self.names)
        buckets = self._orders.of(column.series)
        if isinstance(buckets, _Buckets):
            return self._classic(column, buckets)
        natives = [native for series, native in page.natives.get(self.histogram, ()) if _selects(self._selector, series.labels)]
        if natives:
            return self._native(natives)
        if buckets is self._unbounded and not page.binary:
            return Failure("edges", f"{buckets.detail}, and the page cannot be had as protobuf, where native histograms have theirs")
        return buckets

    def _classic(self, column: Column, buckets: _Buckets) -> Categories | Failure:
        rows = []
        for row in buckets.rows:
            values = picked(column, row.places)
            if not countable(values):
                return not_a_count(column, row.places) or Failure("nan", f"a sum of `{self._said}` is not a number")
            if sorted(values) != values:
                return Failure("error", f"the buckets of `{column.series[row.places[0]].name}` fall: {', '.join(f'{v:g}' for v in values)}")
            rows.append(values if row.kept is None else [values[at] for at in row.kept])
        return by_category(buckets.edges, rows)

    def _native(self, natives: Sequence[Native]) -> Categories | Failure:
        strange = next((one.schema for one in natives if one.schema not in SCHEMAS), None)
        if strange is not None:
            return Failure(
                "error", f"`{self._said}` is a native histogram of schema {strange}, which is none of {SCHEMAS[0]} to {SCHEMAS[-1]}"
            )
        found = of_natives(natives)
        if not found.edges:
            return Failure("edges", f"the zero bucket of `{self._said}` holds everything")
        return found

    def _places(self, series: tuple[Series, ...]) -> _Buckets | Failure:
        """Where the buckets stand; a failure without any, or when they make no sense."""
        found: dict[Labels, dict[float, int]] = {}
        counts: dict[Labels, int] = {}
        for at, one in enumerate(series):
            labels = {name: value for name, value in one.labels.items() if name != "le"}
            if not _selects(self._selector, labels):
                continue
            key = tuple(sorted(labels.items()))
            bounds = found.setdefault(key, {})
            if one.name != self.names[0]:
                counts[key] = at
                continue
            bound = _bound(one.labels.get("le", ""))
            if bound is None or bound in bounds:
                why = "twice" if bound is not None else "which is not a bound"
                return Failure("error", f'a bucket of `{self._said}` has le="{one.labels.get("le", "")}", {why}')
            bounds[bound] = at
        return self._common(found, counts) if found else no_series(self._said)

    def _common(self, found: Mapping[Labels, dict[float, int]], counts: Mapping[Labels, int]) -> _Buckets | Failure:
        if not any(bound < math.inf for bounds in found.values() for bound in bounds):
            return self._unbounded
        common = {
            bound for bound in set.intersection(*map(set, found.values())) if 0 < bound < math.inf
        }  # no request takes less than no time
        if not common:
            return Failure("edges", f"the series of `{self._said}` have no bucket bound in common")
        rows = []
        for key, bounds in found.items():
            total = bounds.get(math.inf, counts.get(key))
            if total is None:
                return Failure("error", f'`{self._said}` has neither a bucket with le="+Inf" nor a `_count`')
            own = sorted(bound for bound in bounds if bound < math.inf)
            kept = None if len(own) == len(common) else (*(at for at, bound in enumerate(own) if bound in common), len(own))
            rows.append(_Row((*(bounds[bound] for bound in own), total), kept))
        return _Buckets(tuple(sorted(common)), tuple(rows))


def _selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    return all(matcher.accepts(labels) for matcher in selector.matchers)


def _bound(text: str) -> float | None:
    """The bound that `le` writes: 1, 1.0 and 1e+00 are the same."""
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) or bound == -math.inf else bound


class Latency(_Histogram):
    """`histogram` alone: requests by category."""

    def agreed(self, found: dict[str, Categories | Failure], arm: Arm) -> dict[str, Categories | Failure]:  # noqa: ARG002
        """On the edges that most instances have; those that lack one of them are failures."""
        whole = [one for one in found.values() if isinstance(one, Categories)]
        edges = usual_edges(whole) if whole else ()
        if all(one.edges is edges or one.edges == edges for one in whole):
            return found
        return {uid: self._fitted(one, edges) if isinstance(one, Categories) else one for uid, one in found.items()}

    def _fitted(self, one: Categories, edges: tuple[float, ...]) -> Categories | Failure:
        lost = next((edge for edge in edges if edge not in one.edges), None)
        return rebinned(one, edges) or Failure("edges", f"`{self._said}` has no bucket that ends at {lost:g}, as most instances have")

    def reading(self, at: dt.datetime, read: dict[str, Categories], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        """On the edges that were agreed upon."""
        edges = next(iter(read.values())).edges
        return Buckets(at, edges, {uid: one.counts for uid, one in read.items()}, born, unread)


class Slow(_Histogram):
    """`histogram` and `within`: requests that took longer, and all of them.

    Counted is beyond the smallest bucket bound of at least `within`. It is chosen once and for both arms: a bound that moved would count
    other requests, and the difference would look like a change of the service. Stable's bounds decide, so that a guard that is started
    again in the middle of a rollout chooses as the one before; where stable does not answer, the candidate's do, one poll later.
    """

    def __init__(self, histogram: str, within: float) -> None:
        super().__init__(histogram)
        self._within = within * next((scale for unit, scale in _UNITS.items() if self.histogram.endswith(unit)), 1.0)
        self._written = format_duration(dt.timedelta(seconds=within))
        self._cut: float | None = None
        self._waited = False
        self._lock = threading.Lock()  # both arms are read at once

    def agreed(self, found: dict[str, Categories | Failure], arm: Arm) -> dict[str, Categories | Failure]:
        """Those without the bound in use are failures."""
        whole = [one for one in found.values() if isinstance(one, Categories)]
        with self._lock:
            if self._cut is None and whole:
                if arm != STABLE and not self._waited:
                    self._waited = True
                    early = Failure("edges", f"stable's bounds of `{self._said}` are not known yet")
                    return {uid: early if isinstance(one, Categories) else one for uid, one in found.items()}
                self._cut = cut_at(usual_edges(whole), self._within)
        return {uid: self._cuttable(one) if isinstance(one, Categories) else one for uid, one in found.items()}

    @property
    def note(self) -> str:
        """Where slow begins when it is not where the check says."""
        if self._cut is None or math.isclose(self._cut, self._within):
            return ""
        unit = f" ({self._within:g})" if f"{self._within:g}s" != self._written else ""
        return f"`{self._said}` has no bucket that ends at {self._written}{unit}; what is slower than {self._cut:g} counts as bad"

    def _cuttable(self, one: Categories) -> Categories | Failure:
        if self._cut is None:
            return Failure("edges", f"the largest bucket bound of `{self._said}` is {one.edges[-1]:g}, and `within` is {self._written}")
        return one if self._cut in one.edges else Failure("edges", f"`{self._said}` has no bucket that ends at {self._cut:g} any more")

    def reading(self, at: dt.datetime, read: dict[str, Categories], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        """Counted at the bound in use."""
        assert self._cut is not None
        counted = {uid: beyond(one, self._cut) for uid, one in read.items()}
        return Counters(at, {uid: Counter(*both) for uid, both in counted.items() if both}, born, unread)
