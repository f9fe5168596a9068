"""What each kind of scrape check makes of a metrics page: counts, categories or a gauge of one instance, and the reading of an arm.

Pages show the same series in the same order at every poll. So what a check does with them is worked out once for each order, and a poll
adds numbers up by their places.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from deployguard.model.check import ScrapeCheck
from deployguard.model.reading import Answer, Buckets, Counter, Counters, Gauges
from deployguard.model.selector import Selector, parse_selector
from deployguard.model.units import format_duration
from deployguard.signals.exposition import Column, Series
from deployguard.signals.fetch import Failure
from deployguard.signals.histogram import SCHEMAS, Categories, Native, beyond, by_category, cut_at, of_natives, rebinned, usual_edges

_log = logging.getLogger(__name__)
REST = "other"
"""The stratum of requests whose label has none of the listed values."""
_UNITS = {"_milliseconds": 1e3, "_ms": 1e3, "_microseconds": 1e6, "_us": 1e6, "_nanoseconds": 1e9, "_ns": 1e9}
_MOST_ORDERS = 256
_NOTHING = Column()
V = TypeVar("V")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows of the metrics that are wanted from it, by name; `natives` only when it came as protobuf."""

    columns: Mapping[str, Column]
    natives: Mapping[str, Sequence[tuple[Series, Native]]] = field(default_factory=dict)
    binary: bool = False


class Kind(Protocol):
    """One kind of check. `names` are the metrics it reads, `histogram` the one that may come as a native histogram.

    What it makes of an instance's page is its own affair; it gets it back to make the reading of an arm.
    """

    names: tuple[str, ...]
    histogram: str

    def of(self, page: Shown) -> Any:
        """What one instance shows, or the `Failure` that says why it cannot be told."""

    def agreed(self, found: dict[str, Any]) -> dict[str, Any]:
        """The same by instance uid, with a failure for each instance that cannot be added to the others."""

    def reading(self, at: dt.datetime, read: dict[str, Any], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        """The reading of an arm."""


def kind_of(check: ScrapeCheck) -> Kind:
    """What reads the pages for `check`."""
    if check.histogram:
        within = check.within.total_seconds() if check.within is not None else None
        return _Quantity(check.name, check.histogram, within) if within is not None else _Latency(check.histogram)
    if check.classes:
        return _Classes(check.classes)
    return _Gauge(check.gauge) if check.gauge else _Counts(check)


class _Orders(Generic[T]):
    """What `work` makes of series in their order, kept for the orders that came last."""

    def __init__(self, work: Callable[[tuple[Series, ...]], T]) -> None:
        self._work = work
        self._known: dict[tuple[Series, ...], T] = {}

    def of(self, series: tuple[Series, ...]) -> T:
        """`work(series)`."""
        known = self._known.get(series)
        if known is None:
            if len(self._known) >= _MOST_ORDERS:
                self._known.clear()
            known = self._known[series] = self._work(series)
        return known


def _column(page: Shown, names: Sequence[str]) -> Column:
    if len(names) == 1:
        return page.columns.get(names[0], _NOTHING)
    columns = [page.columns.get(name, _NOTHING) for name in names]
    return Column(sum((c.series for c in columns), ()), sum((c.values for c in columns), ()))


def _picked(column: Column, places: Sequence[int]) -> list[float]:
    values = column.values
    return [values[at] for at in places]


def _not_a_count(column: Column, places: Sequence[int]) -> Failure | None:
    """What is wrong with the first value that cannot be a count; None when all can."""
    for at in places:
        value = column.values[at]
        if not math.isfinite(value) or value < 0:
            return Failure("nan", f"`{column.series[at].name}` shows {value}, which is not a count")
    return None


def _countable(values: list[float]) -> bool:
    """Whether all values can be counts."""
    return not values or (min(values) >= 0 and math.isfinite(sum(values)))


def _no_series(*selectors: str) -> Failure:
    return Failure("no_series", f"no series matches {' or '.join(f'`{one}`' for one in selectors)}")


class _All(Generic[V]):
    """Kinds whose instances can always be added up."""

    histogram = ""

    def agreed(self, found: dict[str, V | Failure]) -> dict[str, V | Failure]:
        return found


Split = dict[str, Counter]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the counts of one stratum stand."""

    total: tuple[int, ...]
    bad: tuple[int, ...]


class _Counts(_All[Split]):
    """`bad` and `total`: counts by stratum, the whole under the empty name."""

    def __init__(self, check: ScrapeCheck) -> None:
        assert check.total
        assert check.bad
        self._said = check.total
        self._total, self._bad = parse_selector(check.total), parse_selector(check.bad)
        self.names: tuple[str, ...] = tuple(dict.fromkeys((self._total.name, self._bad.name)))
        label, listed = next(iter(check.strata.items()), ("", []))
        self._label, self._strata = label, (*dict.fromkeys((*listed, REST)),) if label else ()
        self._orders = _Orders(self._places)

    def _places(self, series: tuple[Series, ...]) -> tuple[tuple[int, ...], dict[str, _Places]]:
        total = [at for at, one in enumerate(series) if self._total.accepts(one.name, one.labels)]
        bad = [at for at, one in enumerate(series) if self._bad.accepts(one.name, one.labels)]
        found = {"": _Places(tuple(total), tuple(bad))}
        stratum = [self._stratum(one) for one in series] if self._strata else []
        for name in self._strata:
            found[name] = _Places(*(tuple(at for at in places if stratum[at] == name) for places in (total, bad)))
        return tuple(sorted({*total, *bad})), found

    def _stratum(self, series: Series) -> str:
        value = series.labels.get(self._label, "")
        return value if value in self._strata else REST

    def of(self, page: Shown) -> Split | Failure:
        column = _column(page, self.names)
        used, places = self._orders.of(column.series)
        if not places[""].total:
            return _not_a_count(column, used) or _no_series(self._said)
        if not _countable(_picked(column, used)):
            return _not_a_count(column, used) or Failure("nan", f"the sum of `{self._said}` is not a number")
        return {name: self._one(column, where) for name, where in places.items()}

    @staticmethod
    def _one(column: Column, where: _Places) -> Counter:
        total = sum(_picked(column, where.total), 0.0)
        return Counter(min(sum(_picked(column, where.bad), 0.0), total), total)

    def reading(self, at: dt.datetime, read: dict[str, Split], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        strata = {name: {uid: split[name] for uid, split in read.items()} for name in self._strata}
        return Counters(at, {uid: split[""] for uid, split in read.items()}, born, unread, strata)


class _Classes(_All[tuple[float, ...]]):
    """`classes`: a series counts in the last class, which is the worst, that selects it."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._said, self._classes = tuple(classes), tuple(map(parse_selector, classes))
        self.names: tuple[str, ...] = tuple(dict.fromkeys(one.name for one in self._classes))
        self._orders = _Orders(self._places)

    def _places(self, series: tuple[Series, ...]) -> tuple[tuple[int, ...], ...]:
        places: tuple[list[int], ...] = tuple([] for _ in self._classes)
        for at, one in enumerate(series):
            selected = [n for n, selector in enumerate(self._classes) if selector.accepts(one.name, one.labels)]
            if selected:
                places[selected[-1]].append(at)
        return tuple(map(tuple, places))

    def of(self, page: Shown) -> tuple[float, ...] | Failure:
        column = _column(page, self.names)
        places = self._orders.of(column.series)
        if not any(places):
            return _no_series(*self._said)
        picked = [_picked(column, where) for where in places]
        if not all(map(_countable, picked)):
            wrong = (_not_a_count(column, where) for where in places)
            return next((one for one in wrong if one), Failure("nan", "a sum of the classes is not a number"))
        return tuple(sum(values, 0.0) for values in picked)

    def reading(self, at: dt.datetime, read: dict[str, tuple[float, ...]], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        return Buckets(at, (), read, born, unread)


class _Gauge(_All[float]):
    """`gauge`: the sum of its series."""

    def __init__(self, gauge: str) -> None:
        self._said, self._selector = gauge, parse_selector(gauge)
        self.names: tuple[str, ...] = (self._selector.name,)
        self._orders = _Orders(self._places)

    def _places(self, series: tuple[Series, ...]) -> tuple[int, ...]:
        return tuple(at for at, one in enumerate(series) if self._selector.accepts(one.name, one.labels))

    def of(self, page: Shown) -> float | Failure:
        column = _column(page, self.names)
        places = self._orders.of(column.series)
        if not places:
            return _no_series(self._said)
        value = sum(_picked(column, places), 0.0)
        return value if math.isfinite(value) else Failure("nan", f"`{self._said}` shows {value}")

    def reading(self, at: dt.datetime, read: dict[str, float], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        return Gauges(at, read, born, unread)


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

    def __init__(self, histogram: str) -> None:
        self._said, self._selector = histogram, parse_selector(histogram)
        self.histogram = self._selector.name
        self.names: tuple[str, ...] = (f"{self.histogram}_bucket", f"{self.histogram}_count")
        self._orders = _Orders(self._places)

    def of(self, page: Shown) -> Categories | Failure:
        """What one instance shows: its classic buckets when there are any, otherwise the native ones."""
        column = _column(page, self.names)
        buckets = self._orders.of(column.series)
        if isinstance(buckets, _Buckets):
            return self._classic(column, buckets)
        natives = [native for series, native in page.natives.get(self.histogram, ()) if _selects(self._selector, series.labels)]
        if natives:
            return self._native(natives)
        if buckets.reason == "edges" and not page.binary:
            return Failure("edges", f"{buckets.detail}, and the page cannot be had as protobuf, where native histograms have theirs")
        return buckets

    def _classic(self, column: Column, buckets: _Buckets) -> Categories | Failure:
        rows = []
        for row in buckets.rows:
            values = _picked(column, row.places)
            if not _countable(values):
                return _not_a_count(column, row.places) or Failure("nan", f"a sum of `{self._said}` is not a number")
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
        found: dict[tuple[tuple[str, str], ...], dict[float, int]] = {}
        counts: dict[tuple[tuple[str, str], ...], int] = {}
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
        return self._common(found, counts) if found else _no_series(self._said)

    def _common(
        self, found: Mapping[tuple[tuple[str, str], ...], dict[float, int]], counts: Mapping[tuple[tuple[str, str], ...], int]
    ) -> _Buckets | Failure:
        if not any(bound < math.inf for bounds in found.values() for bound in bounds):
            return Failure("edges", f"`{self._said}` has no bucket with a finite bound")
        common = {*next(iter(found.values()))}.intersection(*found.values()) - {math.inf}
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


class _Latency(_Histogram):
    """`histogram` alone: requests by category."""

    def agreed(self, found: dict[str, Categories | Failure]) -> dict[str, Categories | Failure]:
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


class _Quantity(_Histogram):
    """`histogram` and `within`: requests that took longer, and all of them.

    Counted is beyond the smallest bucket bound of at least `within`. It is chosen once and for both arms: a bound that moved would count
    other requests, and the difference would look like a change of the service.
    """

    def __init__(self, check: str, histogram: str, within: float) -> None:
        super().__init__(histogram)
        self._check = check
        self._within = within * next((scale for unit, scale in _UNITS.items() if self.histogram.endswith(unit)), 1.0)
        self._written = format_duration(dt.timedelta(seconds=within))
        self._cut: float | None = None

    def agreed(self, found: dict[str, Categories | Failure]) -> dict[str, Categories | Failure]:
        """Those without the bound in use are failures."""
        whole = [one for one in found.values() if isinstance(one, Categories)]
        if self._cut is None and whole:
            self._cut = self._chosen(usual_edges(whole))
        return {uid: self._cuttable(one) if isinstance(one, Categories) else one for uid, one in found.items()}

    def _chosen(self, edges: tuple[float, ...]) -> float | None:
        cut = cut_at(edges, self._within)
        if cut is not None and not math.isclose(cut, self._within):
            _log.warning(
                "check %s: `%s` has no bucket that ends at %s (%g); what is slower than %g counts as bad",
                self._check,
                self._said,
                self._written,
                self._within,
                cut,
            )
        return cut

    def _cuttable(self, one: Categories) -> Categories | Failure:
        if self._cut is None:
            return Failure("edges", f"the largest bucket bound of `{self._said}` is {one.edges[-1]:g}, and `within` is {self._written}")
        return one if self._cut in one.edges else Failure("edges", f"`{self._said}` has no bucket that ends at {self._cut:g} any more")

    def reading(self, at: dt.datetime, read: dict[str, Categories], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        """Counted at the bound in use."""
        assert self._cut is not None
        counted = {uid: beyond(one, self._cut) for uid, one in read.items()}
        return Counters(at, {uid: Counter(*both) for uid, both in counted.items() if both}, born, unread)
