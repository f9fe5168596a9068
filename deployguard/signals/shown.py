"""What a metrics page shows of the wanted metrics, and how a check finds its numbers in it.

Pages show the same series in the same order at every poll. So what a check does with them is worked out once for each order, and a poll
adds numbers up by their places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from deployguard.model.selector import parse_selector
from deployguard.signals.exposition import Column, Series
from deployguard.signals.fetch import Failure
from deployguard.signals.histogram import Native

_MOST_SERIES = 200_000
"""In all orders that a check remembers: pages that show other series at every poll must not fill the memory."""
_NOTHING = Column()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows of the metrics that are wanted from it, by name; `natives` only when it came as protobuf."""

    columns: Mapping[str, Column]
    natives: Mapping[str, Sequence[tuple[Series, Native]]] = field(default_factory=dict)
    binary: bool = False


class Orders(Generic[T]):
    """What `work` makes of series in their order, kept for the orders that came last."""

    def __init__(self, work: Callable[[tuple[Series, ...]], T]) -> None:
        self._work = work
        self._known: dict[tuple[Series, ...], T] = {}
        self._size = 0

    def of(self, series: tuple[Series, ...]) -> T:
        """`work(series)`."""
        known = self._known.get(series)
        if known is None:
            if self._size > _MOST_SERIES:
                self._known.clear()
                self._size = 0
            self._size += 1 + len(series)
            known = self._known[series] = self._work(series)
        return known


def column_of(page: Shown, names: Sequence[str]) -> Column:
    """The samples of all `names`, one name after the other."""
    if len(names) == 1:
        return page.columns.get(names[0], _NOTHING)
    columns = [page.columns.get(name, _NOTHING) for name in names]
    return Column(sum((c.series for c in columns), ()), sum((c.values for c in columns), ()))


def picked(column: Column, places: Sequence[int]) -> list[float]:
    """The values at `places`."""
    values = column.values
    return [values[at] for at in places]


def not_a_count(column: Column, places: Sequence[int]) -> Failure | None:
    """What is wrong with the first value that cannot be a count; None when all can."""
    for at in places:
        value = column.values[at]
        if not math.isfinite(value) or value < 0:
            return Failure("nan", f"`{column.series[at].name}` shows {value}, which is not a count")
    return None


def countable(values: list[float]) -> bool:
    """Whether all values can be counts."""
    return not values or (min(values) >= 0 and math.isfinite(sum(values)))


def no_series(*selectors: str) -> Failure:
    """That none of the selectors takes anything."""
    return Failure("no_series", f"no series matches {' or '.join(f'`{one}`' for one in selectors)}")


def unknown(text: str, pages: Sequence[Shown]) -> str:
    """What the selector `text` asks for that is on none of the pages: its metric, or a label; empty when both are there."""
    selector = parse_selector(text)
    series = [one for page in pages for one in page.columns.get(selector.name, _NOTHING).series]
    if not series:
        return f"no instance shows a metric `{selector.name}`: it is misspelt, or nothing was counted yet"
    lost = next((m.label for m in selector.matchers if m.op in ("=", "=~") and not any(m.label in one.labels for one in series)), "")
    return f"no series of `{selector.name}` has a label `{lost}`" if lost else ""
