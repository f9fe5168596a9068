"""Rates, their bets and intervals: bounded, and as certain as they say."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.analysis import arms, bets, counts, interval, passage, sights
from deployguard.analysis.planner import Pace
from deployguard.model.evidence import Block, CountsEvidence
from deployguard.model.reading import Counter
from tests.unit.enumeration import BARE


@given(bad=st.floats(0, 1e6), more=st.floats(1e-3, 1e6), served=st.tuples(st.integers(1, 50), st.integers(1, 50)), rho=st.floats(1, 3))
def test_every_rate_can_be_bet_on(bad: float, more: float, served: tuple[int, int], rho: float) -> None:
    """Whatever was counted of stable, nothing bad or nothing else, bets are rates and their factors numbers."""
    for total in (bad + more, max(bad, 1e-3)):
        th0 = bets.settled(bad, total)
        assert 0 < th0 < 1
        for e1, e0 in ((0, 0), served):
            found = arms.worse_factors(Block(served[0], e1, served[1], e0), th0, bets.REFERENCE, rho, 0.0002)
            assert all(map(math.isfinite, found))


def test_the_interval_holds_the_truth() -> None:
    """Over a hundred and fifty rollouts with drifting rates the interval misses the true ratio no more often than it may."""
    rng, ratio, misses, narrow = random.Random(7), 1.5, 0, 0
    for _ in range(150):
        segments, p0 = [], 0.02
        for share in (0.05, 0.2, 0.5):
            p0 *= rng.uniform(0.6, 1.6)
            n1, n0 = int(2000 * share), int(2000 * (1 - share))
            e1, e0 = sum(rng.random() < ratio * p0 for _ in range(n1)), sum(rng.random() < p0 for _ in range(n0))
            segments.append(Block(n1, e1, n0, e0))
        low, high = interval.ratio_interval(segments, Counter(40.5, 2050.0), 0.05)
        misses += not low <= ratio <= high
        narrow += low > 0.4 and high < 5

    assert misses <= 7  # five in a hundred of them
    assert narrow >= 100


TABLE = [
    (0.001, 1000, 0.05, 600, 1.0, 2.16),
    (0.001, 100, 0.25, 900, 1.25, 3.07),
    (0.005, 10, 0.05, 600, 1.0, 8.89),
    (0.005, 100, 0.5, 900, 1.25, 1.88),
    (0.01, 100, 0.05, 600, 1.0, 2.15),
    (0.01, 10, 0.5, 900, 1.25, 2.84),
]
"""Stable's rate, requests a second, share, seconds, tolerated ratio, and the smallest ratio seen with 90 % in docs/statistics.md."""


@pytest.mark.parametrize(("p0", "rate", "share", "seconds", "tolerated", "expected"), TABLE)
def test_the_planner_sees_what_the_table_says(
    p0: float, rate: float, share: float, seconds: float, tolerated: float, expected: float
) -> None:
    """The smallest regression that is seen lies within a sixth of the table's, which approximates the bets by one constant."""
    rules = dataclasses.replace(BARE, ratio=tolerated, late_onset=True, grid=bets.policy_grid(1.5, tolerated))
    found = sights.counts_sight(rules, Pace(share, rate, 10.0), p0, rate * seconds)

    assert found == pytest.approx(expected, rel=1 / 6)


def test_where_a_walk_has_no_law() -> None:
    """Nothing is passed before the first request, and a walk without spread passes when its drift has reached the bar."""
    assert passage.passed(1.0, 1.0, 5.0, 0) == 0.0
    assert [passage.passed(0.1, 0.0, 5.0, n) for n in (49, 51)] == [0.0, 1.0]


def test_a_limit_that_nothing_can_exceed_shows_nothing() -> None:
    """A rate that is not above the floor or the limit is never seen, and no rate is above a limit of one."""
    above = dataclasses.replace(BARE, compare=False, limit=0.9995)
    assert sights.limit_sight(above, Pace(0.5, 100.0), 1e6) is None
    low = dataclasses.replace(BARE, limit=0.01)
    assert sights.limit_needed(low, Pace(0.5, 100.0), 0.005) == math.inf


def test_a_check_that_compares_nothing_proves_nothing() -> None:
    """The promote rule needs a comparison: a check with a limit alone has no evidence for it."""
    assert counts.same_evidence(CountsEvidence(), dataclasses.replace(BARE, compare=False, limit=0.1)) == 0.0
