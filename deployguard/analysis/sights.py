"""What each kind of check can see, before it has seen anything: regressions, requests and times (docs/statistics.md, section 12)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from deployguard.analysis import categories, signs, tilts
from deployguard.analysis.arms import PROMOTE_RATIOS, PROMOTE_WEIGHTS
from deployguard.analysis.bets import REFERENCE, Grid
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.gauges import BLOCK, GaugeRules
from deployguard.analysis.planner import POWER, Bet, Pace, Walk, chance, limit_bets, needed, same_bets, sees, smallest, walks, worse_bets
from deployguard.analysis.strata import PATIENCE

ALPHA_PROMOTE = 0.05
PROVEN = math.log(1 / ALPHA_PROMOTE)
LEAST_RATE = 1e-4
"""Stable's rate of bad requests is taken as at least this: what is rarer has not been learnt by the time it matters."""
MOST_RATE = 0.999
FILLED = 0.9
"""How full a marked tail is taken to be: it begins at an edge of a bucket, so that what lies beyond is mostly less than was aimed at."""


def bar(alpha: float, weight: float, parts: int) -> float:
    """What the log evidence of one part of a check must reach, when no other check says anything."""
    return math.log(parts / (alpha * weight))


def from_rate(rules: CountsRules, rate: float) -> float:
    """The rate that a rise is counted from: stable's, but at least the floor, below which nothing is a reason to roll back."""
    return min(max(rate, rules.floor, LEAST_RATE), 0.5)


def to_rate(rules: CountsRules, rate: float, ratio: float) -> float:
    """The candidate's rate at `ratio` times that rate, the margin on top."""
    return min(ratio * from_rate(rules, rate) + rules.margin, MOST_RATE)


def _parts(rules: CountsRules, pace: Pace, rate: float, p1: float) -> list[list[Walk]]:
    """The walks of the comparison, and those against the floor: both must pass."""
    p0, top = min(max(rate, LEAST_RATE), 0.5), bar(rules.alpha, rules.weight, rules.parts)

    def bets(share: float) -> list[Bet]:
        return worse_bets(p0, share, rules.grid, rules.ratio, rules.margin)

    found = [walks(bets, p1, p0, pace, top, late_onset=rules.late_onset)]
    if rules.floor > 0:
        found.append(_against(rules.floor, p1, pace, top, late_onset=rules.late_onset))
    return found


def _against(limit: float, p1: float, pace: Pace, top: float, *, late_onset: bool) -> list[Walk]:
    if p1 <= limit:
        return []
    # A single arm has no share: all bets are the same in every block.
    return walks(lambda _: limit_bets(limit, REFERENCE), p1, 0.0, pace, top, late_onset=late_onset)


def counts_chance(rules: CountsRules, pace: Pace, rate: float, p1: float, requests: float) -> float:
    """P(a candidate whose rate is `p1`, stable's being `rate`, is condemned by the comparison within `requests` of both arms)."""
    return min(chance(found, requests) for found in _parts(rules, pace, rate, p1))


def counts_needed(rules: CountsRules, pace: Pace, rate: float, p1: float, power: float = POWER) -> float:
    """Requests of both arms after which a rise from `rate` to `p1` is seen; infinity when it is tolerated."""
    return max(needed(found, power) for found in _parts(rules, pace, rate, p1))


def counts_sight(rules: CountsRules, pace: Pace, rate: float, requests: float, power: float = POWER) -> float | None:
    """The smallest ratio to `from_rate` that is seen within `requests` of both arms; None when not even a total failure is."""
    base = from_rate(rules, rate)
    most = (MOST_RATE - rules.margin) / base
    least = max(rules.ratio, 1.0) * 1.001

    def seen(ratio: float) -> bool:
        return all(sees(found, requests, power) for found in _parts(rules, pace, rate, min(ratio * base + rules.margin, MOST_RATE)))

    return smallest(seen, least, most) if most > least else None


def counts_proof(rules: CountsRules, pace: Pace, rate: float, power: float = POWER) -> float:
    """Requests of both arms after which a candidate that is as good as stable is proven not to be as bad as claimed."""
    p0 = min(max(rate, LEAST_RATE), 0.5)
    return _proof(p0, pace, rules.claims, rules.margin, power)


def _proof(p0: float, pace: Pace, claims: float, margin: float, power: float) -> float:
    def bets(share: float) -> list[Bet]:
        return same_bets(p0, share, PROMOTE_RATIOS, PROMOTE_WEIGHTS, claims, margin)

    uncapped = dataclasses.replace(pace, cap=None)
    return needed(walks(bets, p0, p0, uncapped, PROVEN, late_onset=False, least=PATIENCE), power)


def limit_needed(rules: CountsRules, pace: Pace, p1: float, power: float = POWER) -> float:
    """Requests of the candidate after which a rate of `p1` is seen to be above the limit."""
    assert rules.limit is not None
    top = bar(rules.alpha, rules.weight, rules.parts)
    return needed(_against(rules.limit, p1, _alone(pace), top, late_onset=rules.late_onset), power)


def limit_sight(rules: CountsRules, pace: Pace, requests: float, power: float = POWER) -> float | None:
    """The smallest rate that is seen to be above the limit within so many requests of the candidate."""
    assert rules.limit is not None
    limit, top = rules.limit, bar(rules.alpha, rules.weight, rules.parts)
    if limit >= MOST_RATE:
        return None

    def seen(p1: float) -> bool:
        return sees(_against(limit, p1, _alone(pace), top, late_onset=rules.late_onset), requests, power)

    return smallest(seen, limit * 1.001, MOST_RATE) if limit * 1.001 < MOST_RATE else None


def _alone(pace: Pace) -> Pace:
    """The candidate's requests by themselves."""
    return Pace(1.0, pace.rate * pace.share, pace.interval, pace.phi, pace.cap)


def tails_after(shares: Sequence[float], tail: float, p1: float) -> list[float]:
    """The shares beyond each mark when the slowest `tail` of the requests has become `p1` of them, its shape unchanged."""
    return [min(share * p1 / tail, MOST_RATE) if share <= tail else min(share + p1 - tail, MOST_RATE) for share in shares]


def _tail_walks(rules: CategoriesRules, pace: Pace, tail: float, p1: float) -> list[Walk]:
    """The walks of the bets on marked tails.

    Without a tolerance whole distributions are bet on by exponential tilts too; they only add, and are left out.
    """
    grids = _tail_grids(rules)
    shares = [FILLED * share for share, _ in grids]
    top, found = bar(rules.alpha, rules.weight, 1), []
    for (_, grid), before, after in zip(grids, shares, tails_after(shares, tail, p1), strict=True):
        found += walks(_tail_bets(rules, grid, before), after, before, pace, top, late_onset=rules.late_onset)
    return found


def _tail_grids(rules: CategoriesRules) -> list[tuple[float, Grid]]:
    """The tails that are bet on, and the bets on each."""
    if rules.tolerant:
        psi = categories.PSI.psi
        return [(tail, Grid(psi, rules.weights[: len(psi)])) for tail in tilts.TAILS]
    bets = [(tail, psi, weight) for (tail, psi), weight in zip(rules.grid.tails, rules.grid.weight[len(rules.grid.lam) :], strict=True)]
    shares = sorted({tail for tail, _, _ in bets}, reverse=True)
    return [(tail, Grid(tuple(p for t, p, _ in bets if t == tail), tuple(w for t, _, w in bets if t == tail))) for tail in shares]


def _tail_bets(rules: CategoriesRules, grid: Grid, before: float) -> Callable[[float], list[Bet]]:
    return lambda share: worse_bets(before, share, grid, rules.ratio, rules.margin)


def tail_needed(rules: CategoriesRules, pace: Pace, tail: float, p1: float, power: float = POWER) -> float:
    """Requests of both arms after which it is seen that the slowest `tail` of stable's requests are `p1` of the candidate's."""
    return needed(_tail_walks(rules, pace, tail, p1), power)


def tail_sight(rules: CategoriesRules, pace: Pace, tail: float, requests: float, power: float = POWER) -> float | None:
    """The smallest growth of the slowest `tail` that is seen within `requests` of both arms; None when none is."""

    def seen(ratio: float) -> bool:
        return sees(_tail_walks(rules, pace, tail, min(ratio * tail + rules.margin, MOST_RATE)), requests, power)

    return smallest(seen, max(rules.ratio, 1.0) * 1.001, 0.95 / tail)


def tail_proof(rules: CategoriesRules, pace: Pace, tail: float, power: float = POWER) -> float:
    """Requests of both arms after which an equal candidate is proven not to have a slowest `tail` that grew as claimed."""
    return _proof(tail, pace, rules.claims, rules.margin, power)


def blocks_in_a_row(top: float) -> int:
    """How many blocks of a gauge in a row, all worse, pass a bar of `top`."""
    count = 1
    while signs.in_a_row(count) < top:
        count += 1
    return count


def gauge_seconds(rules: GaugeRules, interval: float, blocks: int) -> float:
    """How long so many blocks take. A block ends at the first poll that is late enough, and instances are warm before the first begins."""
    longest = math.ceil(BLOCK.total_seconds() / interval - 1e-9) * interval
    return rules.warmup.total_seconds() + interval + blocks * longest


def journey_seconds(every: float, walks_in_a_row: int, longest: float = 0.0) -> float:
    """How long so many red walks take at most, when each lasts up to `longest` seconds."""
    return walks_in_a_row * max(every, longest) + longest
