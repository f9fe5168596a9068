"""One arm against a fixed limit: is its rate of bad requests above `limit` beyond doubt?

L = (th/p)^e ((1-th)/(1-p))^(n-e) with odds(th) = psi odds(p): each request's expected factor increases with its own probability
and equals one at p, so the product is an e-variable for "at or below p" whatever the mix of requests.
"""

from __future__ import annotations

import math
from functools import lru_cache

from deployguard.analysis.bets import REFERENCE, Grid, shifted
from deployguard.analysis.eprocess import log_value, play, start, tempered
from deployguard.analysis.strata import PATIENCE
from deployguard.model.evidence import Limited


def limit_factors(total: float, bad: float, limit: float, grid: Grid) -> list[float]:
    """One log factor per bet against H0: rate <= limit, for `bad` of `total` requests. `limit` is a fraction in (0, 1)."""
    good = total - bad
    return [bad * up + good * down for up, down in _steps(limit, grid)]


@lru_cache(maxsize=256)
def _steps(limit: float, grid: Grid) -> tuple[tuple[float, float], ...]:
    """What a bad and what a good request add to each bet."""
    rates = [shifted(limit, psi) for psi in grid.psi]
    return tuple((math.log(th / limit), math.log1p(-th) - math.log1p(-limit)) for th in rates)


def watched(*, late_onset: bool) -> Limited:
    """An arm of which nothing is known yet."""
    return Limited(start(len(REFERENCE.psi), late_onset=late_onset))


def against(
    limited: Limited, total: float, bad: float, limit: float, seconds: float, phi: float, cap: float | None, *, urgent: bool = True
) -> Limited:
    """The arm after a poll of `seconds` in which `bad` of `total` requests went bad.

    Good requests pile up until one goes bad, and bad ones too unless it is `urgent` to know: one arm and a fixed limit are judged
    alike by one block or by many.
    """
    good, bad, seconds = limited.good + total - bad, limited.bad + bad, limited.seconds + seconds
    if seconds < PATIENCE and not (bad and urgent):
        return Limited(limited.process, good, bad, seconds)
    factors = tempered(limit_factors(good + bad, bad, limit, REFERENCE), phi, cap)
    return Limited(play(limited.process, factors, REFERENCE.weight, seconds))


def evidence_of(limited: Limited | None) -> float:
    """log E that the arm is above the limit; 0 before anything was counted."""
    return log_value(limited.process, REFERENCE.weight) if limited else 0.0
