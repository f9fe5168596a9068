"""Histograms on the edges that a rollout keeps: few enough that their state is small, and the same from poll to poll.

Edges are chosen once, from what stable had counted when it was first read. A histogram with more edges, or with finer ones later on (a
native histogram widens its buckets as it needs), is summed onto them exactly; one that lacks an edge cannot be, and is missing.
"""

from __future__ import annotations

import math
from functools import lru_cache

from deployguard.analysis.counters import added_up
from deployguard.analysis.tilts import PRIOR, at_least
from deployguard.model.evidence import Tallies
from deployguard.model.reading import Buckets, Missing

MOST_EDGES = 16
LEAST = 100.0
"""Requests below which nobody can tell which of many edges matter."""


def chosen_edges(reading: Buckets) -> tuple[float, ...] | None:
    """At most sixteen of the reading's edges: all when they are few, otherwise those that split the requests seen so far best.

    Edges are dropped one by one where it costs least: where the two categories that become one hold the fewest requests, those of the
    tail counting more, because tails are what slows down first. None while they are many and fewer than a hundred requests were seen.
    """
    edges, count = reading.edges, len(reading.edges) + 1
    if len(edges) <= MOST_EDGES:
        return edges
    total = added_up(reading.by_instance.values()) or (0.0,) * count
    if sum(total) < LEAST:
        return None
    th0 = _expected(total)
    beyond = at_least(th0)
    worth = [p / max(b, 1e-9) ** 0.5 for p, b in zip(th0, beyond, strict=True)]
    kept = list(edges)
    while len(kept) > MOST_EDGES:
        at = min(range(len(kept)), key=lambda j: min(worth[j], worth[j + 1]))
        worth[at : at + 2] = [worth[at] + worth[at + 1]]
        del kept[at]
    return tuple(kept)


def _expected(total: Tallies) -> list[float]:
    """Where requests are expected: where they were, and less and less with the distance from their median.

    A prior that is the same everywhere would spend the edges on the empty far end of a native histogram, from which the tail is counted.
    """
    half, seen, median = sum(total) / 2, 0.0, 0
    while seen + total[median] < half:
        seen, median = seen + total[median], median + 1
    expected = [count + PRIOR * math.exp(-2 * abs(j - median) / MOST_EDGES) for j, count in enumerate(total)]
    return [one / sum(expected) for one in expected]


@lru_cache(maxsize=64)
def _slices(have: tuple[float, ...], want: tuple[float, ...]) -> tuple[tuple[int, int], ...] | None:
    """For each wanted category the range of categories that it sums; None when an edge is missing."""
    places = {edge: j for j, edge in enumerate(have)}
    if any(edge not in places for edge in want):
        return None
    ends = [places[edge] + 1 for edge in want] + [len(have) + 1]
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def rebinned(reading: Buckets, edges: tuple[float, ...]) -> dict[str, Tallies] | Missing:
    """The reading's counts by instance on `edges`; `Missing` when an edge is not among its own."""
    if reading.edges == edges:
        return reading.by_instance
    slices = _slices(reading.edges, edges)
    if slices is None:
        lost = next(edge for edge in edges if edge not in reading.edges)
        return Missing("edges", f"the histogram has no bucket that ends at {lost:g} any more")
    return {uid: tuple(sum(values[a:b]) for a, b in slices) for uid, values in reading.by_instance.items()}
