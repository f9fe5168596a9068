"""The arithmetic of histograms: native buckets of any schema hold what was observed in them, whatever the client has merged."""

from __future__ import annotations

import bisect
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployguard.signals.histogram import (
    FINEST,
    HIGHEST,
    LOWEST,
    SCHEMAS,
    Categories,
    Native,
    beyond,
    by_category,
    cut_at,
    of_natives,
    rebinned,
    usual_edges,
)

INDICES = st.dictionaries(st.integers(-200, 200), st.integers(1, 50), max_size=30)
"""Counts by bucket index."""
TINY = 2.0**-128
"""The usual breadth of a zero bucket."""


def native(schema: int, buckets: dict[int, int], *, threshold: float = TINY, zero: float = 0, below: float = 0) -> Native:
    return Native(schema, threshold, zero, below, tuple(sorted(buckets)), tuple(float(buckets[index]) for index in sorted(buckets)))


def halved(found: Native) -> Native:
    """What a client does that holds too many buckets: two become one."""
    merged: dict[int, int] = {}
    for index, count in zip(found.indices, found.counts, strict=True):
        merged[math.ceil(index / 2)] = merged.get(math.ceil(index / 2), 0) + int(count)
    return native(found.schema - 1, merged, threshold=found.threshold, zero=found.zero, below=found.below)


@settings(deadline=None)
@given(st.sampled_from(SCHEMAS), INDICES, st.integers(0, 9), st.integers(0, 9))
def test_a_bucket_is_counted_where_it_lies(schema: int, buckets: dict[int, int], zero: int, below: int) -> None:
    """Each native bucket lies within one category, and is counted there; nothing is lost and nothing is added."""
    found = of_natives([native(schema, buckets, zero=zero, below=below)])
    expected = [0.0] * (len(found.edges) + 1)
    expected[0] += zero + below
    for index, count in buckets.items():
        inside = (index - 0.5) * 2.0**-schema  # the logarithm of a time within the bucket
        expected[bisect.bisect_left([math.log2(edge) for edge in found.edges], inside)] += count
    assert found.counts == tuple(expected)
    assert list(found.edges) == sorted(set(found.edges))
    assert (found.edges[0], found.edges[-1]) == (2.0**LOWEST, 2.0**HIGHEST) or schema < -2


@settings(deadline=None)
@given(st.integers(SCHEMAS[0] + 1, SCHEMAS[-1]), INDICES)
def test_halving_the_buckets_moves_nothing(schema: int, buckets: dict[int, int]) -> None:
    """After the client has merged its buckets, the counts are those from before, summed onto the edges that are left."""
    before = of_natives([native(schema, buckets)])
    after = of_natives([halved(native(schema, buckets))])
    assert rebinned(before, after.edges) == after
    assert (after.edges == before.edges) == (schema > FINEST)


@settings(deadline=None)
@given(INDICES, INDICES, st.integers(-4, 8), st.integers(-4, 8))
def test_series_of_different_schemas_are_summed_exactly(a: dict[int, int], b: dict[int, int], first: int, second: int) -> None:
    """The sum is on the coarser grid, and equals the sum of both on it."""
    both = of_natives([native(first, a), native(second, b)])
    alone = [rebinned(of_natives([one]), both.edges) for one in (native(first, a), native(second, b))]
    assert alone[0] is not None
    assert alone[1] is not None
    assert both.counts == tuple(x + y for x, y in zip(alone[0].counts, alone[1].counts, strict=True))


def test_edges_inside_the_zero_bucket_are_left_out() -> None:
    """What lies in a wide zero bucket is known to lie below its threshold, and no better."""
    found = of_natives([native(0, {0: 3, 1: 4}, threshold=0.5, zero=7)])
    assert found.edges[:3] == (0.5, 1, 2)
    assert found.counts[:3] == (7, 3, 4)
    assert of_natives([native(0, {}, threshold=2.0**30, zero=7)]) == Categories((), (7.0,))


def test_bounds_are_the_same_to_the_bit_in_every_schema() -> None:
    """The edges of a coarser grid are among those of a finer one, so that readings nest."""
    grids = [set(of_natives([native(schema, {})]).edges) for schema in SCHEMAS]
    assert all(coarse <= fine for coarse, fine in itertools.pairwise(grids))
    assert {2.0**power for power in range(LOWEST, HIGHEST + 1)} <= grids[-1]


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0.001, 20), max_size=30), min_size=1, max_size=4))
def test_classic_buckets_are_differences(series: list[list[float]]) -> None:
    """Categories of the sum of series are those of all their values together."""
    edges = (0.01, 0.1, 1.0, 10.0)
    rows = [[float(sum(value <= edge for value in values)) for edge in (*edges, math.inf)] for values in series]
    together = [value for values in series for value in values]
    expected = [0.0] * 5
    for value in together:
        expected[bisect.bisect_left(edges, value)] += 1
    found = by_category(edges, rows)
    assert found == Categories(edges, tuple(expected))
    assert beyond(found, 0.1) == (sum(value > 0.1 for value in together), len(together))


def test_fewer_edges_only_where_they_exist() -> None:
    """Counts are summed onto edges that are there; one that is not cannot be made up."""
    found = Categories((1.0, 2.0, 4.0), (1.0, 2.0, 3.0, 4.0))
    assert rebinned(found, (1.0, 4.0)) == Categories((1.0, 4.0), (1.0, 5.0, 4.0))
    assert rebinned(found, (2.0, 3.0)) is None
    assert beyond(found, 3.0) is None


def test_most_instances_decide_on_the_edges() -> None:
    """The usual edges are those of the most; where none is in the majority, the fewest, as the others may have them too."""
    few, many = Categories((1.0,), (1.0, 1.0)), Categories((1.0, 2.0), (1.0, 1.0, 1.0))
    assert usual_edges([few, many, many]) == (1.0, 2.0)
    assert usual_edges([many, few]) == (1.0,)


@pytest.mark.parametrize(("within", "cut"), [(0.25, 0.25), (0.3, 0.5), (0.1, 0.25), (1.0, 1.0), (1.1, None), (0.5 + 1e-13, 0.5)])
def test_slow_begins_at_the_next_bound(within: float, cut: float | None) -> None:
    """The smallest bound that is not below the wanted time."""
    assert cut_at((0.25, 0.5, 1.0), within) == cut
