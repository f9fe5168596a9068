"""The incomplete beta function, and the two mixtures over a share that need it (docs/statistics.md, sections 7 and 8)."""

from __future__ import annotations

import math

_TINY = 1e-300
_ENOUGH = 1e-15
_MOST_STEPS = 10_000
"""Steps of the continued fraction: enough for counts of thousands of millions."""


def log_beta(a: float, b: float) -> float:
    """ln B(a, b)."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_incomplete(a: float, b: float, x: float) -> tuple[float, float]:
    """ln I_x(a, b) and ln (1 - I_x(a, b)), each computed on its own side so that small ones keep their digits.

    The continued fraction of Abramowitz and Stegun 26.5.8 by Lentz's method.
    """
    front = a * math.log(x) + b * math.log1p(-x) - log_beta(a, b)
    if x < (a + 1) / (a + b + 2):
        low = front + math.log(_fraction(a, b, x)) - math.log(a)
        return low, _rest(low)
    high = front + math.log(_fraction(b, a, 1 - x)) - math.log(b)
    return _rest(high), high


def _rest(log_p: float) -> float:
    p = math.exp(min(log_p, 0.0))
    return math.log1p(-p) if p < 1 else math.log(_TINY)


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    h = d
    m, change = 0, math.inf
    while abs(change - 1) >= _ENOUGH and m < _MOST_STEPS:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1 + step * d
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = 1 + step / c
            c = c if abs(c) > _TINY else _TINY
            change = d * c
            h *= change
    return h


def log_share(c1: float, c0: float, share: float, strength: float, beyond: float, *, above: bool) -> float:
    """log E of a Beta(strength share, strength (1 - share)) mixture over the probability theta that an event is the candidate's.

    The mixture is truncated to theta > `beyond` (`above`) or to theta < `beyond`; the null is theta at or on the other side of
    `beyond`. `c1` and `c0` are the candidate's and stable's events so far.
    """
    a, b = strength * share, strength * (1 - share)
    side = 1 if above else 0
    prior = log_beta(a, b) + log_incomplete(a, b, beyond)[side]
    posterior = log_beta(a + c1, b + c0) + log_incomplete(a + c1, b + c0, beyond)[side]
    return posterior - prior - c1 * math.log(beyond) - c0 * math.log1p(-beyond)
