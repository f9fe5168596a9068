"""One arm against a fixed limit: is its rate of bad requests above `limit` beyond doubt?

L = (th/p)^e ((1-th)/(1-p))^(n-e) with odds(th) = psi odds(p): each request's expected factor increases with its own probability
and equals one at p, so the product is an e-variable for "at or below p" whatever the mix of requests.
"""

from __future__ import annotations

import math

from deployguard.analysis.bets import Grid, shifted


def limit_factors(total: float, bad: float, limit: float, grid: Grid) -> list[float]:
    """One log factor per bet against H0: rate <= limit, for `bad` of `total` requests. `limit` is a fraction in (0, 1)."""
    factors = []
    for psi in grid.psi:
        th = shifted(limit, psi)
        factors.append(bad * math.log(th / limit) + (total - bad) * (math.log1p(-th) - math.log1p(-limit)))
    return factors
