"""The planner: laws of first passage, what each kind of check sees, and that the engine then really sees it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math

import pytest

from benchmarks import power
from benchmarks.power import Cell
from deployguard.analysis import passage, planner, sights
from deployguard.analysis.bets import REFERENCE, policy_grid
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.gauges import GaugeRules
from deployguard.analysis.planner import Pace, Walk
from deployguard.engine.rules import rules_of

RULES = CountsRules(
    compare=True, ratio=1.25, margin=0.0002, floor=0.001, claims=2.0, limit=None, dispersion=1.0, late_onset=True, cap=10.0,
    alpha=0.01, weight=0.9, proof=True, grid=policy_grid(2.0, 1.25), interval=1.0,
)  # fmt: skip
LIMITED = dataclasses.replace(RULES, compare=False, limit=0.05)
CELLS = (
    Cell("errors", 0.01, 0.05, 10.0, 300.0),
    Cell("errors", 0.01, 0.25, 100.0, 100.0),
    Cell("errors", 0.05, 0.5, 1000.0, 60.0),
    Cell("latency", 0.05, 0.25, 400.0, 60.0),
)
RUNS = 60


def latency(**changes: float) -> CategoriesRules:
    """The rules of the latency check of `production`, with some changes."""
    found = rules_of(power.policy(), power.policy().checks[1])  # type: ignore[arg-type]
    assert isinstance(found, CategoriesRules)
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_engine_sees_what_the_planner_says_and_hardly_anything_smaller(cell: Cell) -> None:
    """At the planned regression about nine rollouts in ten are condemned in time, at half of the rise far fewer."""
    rules = power.rules_for(cell.what)
    said = power.stated(rules, cell)
    assert said is not None
    small = dataclasses.replace(said, p1=cell.p0 + (said.p1 - cell.p0) / 2)

    assert power.seen(cell, rules, said, RUNS) >= 0.75 * RUNS  # below one in a thousand at 90 %
    assert power.seen(cell, rules, small, RUNS) <= 0.65 * RUNS


def test_an_equal_candidate_is_proven_in_the_time_that_is_planned() -> None:
    """`pass: proof` on as many requests as the planner asks for lets nine in ten good candidates pass."""
    cell = Cell("promote", 0.05, 0.25, 100.0)
    said = power.stated(power.rules_for("promote"), cell)
    assert said is not None

    assert power.seen(cell, power.rules_for("promote"), said, RUNS) >= 0.75 * RUNS


def test_the_laws_of_first_passage_agree_with_what_is_known_of_brownian_motion() -> None:
    """Reflection without a drift, certainty without a spread, the series of a reflected motion, and the bar that nobody reaches."""
    assert passage.passed(0.0, 1.0, 2.0, 4.0) == pytest.approx(2 * passage.normal(-1.0))
    assert passage.passed(1.0, 1.0, 5.0, 0.0) == 0.0
    assert (passage.passed(1.0, 0.0, 5.0, 4.9), passage.passed(1.0, 0.0, 5.0, 5.0)) == (0.0, 1.0)
    assert passage.passed(-1.0, 1e-3, 5.0, 9000.0) == 0.0
    free = passage.restarting(0.0, 1.0, 3.0)
    assert free is not None
    series = 4 / math.pi * sum((-1) ** k / (2 * k + 1) * math.exp(-(((2 * k + 1) * math.pi / 6) ** 2) / 2 * 10) for k in range(9))
    assert free.passed(10.0) == pytest.approx(1 - series, abs=1e-9)
    assert passage.restarting(9.0, 1.0, 3.0) is None


@pytest.mark.parametrize("drift", [-0.5, -0.2, 0.1, 0.4])
def test_a_restarting_walk_solves_its_equation(drift: float) -> None:
    """The mean time to the bar, from the law, is the known one: (exp(-2 a) - 1 + 2 a) spread / (2 drift^2), a = drift bar / spread."""
    law, a = passage.restarting(drift, 1.0, 4.0), drift * 4.0
    assert law is not None
    mean = sum(factor / rate for factor, rate in law.modes)
    assert mean == pytest.approx((math.exp(-2 * a) - 1 + 2 * a) / (2 * drift * drift), rel=2e-2)


def test_more_of_anything_shows_smaller_regressions() -> None:
    """Requests, power, dispersion, weight and cap all move the smallest ratio the way they should; nothing is seen in nothing."""

    def ratio(requests: float = 60_000, wanted: float = 0.9, rules: CountsRules = RULES, pace: Pace = Pace(0.25, 100.0)) -> float:  # noqa: B008
        found = sights.counts_sight(rules, pace, 0.002, requests, wanted)
        assert found is not None
        return found

    base = ratio()
    assert ratio(requests=120_000) < base < ratio(requests=30_000)
    assert ratio(wanted=0.5) < base < ratio(wanted=0.99)
    assert base < ratio(pace=Pace(0.25, 100.0, phi=3.0))
    assert base < ratio(rules=dataclasses.replace(RULES, weight=0.1))
    assert ratio(rules=dataclasses.replace(RULES, late_onset=False)) < base
    assert base <= ratio(pace=Pace(0.25, 100.0, cap=3.0))
    assert ratio(1e6, pace=Pace(0.5, 1000.0, 60.0)) < ratio(1e6, pace=Pace(0.5, 1000.0, 60.0, cap=1.5))
    assert sights.counts_sight(RULES, Pace(0.25, 100.0), 0.002, 3) is None
    assert sights.counts_sight(dataclasses.replace(RULES, ratio=100.0), Pace(0.25), 0.5, 1e6) is None
    assert sights.counts_needed(RULES, Pace(0.25), 0.01, 0.012) == math.inf
    assert sights.counts_chance(RULES, Pace(0.25, 100.0), 0.002, base * 0.002 + 0.0002, 60_000) == pytest.approx(0.9, abs=0.01)
    assert sights.counts_needed(RULES, Pace(0.25), 0.01, 0.02, 0.99) > sights.counts_needed(RULES, Pace(0.25), 0.01, 0.02)
    assert planner.chance([], 100.0) == 0.0
    assert planner.needed([Walk(1e-14, 1e-9, 1e4)]) == math.inf


def test_where_blocks_are_large_the_late_part_finds_what_the_whole_does_not() -> None:
    """At 600,000 requests a walk of small drift and large spread is caught by the capital that bets on a late onset."""
    found, whole = Pace(0.5, 1000.0, 10.0), dataclasses.replace(RULES, late_onset=False, floor=0.0)
    late = sights.counts_sight(dataclasses.replace(RULES, floor=0.0), found, 0.05, 600_000)
    alone = sights.counts_sight(whole, found, 0.05, 600_000)
    assert late is not None
    assert alone is not None
    assert late < alone


def test_limits_say_what_is_beyond_doubt() -> None:
    """A limit is judged on the candidate alone; one that nothing can exceed is never exceeded beyond doubt."""
    pace = Pace(0.25, 100.0)
    needed = sights.limit_needed(LIMITED, pace, 0.1)
    assert 50 < needed < 1000
    assert sights.limit_sight(LIMITED, pace, needed) == pytest.approx(0.1, rel=0.02)
    assert sights.limit_needed(LIMITED, pace, 0.05) == math.inf
    assert sights.limit_sight(dataclasses.replace(LIMITED, limit=0.999), pace, 1e9) is None
    assert sights.limit_sight(dataclasses.replace(LIMITED, limit=0.9985), pace, 1e9) is None
    unknown = sights.limit_sight(LIMITED, Pace(0.25), 1e5)
    assert unknown is not None
    assert 0.05 < unknown < 0.07
    assert len(planner.limit_bets(0.05, REFERENCE)) == len(REFERENCE.psi)


def test_tails_are_seen_the_sooner_the_more_they_grow() -> None:
    """Latency with a tolerance and without one; the slowest hundredth needs more than the slowest twentieth."""
    pace = Pace(0.25, 100.0)
    five, one = (sights.tail_sight(latency(), pace, tail, 60_000) for tail in (0.05, 0.01))
    assert five is not None
    assert one is not None
    assert 1.25 < five < one
    assert sights.tail_sight(latency(), pace, 0.05, 3) is None
    strict = sights.tail_sight(latency(ratio=1.0, margin=0.0), pace, 0.05, 60_000)
    assert strict is not None
    assert strict < five
    assert sights.tail_needed(latency(), pace, 0.05, 0.1) < sights.tail_needed(latency(), pace, 0.05, 0.08)
    assert sights.tail_proof(latency(), pace, 0.01) > sights.tail_proof(latency(), pace, 0.05)


def test_gauges_and_journeys_need_time_and_not_traffic() -> None:
    """Eight blocks in a row pass 100, ten a share of 0.3 of it; three red walks take three periods, and longer if they hang."""
    assert sights.blocks_in_a_row(math.log(100)) == 8
    assert sights.blocks_in_a_row(math.log(100 / 0.3)) == 10
    assert sights.blocks_in_a_row(sights.PROVEN) == 5
    gauge = GaugeRules(True, 1.25, 2.0, None, False, 0.01, 0.9, True, dt.timedelta(seconds=30))
    assert sights.gauge_seconds(gauge, 1.0, 8) == 30 + 1 + 8 * 15
    assert sights.gauge_seconds(gauge, 10.0, 8) == 30 + 10 + 8 * 20
    assert sights.journey_seconds(1.0, 3) == 3.0
    assert sights.journey_seconds(1.0, 3, 5.0) == 20.0
