"""The arithmetic of latency histograms: from what a page shows to counts by category, exactly or not at all.

A classic histogram shows how many requests took at most each of its bounds. A native one has buckets that grow exponentially (the
Prometheus specification of native histograms): with schema s the bucket i holds what lies in (2^((i-1)/2^s), 2^(i/2^s)], and a zero
bucket what is closer to zero than its threshold. Clients halve the number of buckets (s becomes s-1) or widen the zero bucket whenever
they hold too many; both only merge buckets.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

SCHEMAS = range(-4, 9)
"""The schemas that there are."""
FINEST = 2
"""Native histograms are summed onto at most four buckets per power of two: finer ones are merged by clients first, and decide little."""
LOWEST, HIGHEST = -20, 20
"""The powers of two between which native histograms keep their buckets: in seconds from one microsecond to twelve days."""
_ROOTS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
"""The powers of the fourth root of two. Written down: two machines need not agree on the last digit of a power."""


@dataclass(frozen=True, slots=True)
class Categories:
    """Requests by latency: `counts[j]` lie above `edges[j-1]` and up to `edges[j]`; the last ones lie above all edges."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Native:
    """One series of a native histogram: the counts of the zero bucket, of everything below it, and of the buckets `indices` above it."""

    schema: int
    threshold: float
    zero: float
    below: float
    indices: tuple[int, ...]
    counts: tuple[float, ...]


def by_category(edges: tuple[float, ...], rows: Sequence[Sequence[float]]) -> Categories:
    """The sum of series with the same `edges`; a row holds how many requests took at most each edge, and at last how many there were."""
    column = [sum(values) for values in zip(*rows, strict=True)] if len(rows) != 1 else rows[0]
    return Categories(edges, (column[0], *(b - a for a, b in pairwise(column))))


def of_natives(found: Sequence[Native]) -> Categories:
    """The sum of native series, on the finest grid that all of them can be summed onto exactly.

    Grids of coarser schemas and of wider zero buckets hold a part of the edges of this one, so what is read of one instance can be summed
    onto what another shows. What is negative counts among the fastest.
    """
    schema = min(FINEST, *(one.schema for one in found))
    first, edges = _grid(schema, max(one.threshold for one in found))
    counts = [0.0] * (len(edges) + 1)
    for one in found:
        counts[0] += one.zero + one.below
        for at, count in zip(_places(one.indices, one.schema - schema, first, len(edges)), one.counts, strict=True):
            counts[at] += count
    return Categories(edges, tuple(counts))


@lru_cache(maxsize=1024)
def _places(indices: tuple[int, ...], step: int, first: int, last: int) -> tuple[int, ...]:
    """The category of each bucket on a grid that is coarser by `step` schemas, begins with the bucket `first` and ends with `last`."""
    return tuple(min(max(-(-index >> step) - first, 0), last) for index in indices)


@lru_cache(maxsize=64)
def _grid(schema: int, threshold: float) -> tuple[int, tuple[float, ...]]:
    """The index of the first bucket and the upper bounds of all but the last one; none is inside the zero bucket."""
    low, high = math.ceil(math.ldexp(LOWEST, schema)), math.floor(math.ldexp(HIGHEST, schema))
    while low <= high and _bound(low, schema) < threshold:
        low += 1
    return low, tuple(_bound(index, schema) for index in range(low, high + 1))


def _bound(index: int, schema: int) -> float:
    """2^(index / 2^schema), the same to the bit for every schema."""
    if schema <= 0:
        return math.ldexp(1.0, index << -schema)
    quarters = index << (FINEST - schema)
    return math.ldexp(_ROOTS[quarters % 4], quarters // 4)


def usual_edges(found: Iterable[Categories]) -> tuple[float, ...]:
    """The edges that most of `found` have; of those that equally many have, the fewest."""
    votes = Tally(one.edges for one in found)
    return min(votes, key=lambda edges: (-votes[edges], len(edges)))


def cut_at(edges: Sequence[float], within: float) -> float | None:
    """The smallest edge of at least `within`, give or take rounding; None when all are below it."""
    return next((edge for edge in edges if edge >= within * (1 - 1e-9)), None)


def beyond(found: Categories, cut: float) -> tuple[float, float] | None:
    """How many took longer than `cut`, and how many there were; None when it is not an edge."""
    try:
        at = found.edges.index(cut)
    except ValueError:
        return None
    slow = sum(found.counts[at + 1 :])
    return slow, slow + sum(found.counts[: at + 1])


def rebinned(found: Categories, edges: tuple[float, ...]) -> Categories | None:
    """The same requests on fewer `edges`; None when one of them is not among its own."""
    if found.edges == edges:
        return found
    place = {edge: at + 1 for at, edge in enumerate(found.edges)}
    if not place.keys() >= set(edges):
        return None
    ends = [0, *(place[edge] for edge in edges), len(found.counts)]
    return Categories(edges, tuple(sum(found.counts[a:b]) for a, b in pairwise(ends)))
