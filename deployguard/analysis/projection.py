"""The point of a null hypothesis that is closest to a bet, in Kullback-Leibler divergence.

Null: p1 <= rho p0 + delta (or >=, mirrored). For a bet (th1, th0) at realised share w the closest point lies on the boundary,
(rho q + delta, q); dividing by it makes the factor of a block have expectation at most one on the whole null. Turner,
Grünwald, Statistics & Probability Letters 2023, arXiv 2203.09785.
"""

from __future__ import annotations

import math


def boundary(w: float, th1: float, th0: float, rho: float, delta: float = 0.0) -> tuple[float, float]:
    """The point (q1, q0) of the boundary p1 = rho p0 + delta that minimises w KL(th1||q1) + (1-w) KL(th0||q0).

    `w` is the share of requests that went to the candidate, in (0, 1). It serves both sides of the boundary.
    """
    if delta == 0.0:
        share = w * th1 + (1 - w) * th0
        b = (1 - w * (1 - th1)) + rho * (1 - (1 - w) * (1 - th0))
        q = 2 * share / (b + math.sqrt(max(b * b - 4 * rho * share, 0.0)))
        return rho * q, q
    q = _with_margin(w, th1, th0, rho, delta)
    return rho * q + delta, q


def _with_margin(w: float, th1: float, th0: float, rho: float, delta: float) -> float:
    """q0 by safeguarded Newton: the slope of the objective in q is increasing, and its root lies between the two rates."""
    ends = (th0, (th1 - delta) / rho)
    low, high = max(min(ends), 1e-12), min(max(ends), (1 - delta) / rho - 1e-12, 1 - 1e-12)
    weight, share = w * rho + 1 - w, w * th1 + (1 - w) * th0
    a, b, c = weight * rho, weight * delta - rho * share, -(1 - w) * th0 * delta
    q = (-b + math.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a)
    q = min(max(q, low), high)
    for _ in range(60):  # pragma: no branch - it converges in 2 to 14 steps
        q1 = rho * q + delta
        slope = -w * th1 * rho / q1 + w * (1 - th1) * rho / (1 - q1) - (1 - w) * th0 / q + (1 - w) * (1 - th0) / (1 - q)
        bend = w * th1 * rho**2 / q1**2 + w * (1 - th1) * rho**2 / (1 - q1) ** 2 + (1 - w) * th0 / q**2 + (1 - w) * (1 - th0) / (1 - q) ** 2
        step = slope / bend
        if abs(step) <= 1e-15 * q:
            break
        if slope > 0:
            high = q
        else:
            low = q
        q = q - step if low < q - step < high else (low + high) / 2
    return q


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
