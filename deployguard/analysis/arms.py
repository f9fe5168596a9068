"""Two arms: is the candidate's rate of bad requests worse than tolerated, or provably not worse than claimed?

The block form of the growth-rate-optimal e-variable for two streams (Turner, Ly, Grünwald 2024), with tolerance by projection
(`projection`). A block is what both arms served over one interval; the bets come from the past alone.
"""

from __future__ import annotations

import math

from deployguard.analysis.bets import Grid, clipped, shifted
from deployguard.analysis.projection import boundary
from deployguard.model.evidence import Block
from deployguard.model.reading import Counter

PROMOTE_RATIOS = (0.5, 1.0, 1.25)
PROMOTE_LOG_WEIGHTS = (math.log(0.25), math.log(0.5), math.log(0.25))


def log_factor(block: Block, th1: float, th0: float, q1: float, q0: float) -> float:
    """log of (th/q)^bad ((1-th)/(1-q))^good over both arms of a block."""
    return (
        block.e1 * math.log(th1 / q1)
        + (block.n1 - block.e1) * (math.log1p(-th1) - math.log1p(-q1))
        + block.e0 * math.log(th0 / q0)
        + (block.n0 - block.e0) * (math.log1p(-th0) - math.log1p(-q0))
    )


def worse_factors(block: Block, past: Counter, grid: Grid, ratio: float, margin: float) -> list[float]:
    """One log factor per bet against H0: p1 <= ratio p0 + margin. `past` counts stable's requests before this block.

    A bet that lies inside the null is neutral (0). The block must hold requests of both arms.
    """
    th0 = clipped(past.bad, past.total)
    w = block.n1 / (block.n1 + block.n0)
    factors = []
    for psi in grid.psi:
        th1 = shifted(th0, psi)
        if th1 <= ratio * th0 + margin:
            factors.append(0.0)
        else:
            factors.append(log_factor(block, th1, th0, *boundary(w, th1, th0, ratio, margin)))
    return factors


def same_factors(block: Block, past: Counter, ratio: float, margin: float) -> list[float]:
    """One log factor per bet against H0: p1 >= ratio p0 + margin, the null that the promote rule must reject."""
    th0 = clipped(past.bad, past.total)
    w = block.n1 / (block.n1 + block.n0)
    factors = []
    for share in PROMOTE_RATIOS:
        th1 = min(max(share * th0, 1e-7), 0.9995)
        if th1 >= ratio * th0 + margin or ratio * th0 + margin >= 1:
            factors.append(0.0)
        else:
            factors.append(log_factor(block, th1, th0, *boundary(w, th1, th0, ratio, margin)))
    return factors
