"""The point of a null hypothesis that is closest to a bet, in Kullback-Leibler divergence.

Null: p1 <= rho p0 + delta (or >=, mirrored). For a bet (th1, th0) at realised share w the closest point lies on the boundary,
(rho q + delta, q); dividing by it makes the factor of a block have expectation at most one on the whole null. Turner,
Grünwald, Statistics & Probability Letters 2023, arXiv 2203.09785.
"""

from __future__ import annotations

import math

Cubic = tuple[float, float, float, float, float, float, float]
"""Coefficients of the slope's numerator that do not depend on the share: see `cubic`."""

_STEPS = 12
_CLOSE = 1e-6
"""A step so small leaves an error of about its square."""


def boundary(w: float, th1: float, th0: float, rho: float, delta: float = 0.0) -> tuple[float, float]:
    """The point (q1, q0) of the boundary p1 = rho p0 + delta that minimises w KL(th1||q1) + (1-w) KL(th0||q0).

    `w` is the share of requests that went to the candidate, in (0, 1). It serves both sides of the boundary.
    """
    if delta == 0.0:
        q = without_margin(w, th1, th0, rho)
        return rho * q, q
    q = with_margin(w, th1, th0, rho, delta, cubic(th1, th0, rho, delta))
    return rho * q + delta, q


def without_margin(w: float, th1: float, th0: float, rho: float) -> float:
    """q0 in closed form, for delta = 0: the smaller root of rho q^2 - b q + S, written without cancellation."""
    mean = w * th1 + (1 - w) * th0
    b = (1 - w * (1 - th1)) + rho * (1 - (1 - w) * (1 - th0))
    return 2 * mean / (b + math.sqrt(max(b * b - 4 * rho * mean, 0.0)))


def cubic(th1: float, th0: float, rho: float, delta: float) -> Cubic:
    """The slope of the objective times q (1-q) q1 (1-q1) is c3 q^3 + c2 q^2 + c1 q + c0, with c3 = -rho^2 and

    c0 = (1-w) a0, c1 = w b1 + (1-w) a1, c2 = w b2 + (1-w) a2. These are (a0, a1, a2, b1, b2, c3) and where to start from.
    """
    flat, rise, bend = delta * (1 - delta), rho * (1 - 2 * delta), -rho * rho
    return -th0 * flat, flat - th0 * rise, rise - th0 * bend, rho * (delta - th1), rho * (rho - delta + th1), bend, (th1 - delta) / rho


def with_margin(w: float, th1: float, th0: float, rho: float, delta: float, parts: Cubic) -> float:
    """q0 by Newton on the cubic, between th0 and (th1 - delta) / rho; `parts` are those of `cubic` for the same bet."""
    a0, a1, a2, b1, b2, c3, end = parts
    v = 1 - w
    c0, c1, c2 = v * a0, w * b1 + v * a1, w * b2 + v * a2
    # Start at the positive root of the same problem for rare events: W rho q^2 + (W delta - rho S) q - (1-w) th0 delta.
    weight = w * rho + v
    a, b, c = weight * rho, weight * delta - rho * (w * th1 + v * th0), -v * th0 * delta
    q = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
    for _ in range(_STEPS):
        step = (((c3 * q + c2) * q + c1) * q + c0) / ((3 * c3 * q + 2 * c2) * q + c1)
        q -= step
        if -_CLOSE * q <= step <= _CLOSE * q:
            if (q - th0) * (q - end) <= 0:
                return q
            break
    return _bisected(w, th1, th0, rho, delta)


def _bisected(w: float, th1: float, th0: float, rho: float, delta: float) -> float:
    """q0 by halving: the slope of the objective increases in q, and its root lies between the two rates."""
    ends = (th0, (th1 - delta) / rho)
    low, high = max(min(ends), 1e-12), min(max(ends), (1 - delta) / rho - 1e-12, 1 - 1e-12)
    for _ in range(100):
        q = (low + high) / 2
        q1 = rho * q + delta
        slope = w * rho * (q1 - th1) / (q1 * (1 - q1)) + (1 - w) * (q - th0) / (q * (1 - q))
        low, high = (low, q) if slope > 0 else (q, high)
    return (low + high) / 2


def log_certificate(w: float, th1: float, th0: float, q1: float, q0: float, rho: float, delta: float, *, above: bool = False) -> float:
    """The logarithm of the largest expected factor per request anywhere on the null; at most 0 up to rounding for a true projection.

    The expected factor is linear in (p1, p0), so its maximum over the null polygon is attained at a corner. `above` is the
    mirrored null p1 >= rho p0 + delta.
    """
    corner = (1.0, (1 - delta) / rho) if (1 - delta) / rho <= 1 else (rho + delta, 1.0)
    if above:
        corners = [(delta, 0.0), (1.0, 0.0), corner]
    else:
        corners = [(0.0, 0.0), (delta, 0.0), (0.0, 1.0), corner]
        if (1 - delta) / rho <= 1:
            corners.append((1.0, 1.0))
    return math.log(max(w * _mean(p1, th1, q1) + (1 - w) * _mean(p0, th0, q0) for p1, p0 in corners))


def _mean(p: float, th: float, q: float) -> float:
    return p * th / q + (1 - p) * (1 - th) / (1 - q)
