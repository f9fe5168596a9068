"""The guarantee of every test by enumeration: whatever the null, the expected factor of a block is at most one.

An expectation of at most one at every stopping time is all that Ville's inequality needs, so these tests are the proof by machine of what
docs/statistics.md proves by hand, for small blocks.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import math

import pytest

from deployguard.analysis import arms, beta, bets, categories, eprocess, events, limits, projection, share, signs, tilts
from deployguard.analysis.categories import CategoriesRules
from deployguard.model.evidence import Block, Happened, Process
from tests.unit.enumeration import ROUNDING, THRESHOLDS, binomial, mixed, multinomial

GRID = bets.REFERENCE
TILTED = CategoriesRules(
    ratio=1.0, margin=0.0, claims=2.0, dispersion=1.0, late_onset=True, cap=None, alpha=0.01, weight=1.0, proof=False,
    grid=tilts.REFERENCE, interval=1.0, warmup=dt.timedelta(0),
)  # fmt: skip
TOLERANT = dataclasses.replace(TILTED, ratio=1.25, margin=0.01)


@pytest.mark.parametrize(("ratio", "margin"), [(1.0, 0.0), (1.25, 0.0), (1.25, 0.02), (2.0, 0.1)])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_two_arms(ratio: float, margin: float, cap: float | None) -> None:
    """Anywhere in the null, not only on its boundary, with a cap or without."""
    for (n1, n0), p0, part, past in itertools.product(((1, 3), (4, 2), (3, 5)), (0.02, 0.2, 0.6), (1.0, 0.7), (0.005, 0.1)):
        p1 = min(part * (ratio * p0 + margin), 1.0)
        total = 0.0
        for e1, e0 in itertools.product(range(n1 + 1), range(n0 + 1)):
            factors = arms.worse_factors(Block(n1, e1, n0, e0), past, GRID, ratio, margin)
            value = mixed(eprocess.tempered(factors, 1.0, cap), GRID.weight)
            total += value * binomial(n1, e1, p1) * binomial(n0, e0, p0)

        assert total <= 1 + ROUNDING


def test_requests_that_differ() -> None:
    """Requests of a block may have different probabilities, as long as both arms have the same average."""
    mine, theirs = (0.0, 0.3, 0.6), (0.1, 0.5)
    total = 0.0
    for outcome in itertools.product((0, 1), repeat=5):
        chance = math.prod(p if bad else 1 - p for p, bad in zip((*mine, *theirs), outcome, strict=True))
        block = Block(3, sum(outcome[:3]), 2, sum(outcome[3:]))
        total += chance * mixed(arms.worse_factors(block, 0.1, GRID, 1.0, 0.0), GRID.weight)

    assert 0.5 < total <= 1 + ROUNDING


@pytest.mark.parametrize("phi", [1.0, 2.0, 3.0])
def test_clumps(phi: float) -> None:
    """Outcomes that come in identical copies are judged exactly by the dispersion of as many; a larger dispersion is safe."""
    copies = 2
    totals = []
    for (n1, n0), p in itertools.product(((2, 4), (1, 6)), (0.05, 0.3)):
        total = 0.0
        for e1, e0 in itertools.product(range(n1 + 1), range(n0 + 1)):
            factors = arms.worse_factors(Block(copies * n1, copies * e1, copies * n0, copies * e0), 0.05, GRID, 1.0, 0.0)
            total += mixed(eprocess.tempered(factors, phi, None), GRID.weight) * binomial(n1, e1, p) * binomial(n0, e0, p)
        totals.append(total)

    assert max(totals) > 1 if phi < copies else max(totals) <= 1 + ROUNDING


def test_strata() -> None:
    """Routes with rates of their own multiply, bet by bet, although the mix of routes differs between the arms."""
    routes = [((3, 1), 0.4, 0.3), ((1, 4), 0.02, 0.01)]  # requests of the arms, true rate of both, rate known before
    total = 0.0
    outcomes = [list(itertools.product(range(n1 + 1), range(n0 + 1))) for (n1, n0), _, _ in routes]
    for bad in itertools.product(*outcomes):
        sums, chance = [0.0] * len(GRID.psi), 1.0
        for ((n1, n0), p, past), (e1, e0) in zip(routes, bad, strict=True):
            chance *= binomial(n1, e1, p) * binomial(n0, e0, p)
            factors = arms.worse_factors(Block(n1, e1, n0, e0), past, GRID, 1.0, 0.0)
            sums = [a + b for a, b in zip(sums, factors, strict=True)]
        total += chance * mixed(sums, GRID.weight)

    assert 0.5 < total <= 1 + ROUNDING


@pytest.mark.parametrize(("p1", "p0"), [(0.125, 0.1), (0.2, 0.05), (0.2, 0.01)])
def test_the_floor(p1: float, p0: float) -> None:
    """At or below a floor of a fifth, or not worse than tolerated, the smaller of both tests is safe although each alone is not."""
    floor, n1, n0 = 0.2, 6, 8
    total = 0.0
    for e1, e0 in itertools.product(range(n1 + 1), range(n0 + 1)):
        worse = mixed(arms.worse_factors(Block(n1, e1, n0, e0), 0.02, GRID, 1.25, 0.0), GRID.weight)
        above = mixed(limits.limit_factors(n1, e1, floor, GRID), GRID.weight)
        total += min(worse, above) * binomial(n1, e1, p1) * binomial(n0, e0, p0)

    assert total <= 1 + ROUNDING


@pytest.mark.parametrize("part", [1.0, 1.3])
def test_the_promote_rule(part: float) -> None:
    """A regression as large as claimed, or larger, is excluded with expectation at most one."""
    for (n1, n0), p0, past, margin in itertools.product(((2, 5), (4, 4)), (0.02, 0.3), (0.01, 0.2), (0.0, 0.05)):
        p1 = min(part * (2 * p0 + margin), 1.0)
        total = sum(
            mixed(arms.same_factors(Block(n1, e1, n0, e0), past, 2.0, margin), arms.PROMOTE_WEIGHTS)
            * binomial(n1, e1, p1)
            * binomial(n0, e0, p0)
            for e1, e0 in itertools.product(range(n1 + 1), range(n0 + 1))
        )
        assert total <= 1 + ROUNDING


@pytest.mark.parametrize("p", [0.1, 0.05, 0.0])
def test_a_fixed_limit(p: float) -> None:
    """At the limit the expectation is one, below it less; tempering and a cap only lower it."""
    factors = [limits.limit_factors(7, e, 0.1, GRID) for e in range(8)]
    for phi, cap in ((1.0, None), (2.0, None), (1.0, 2.0)):
        total = sum(mixed(eprocess.tempered(f, phi, cap), GRID.weight) * binomial(7, e, p) for e, f in enumerate(factors))
        assert total <= 1 + ROUNDING
    assert sum(mixed(f, GRID.weight) * binomial(7, e, 0.1) for e, f in enumerate(factors)) == pytest.approx(1.0)


BETTER = [
    ((0.6, 0.25, 0.1, 0.05), (0.6, 0.25, 0.1, 0.05)),
    ((0.7, 0.2, 0.08, 0.02), (0.6, 0.25, 0.1, 0.05)),
    ((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)),
    ((0.6, 0.2, 0.2, 0.0), (0.5, 0.3, 0.1, 0.1)),
]
"""The candidate's distribution and stable's: stochastically not worse, though single categories may be fuller."""


@pytest.mark.parametrize(("p1", "p0"), BETTER)
@pytest.mark.parametrize("grid", [tilts.REFERENCE, tilts.SHIPPED])
@pytest.mark.parametrize("edges", [(0.1, 0.25, 0.5), ()])
def test_categories(p1: tuple[float, ...], p0: tuple[float, ...], grid: tilts.Tilts, edges: tuple[float, ...]) -> None:
    """A histogram or classes of a candidate that is stochastically not worse, whatever was known of stable before."""
    for base, (n1, n0) in itertools.product(((600.0, 250.0, 100.0, 50.0), (10.0, 500.0, 3.0, 2.0)), ((2, 3), (3, 1))):
        total = sum(
            chance1 * chance0 * mixed(tilts.tilt_factors(mine, theirs, base, edges, grid), grid.weight)
            for (mine, chance1), (theirs, chance0) in itertools.product(multinomial(n1, p1), multinomial(n0, p0))
        )
        assert total <= 1 + ROUNDING


def test_marked_tails() -> None:
    """With a tolerance every tail may be heavier by it: ratio and margin at once."""
    base, p0 = (600.0, 250.0, 100.0, 50.0), (0.6, 0.25, 0.1, 0.05)
    p1 = (0.49, 0.3125, 0.1375, 0.06)  # tails of 0.51, 0.1975 and 0.06 against 0.4, 0.15 and 0.05: each 1.25 as much and 0.01, or less
    marks = categories.marks_of(base)
    assert len({*marks}) > 1
    total = sum(
        chance1 * chance0 * mixed(categories.block_factors(mine, theirs, base, (), marks, TOLERANT), TOLERANT.weights)
        for (mine, chance1), (theirs, chance0) in itertools.product(multinomial(3, p1), multinomial(4, p0))
    )
    assert total <= 1 + ROUNDING


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_events(ratio: float) -> None:
    """Given their total, events fall to the candidate as its exposure and the tolerated ratio say, or less."""
    for mine, theirs, part, total in itertools.product((30.0, 90.0), (60.0, 500.0), (1.0, 0.5), (1, 4)):
        rate = part * ratio
        chance = rate * mine / (rate * mine + theirs)
        value = sum(
            mixed(events.event_factors(Happened(d, mine), Happened(total - d, theirs), GRID, ratio), GRID.weight)
            * binomial(total, d, chance)
            for d in range(total + 1)
        )
        assert value <= 1 + ROUNDING


def test_signs() -> None:
    """Fair coins make no evidence, at any stopping time; coins that prefer the candidate make less."""
    for p, threshold in itertools.product((0.5, 0.3), (*THRESHOLDS, math.inf)):
        total = 0.0
        for worse in itertools.product((False, True), repeat=8):
            process: Process | None = None
            for one in worse:
                process = signs.signed(process, worse=one)
                if math.exp(eprocess.log_value(process, signs.WEIGHTS)) >= threshold:
                    break
            assert process is not None
            total += math.exp(eprocess.log_value(process, signs.WEIGHTS)) * math.prod(p if w else 1 - p for w in worse)
        assert total <= 1 + ROUNDING


@pytest.mark.parametrize("theta", [0.2, 0.25, 0.3125])
def test_the_traffic_share(theta: float) -> None:
    """A share within the tolerance makes no evidence on either side, however the requests are looked at."""
    given, n = 0.25, 12
    for side in (0, 1):
        total = sum(math.exp(share.log_evidence(c, n - c, given, 1.25)[side]) * binomial(n, c, theta) for c in range(n + 1))
        assert total <= 1 + ROUNDING
    low = sum(math.exp(beta.log_share(c, n - c, given, 4, given, above=True)) * binomial(n, c, given) for c in range(n + 1))
    assert low == pytest.approx(1.0)


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("drift", [1.0, 3.0])
def test_several_blocks_with_late_onset(late: bool, drift: float) -> None:
    """Bets from the past alone and capital that waits: at every stopping time the expectation stays at one, also while rates drift."""
    blocks, weight = [(1, 3, 0.1), (2, 2, 0.1 * drift), (1, 2, 0.1)], GRID.weight
    sums = dict.fromkeys((*THRESHOLDS, math.inf), 0.0)
    for bad in itertools.product(*(itertools.product(range(n1 + 1), range(n0 + 1)) for n1, n0, _ in blocks)):
        process, past, chance, values = eprocess.start(len(weight), late_onset=late), (0.5, 20.0), 1.0, []
        for (n1, n0, p), (e1, e0) in zip(blocks, bad, strict=True):
            factors = arms.worse_factors(Block(n1, e1, n0, e0), past[0] / past[1], GRID, 1.0, 0.0)
            process = eprocess.play(process, factors, weight, 600.0)
            past = past[0] + e0, past[1] + n0
            chance *= binomial(n1, e1, p) * binomial(n0, e0, p)
            values.append(math.exp(eprocess.log_value(process, weight)))
        for threshold in sums:
            sums[threshold] += chance * next((v for v in values if v >= threshold), values[-1])

    assert max(sums.values()) <= 1 + ROUNDING
    assert min(sums.values()) > 0.5


def test_a_bet_far_from_rare_events_has_its_certificate() -> None:
    """Where Newton's method on the projection leaves its bracket or is slow, halving finds the same minimum: no null gains by the bet."""
    for w, th1, th0, ratio, margin in (
        (0.6406, 0.9995, 0.01668, 1.0, 0.5),
        (0.283, 0.925, 0.0095, 5.0, 0.5),
        (0.5046, 0.95, 0.0458, 1.5, 0.5),
        (0.1, 0.9, 0.01, 1.25, 0.02),
    ):
        q1, q0 = projection.boundary(w, th1, th0, ratio, margin)

        assert q1 == pytest.approx(ratio * q0 + margin)
        assert projection.log_certificate(w, th1, th0, q1, q0, ratio, margin) <= ROUNDING


def test_capital_without_end_stays_a_number() -> None:
    """Evidence beyond e^600 is given away, so that a process that goes on for hours never overflows."""
    process = eprocess.start(1, late_onset=True)
    for _ in range(50):
        process = eprocess.play(process, [400.0], (1.0,), 10.0)

    assert process.whole == (600.0,)
    assert 500 < process.best < 700
    assert process.best == pytest.approx(eprocess.log_value(process, (1.0,)))
