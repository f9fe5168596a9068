"""The worked examples of docs/statistics.md: known values to 1e-9, on the reference grid."""

from __future__ import annotations

import math

import pytest

from deployguard.analysis import arms, bets, eprocess, interval, limits, planner, projection
from deployguard.model.evidence import Block
from deployguard.model.reading import Counter

POLLS = [(25, 1, 475, 2), (24, 3, 480, 3), (30, 4, 470, 1)]
HALF = 0.5
"""The share of the late capital in the tables; a quarter is shipped."""
TEN_SECONDS_OF_TABLES = -eprocess.ONSET_SECONDS * math.log(1 - 1 / 180)


def close(found: list[float], expected: list[float]) -> None:
    assert found == pytest.approx(expected, abs=1e-9)


def played(*, ratio: float = 1.0, dispersion: float = 1.0, late: bool = False) -> list[float]:
    process, past, found = eprocess.start(6, late_onset=late), Counter(5, 1000), []
    for n1, e1, n0, e0 in POLLS:
        factors = arms.worse_factors(Block(n1, e1, n0, e0), past.bad / past.total, bets.REFERENCE, ratio, 0.0)
        process = eprocess.play(process, eprocess.tempered(factors, dispersion, None), bets.REFERENCE.weight, TEN_SECONDS_OF_TABLES, HALF)
        past = Counter(past.bad + e0, past.total + n0)
        found.append(eprocess.log_value(process, bets.REFERENCE.weight, HALF))
    return found


def test_w1_two_arms_without_tolerance() -> None:
    """Three polls against a history of 5 in 1,000 give the printed log evidence, also with a dispersion of 2."""
    close(played(), [0.555180958, 4.890882908, 12.957016403])
    close(played(dispersion=2.0), [0.172557658, 2.124857286, 5.866988845])


def test_w2_two_arms_with_tolerance() -> None:
    """A tolerated ratio of 1.25 projects every bet onto the boundary of the null."""
    close(played(ratio=1.25), [0.368922919, 4.100186544, 11.338796664])
    block = Block(25, 2, 475, 2)
    one = [
        arms.log_factor(block, 0.05, 0.005, *projection.boundary(0.05, 0.05, 0.005, ratio, margin))
        for ratio, margin in ((1.0, 0.0), (1.25, 0.0), (1.25, 0.001))
    ]
    close(one, [3.177336756, 2.777335340, 2.597528771])
    close(list(projection.boundary(0.05, 0.05, 0.005, 1.25, 0.001)), [0.009636481729, 0.006909185383])


def test_w6_late_onset() -> None:
    """Half of the capital on a later change costs little at once."""
    close(played(late=True), [0.317136455, 4.212872792, 12.271900050])


def test_w7_fixed_limit() -> None:
    """Three polls above a limit of 1 % reach the printed evidence."""
    process, found = eprocess.start(6, late_onset=False), []
    for total, bad in ((100, 3), (120, 5), (80, 4)):
        process = eprocess.play(process, limits.limit_factors(total, bad, 0.01, bets.REFERENCE), bets.REFERENCE.weight, 10)
        found.append(eprocess.log_value(process, bets.REFERENCE.weight))
    close(found, [0.179775030, 2.394623128, 5.067519450])


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(0.0, [1.233904405, 3.309915495, 3.927448882]), (0.005, [2.589354992, 6.272925481, 7.998857883])],
)
def test_w9_promote(margin: float, expected: list[float]) -> None:
    """Three large polls of equal arms exclude a ratio of two."""
    process, past, found = eprocess.start(3, late_onset=False), Counter(50, 5000), []
    for n1, e1, n0, e0 in ((500, 5, 9500, 95), (500, 4, 9500, 97), (500, 6, 9500, 93)):
        factors = arms.same_factors(Block(n1, e1, n0, e0), past.bad / past.total, 2.0, margin)
        process = eprocess.play(process, factors, arms.PROMOTE_WEIGHTS, 10)
        past = Counter(past.bad + e0, past.total + n0)
        found.append(eprocess.log_value(process, arms.PROMOTE_WEIGHTS))
    close(found, expected)


def test_w11_interval() -> None:
    """One block of 2,000 against 38,000 requests gives the printed interval of the ratio."""
    block, history = Block(2000, 60, 38000, 380), Counter(50, 5000)
    below = [interval.log_evidence([block], history, rho, above=False) for rho in (1, 1.5, 2, 2.25)]
    beyond = [interval.log_evidence([block], history, rho, above=True) for rho in (4.5, 5)]

    close(below, [22.426423256, 8.891670331, 2.464923802, 0.783431573])
    close(beyond, [3.446259774, 6.279932188])
    assert interval.ratio_interval([block], history, 0.01) == pytest.approx((1.722141, 4.928899), abs=1e-6)


def test_the_interval_is_open_without_evidence() -> None:
    """Nothing counted excludes nothing."""
    assert interval.ratio_interval([], Counter(0.5, 50), 0.01) == (0.0, math.inf)


def test_a_ratio_that_cannot_be_is_not_tested() -> None:
    """With stable failing half of its requests no ratio above two is possible; the interval stays below."""
    low, high = interval.ratio_interval([Block(200, 180, 2000, 1000)], Counter(400, 800), 0.01)

    assert 1 < low < 1.8 < high


def test_the_planner_agrees_with_its_example() -> None:
    """Wald's approximation at the projection of the true rates: the example of section 12, without a tolerance and with one."""

    def asked(p0: float, p1: float, share: float, ratio: float) -> float:
        q1, q0 = projection.boundary(share, p1, p0, ratio)
        (walk,) = planner.walks(lambda _: [made(1.0, p1, p0, q1, q0)], p1, p0, planner.Pace(share), 0.0, late_onset=False)
        return planner.normal_requests(walk.drift, walk.spread, math.log(100) + math.log(2) + math.log(1 / 0.3))

    def made(weight: float, p1: float, p0: float, q1: float, q0: float) -> planner.Bet:
        return planner.Bet(
            weight, math.log(p1 / q1), math.log1p(-p1) - math.log1p(-q1), math.log(p0 / q0), math.log1p(-p0) - math.log1p(-q0)
        )

    assert asked(0.01, 0.015, 0.05, 1.0) == pytest.approx(263_008, abs=1)
    assert asked(0.01, 0.02, 0.05, 1.25) == pytest.approx(152_360, abs=1)


@pytest.mark.parametrize(("claims", "ratio", "bets_of"), [(1.5, 1.0, 4), (10, 1.25, 3), (1000, 1.0, 1), (1.5, 2.0, 4)])
def test_the_policy_grid_bets_on_the_claim_and_above_the_tolerance(claims: float, ratio: float, bets_of: int) -> None:
    """The smallest bet is the claim, or what the tolerance allows and a fifth; the last is a total failure; weights fall and sum to one."""
    grid = bets.policy_grid(claims, ratio)

    assert (grid.psi[0], len(grid.psi)) == (max(claims, 1.2 * ratio), bets_of)
    assert grid.psi[-1] == max(400, claims)
    assert sum(grid.weight) == pytest.approx(1)
    assert sorted(grid.weight, reverse=True) == list(grid.weight)


def test_log_sum_of_nothing_is_no_capital() -> None:
    """The empty sum has no logarithm but minus infinity."""
    assert eprocess.log_sum([]) == -math.inf
