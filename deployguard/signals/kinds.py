"""What each kind of scrape check makes of a metrics page: the numbers of one instance, and the reading of an arm."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from deployguard.model.check import SeriesCheck
from deployguard.model.reading import Answer, Buckets, Counter, Counters, Gauges
from deployguard.model.selector import parse_selector
from deployguard.model.target import Arm
from deployguard.signals.exposition import Column, Series
from deployguard.signals.fetch import Failure
from deployguard.signals.latency import Latency, Slow
from deployguard.signals.shown import Orders, Shown, column_of, countable, no_series, not_a_count, picked

REST = "other"
"""The stratum of requests whose label has none of the listed values."""
V = TypeVar("V")


class Kind(Protocol):
    """One kind of check. `names` are the metrics it reads, `histogram` the one that may come as a native histogram.

    What it makes of an instance's page is its own affair; it gets it back to make the reading of an arm. `optional` are the selectors that
    need not match anything.
    """

    names: tuple[str, ...]
    histogram: str
    optional: tuple[str, ...]

    @property
    def note(self) -> str:
        """What a person should know of how the pages are read; empty when there is nothing."""

    def of(self, page: Shown) -> Any:
        """What one instance shows, or the `Failure` that says why it cannot be told."""

    def agreed(self, found: dict[str, Any], arm: Arm) -> dict[str, Any]:
        """The same by instance uid, with a failure for each instance that cannot be added to the others."""

    def reading(self, at: dt.datetime, read: dict[str, Any], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        """The reading of an arm."""


def kind_of(check: SeriesCheck) -> Kind:
    """What reads the pages for `check`."""
    if check.histogram:
        within = check.within.total_seconds() if check.within is not None else None
        return Slow(check.histogram, within) if within is not None else Latency(check.histogram)
    if check.classes:
        return _Classes(check.classes)
    return _Gauge(check.gauge) if check.gauge else _Counts(check)


class _All(Generic[V]):
    """Kinds whose instances can always be added up."""

    histogram = ""
    optional: tuple[str, ...] = ()
    note = ""

    def agreed(self, found: dict[str, V | Failure], arm: Arm) -> dict[str, V | Failure]:  # noqa: ARG002
        return found


Split = dict[str, Counter]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the counts of one stratum stand."""

    total: tuple[int, ...]
    bad: tuple[int, ...]


class _Counts(_All[Split]):
    """`bad` and `total`: counts by stratum, the whole under the empty name."""

    def __init__(self, check: SeriesCheck) -> None:
        assert check.total
        assert check.bad
        self._said = check.total
        self._total, self._bad = parse_selector(check.total), parse_selector(check.bad)
        self.names: tuple[str, ...] = tuple(dict.fromkeys((self._total.name, self._bad.name)))
        label, listed = next(iter(check.strata.items()), ("", []))
        self._label, self._strata = label, (*dict.fromkeys((*listed, REST)),) if label else ()
        self.optional = (check.bad, *((f'{self._total.name}{{{label}=~".+"}}',) if label else ()))
        self._orders = Orders(self._places)

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
        column = column_of(page, self.names)
        used, places = self._orders.of(column.series)
        if not places[""].total:
            return not_a_count(column, used) or no_series(self._said)
        if not countable(picked(column, used)):
            return not_a_count(column, used) or Failure("nan", f"the sum of `{self._said}` is not a number")
        return {name: self._one(column, where) for name, where in places.items()}

    @staticmethod
    def _one(column: Column, where: _Places) -> Counter:
        total = sum(picked(column, where.total), 0.0)
        return Counter(min(sum(picked(column, where.bad), 0.0), total), total)

    def reading(self, at: dt.datetime, read: dict[str, Split], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        strata = {name: {uid: split[name] for uid, split in read.items()} for name in self._strata}
        return Counters(at, {uid: split[""] for uid, split in read.items()}, born, unread, strata)


class _Classes(_All[tuple[float, ...]]):
    """`classes`: a series counts in the last class, which is the worst, that selects it."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._said = self.optional = tuple(classes)
        self._classes = tuple(map(parse_selector, classes))
        self.names: tuple[str, ...] = tuple(dict.fromkeys(one.name for one in self._classes))
        self._orders = Orders(self._places)

    def _places(self, series: tuple[Series, ...]) -> tuple[tuple[int, ...], ...]:
        places: tuple[list[int], ...] = tuple([] for _ in self._classes)
        for at, one in enumerate(series):
            selected = [n for n, selector in enumerate(self._classes) if selector.accepts(one.name, one.labels)]
            if selected:
                places[selected[-1]].append(at)
        return tuple(map(tuple, places))

    def of(self, page: Shown) -> tuple[float, ...] | Failure:
        column = column_of(page, self.names)
        places = self._orders.of(column.series)
        if not any(places):
            return no_series(*self._said)
        values = [picked(column, where) for where in places]
        if not all(map(countable, values)):
            wrong = (not_a_count(column, where) for where in places)
            return next((one for one in wrong if one), Failure("nan", "a sum of the classes is not a number"))
        return tuple(sum(one, 0.0) for one in values)

    def reading(self, at: dt.datetime, read: dict[str, tuple[float, ...]], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        return Buckets(at, (), read, born, unread)


class _Gauge(_All[float]):
    """`gauge`: the sum of its series."""

    def __init__(self, gauge: str) -> None:
        self._said, self._selector = gauge, parse_selector(gauge)
        self.names: tuple[str, ...] = (self._selector.name,)
        self._orders = Orders(self._places)

    def _places(self, series: tuple[Series, ...]) -> tuple[int, ...]:
        return tuple(at for at, one in enumerate(series) if self._selector.accepts(one.name, one.labels))

    def of(self, page: Shown) -> float | Failure:
        column = column_of(page, self.names)
        places = self._orders.of(column.series)
        if not places:
            return no_series(self._said)
        value = sum(picked(column, places), 0.0)
        return value if math.isfinite(value) else Failure("nan", f"`{self._said}` shows {value}")

    def reading(self, at: dt.datetime, read: dict[str, float], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
        return Gauges(at, read, born, unread)
