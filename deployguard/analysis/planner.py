"""How many requests a stage needs before it can see what a policy claims (docs/statistics.md, section 12)."""

from __future__ import annotations

import math

from deployguard.analysis.projection import boundary

_Z90 = 1.281552
_LN_LATE_ONSET = math.log(2)
_LN_GRID = math.log(1 / 0.3)


def requests_needed(
    p0: float,
    p1: float,
    share: float,
    *,
    ratio: float = 1.0,
    margin: float = 0.0,
    alpha: float = 0.01,
    weight: float = 1.0,
    dispersion: float = 1.0,
) -> float:
    """Requests of both arms together after which a rise from `p0` to `p1` is seen with 90 % power; infinity if it is tolerated.

    `share` is the candidate's share of the requests, `weight` that of the signal in the policy. Wald's approximation with a
    normal correction for power.
    """
    if p1 <= ratio * p0 + margin or not 0 < share < 1:
        return math.inf
    p1 = min(p1, 0.999)
    q1, q0 = boundary(share, p1, p0, ratio, margin)
    gain = share * _divergence(p1, q1) + (1 - share) * _divergence(p0, q0)
    spread = share * _spread(p1, q1) + (1 - share) * _spread(p0, q0)
    needed = math.log(1 / alpha) + math.log(1 / weight) + _LN_LATE_ONSET + _LN_GRID
    return dispersion * ((_Z90 * math.sqrt(spread) + math.sqrt(_Z90**2 * spread + 4 * gain * needed)) / (2 * gain)) ** 2


def _divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def _spread(p: float, q: float) -> float:
    return p * (1 - p) * (math.log(p / q) - math.log((1 - p) / (1 - q))) ** 2
