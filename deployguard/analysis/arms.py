"""Two arms: is the candidate's rate of bad requests worse than tolerated, or provably not worse than claimed?

The block form of the growth-rate-optimal e-variable for two streams (Turner, Ly, Grünwald 2024), with tolerance by projection
(`projection`). A block is what both arms served over one interval; the bets come from the past alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from deployguard.analysis.bets import Grid, shifted
from deployguard.analysis.projection import Cubic, cubic, with_margin, without_margin
from deployguard.model.evidence import Block

PROMOTE_RATIOS = (0.5, 1.0, 1.25)
PROMOTE_WEIGHTS = (0.25, 0.5, 0.25)
Bet = tuple[float, float, float, Cubic]
"""th1, log th1, log(1 - th1), and the projection's coefficients."""


def log_factor(block: Block, th1: float, th0: float, q1: float, q0: float) -> float:
    """log of (th/q)^bad ((1-th)/(1-q))^good over both arms of a block."""
    return (
        block.e1 * math.log(th1 / q1)
        + (block.n1 - block.e1) * (math.log1p(-th1) - math.log1p(-q1))
        + block.e0 * math.log(th0 / q0)
        + (block.n0 - block.e0) * (math.log1p(-th0) - math.log1p(-q0))
    )


def worse_factors(block: Block, th0: float, grid: Grid, ratio: float, margin: float) -> list[float]:
    """One log factor per bet against H0: p1 <= ratio p0 + margin; `th0` is stable's rate as known before this block.

    A bet that lies inside the null is neutral (0). The block must hold requests of both arms.
    """
    return _factors(block, th0, _worse(th0, grid, ratio, margin), ratio, margin)


def same_factors(block: Block, th0: float, ratio: float, margin: float) -> list[float]:
    """One log factor per bet against H0: p1 >= ratio p0 + margin, the null that the promote rule must reject."""
    return _factors(block, th0, _same(th0, ratio, margin), ratio, margin)


@lru_cache(maxsize=4096)
def _worse(th0: float, grid: Grid, ratio: float, margin: float) -> tuple[Bet | None, ...]:
    least = ratio * th0 + margin
    return tuple(_bet(th1, th0, ratio, margin) if th1 > least else None for th1 in (shifted(th0, psi) for psi in grid.psi))


@lru_cache(maxsize=1024)
def _same(th0: float, ratio: float, margin: float) -> tuple[Bet | None, ...]:
    most = ratio * th0 + margin
    rates = [min(max(share * th0, 1e-7), 0.9995) for share in PROMOTE_RATIOS]
    return tuple(_bet(th1, th0, ratio, margin) if th1 < most < 1 else None for th1 in rates)


def _bet(th1: float, th0: float, ratio: float, margin: float) -> Bet:
    return th1, math.log(th1), math.log1p(-th1), cubic(th1, th0, ratio, margin)


def _factors(block: Block, th0: float, bets: Sequence[Bet | None], ratio: float, margin: float) -> list[float]:
    n1, e1, n0, e0 = block.n1, block.e1, block.n0, block.e0
    ok1, ok0, w = n1 - e1, n0 - e0, n1 / (n1 + n0)
    log, log1p = math.log, math.log1p
    log_th0, log_rest0 = log(th0), log1p(-th0)
    factors = []
    for bet in bets:
        if bet is None:
            factors.append(0.0)
            continue
        th1, log_th1, log_rest1, parts = bet
        q0 = with_margin(w, th1, th0, ratio, margin, parts) if margin else without_margin(w, th1, th0, ratio)
        q1 = ratio * q0 + margin
        factor = ok1 * (log_rest1 - log1p(-q1)) + ok0 * (log_rest0 - log1p(-q0))
        if e1:
            factor += e1 * (log_th1 - log(q1))
        if e0:
            factor += e0 * (log_th0 - log(q0))
        factors.append(factor)
    return factors
