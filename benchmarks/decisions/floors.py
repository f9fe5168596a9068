"""Information floors: fewer requests than these, no rule with a bounded rate of false rollbacks can decide on in the mean.

Wald (1945): a test that ever rejects a true null with probability at most alpha needs, under the alternative, at least
ln(1/alpha)/I requests in the mean, where I is the smallest divergence per request between the alternative and any point of the null. The
*median* of a rule may lie below a bound on the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Part = tuple[float, float, float]
"""A lognormal part of a distribution of latencies: its share of the requests, its median in seconds, its sigma."""


def divergence(p: float, q: float) -> float:
    """KL(p||q) of two probabilities of failure, in nats; infinite where q excludes what p allows."""
    total = 0.0
    for a, b in ((p, q), (1 - p, 1 - q)):
        if a > 0:
            total += a * math.log(a / b) if b > 0 else math.inf
    return total


def information(p1: float, p0: float, share: float, *, ratio: float = 1.0, margin: float = 0.0, floor: float = 0.0) -> float:
    """Nats per request of both arms against "p1 <= ratio p0 + margin, or p1 <= floor"; 0 when (p1, p0) lies in that null.

    `share` is the candidate's part of the requests. The null is a union: the divergence from it is the smaller one of the two.
    """
    if p1 <= ratio * p0 + margin or p1 <= floor:
        return 0.0

    def far(q: float) -> float:
        return share * divergence(p1, min(ratio * q + margin, 1.0)) + (1 - share) * divergence(p0, q)

    low, high = p0, min((p1 - margin) / ratio, (1 - margin) / ratio)
    found = optimize.minimize_scalar(far, bounds=(low, high), method="bounded", options={"xatol": 1e-13 * high})
    two_armed = float(found.fun)
    return min(two_armed, share * divergence(p1, floor)) if floor > 0 else two_armed


def requests(p1: float, p0: float, share: float, alpha: float, **null: float) -> float:
    """The floor for counts, in requests of both arms; infinite when the null holds. `null` is as in `information`."""
    found = information(p1, p0, share, **null)
    return math.log(1 / alpha) / found if found > 0 else math.inf


def mixture(parts: Sequence[Part], at: Floats) -> Floats:
    """Density of the logarithm of the latency at `at` (natural logarithms of seconds)."""
    return sum((a * stats.norm.pdf(at, math.log(m), s) for a, m, s in parts), np.zeros_like(at))


def shares(parts: Sequence[Part], bounds: Sequence[float]) -> Floats:
    """Probability of each bucket: up to and including each bound (seconds), and above the last."""
    edges = np.log(np.asarray(bounds))
    below = sum((a * stats.norm.cdf(edges, math.log(m), s) for a, m, s in parts), np.zeros_like(edges))
    return np.diff(below, prepend=0.0, append=1.0)


def _floor(f1: Floats, f0: Floats, width: float, share: float, alpha: float) -> float:
    middle = share * f1 + (1 - share) * f0
    nats = sum(w * float(np.sum(f * np.log(np.where(f > 0, f / middle, 1.0)))) for w, f in ((share, f1), (1 - share, f0)))
    return math.log(1 / alpha) / (nats * width) if nats > 0 else math.inf


def latency_requests(parts1: Sequence[Part], parts0: Sequence[Part], share: float, alpha: float) -> float:
    """The floor for latency against "the same distribution", in requests of both arms, by integration over the true densities."""
    at = np.linspace(-8.0, 5.0, 130_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _floor(mixture(parts1, at), mixture(parts0, at), float(at[1] - at[0]), share, alpha)


def bucket_requests(parts1: Sequence[Part], parts0: Sequence[Part], bounds: Sequence[float], share: float, alpha: float) -> float:
    """As `latency_requests`, for one who sees the buckets alone."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _floor(shares(parts1, bounds), shares(parts0, bounds), 1.0, share, alpha)
