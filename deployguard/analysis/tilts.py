"""Requests by ordered categories: is the candidate's distribution shifted towards the worse ones?

Null: the candidate's requests are stochastically not worse than stable's. Bets are tilts of stable's distribution th0 whose ratio
th1/th0 never decreases towards the worse categories, so the block factor of docs/statistics.md section 2 has expectation at most one on
the whole null (section 5):

    exponential   th1[j] ~ th0[j] exp(min(lam z_j, 50)), z the standardised score of the category
    tail          th1[j] ~ th0[j] psi where at most a share s of stable's requests is as bad or worse, th0[j] elsewhere
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from deployguard.model.evidence import Tallies

PRIOR = 0.3
"""What each category is counted as before anything was seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Tilts:
    """Exponential tilts `lam`, tail tilts as (share, psi), and the weight of each bet in this order."""

    lam: tuple[float, ...]
    tails: tuple[tuple[float, float], ...]
    weight: tuple[float, ...]


def _tilts(lam: tuple[float, ...], tails: tuple[tuple[float, float], ...], weight: tuple[float, ...] = ()) -> Tilts:
    weight = weight or (1.0,) * (len(lam) + len(tails))
    return Tilts(lam, tails, tuple(w / sum(weight) for w in weight))


TAILS = (0.5, 0.1, 0.02, 0.004)
"""Where the tails begin that are compared with a tolerance: the slowest half, tenth, fiftieth and two hundred and fiftieth."""
REFERENCE = _tilts((0.1, 0.3, 0.9, 2.5), tuple((s, psi) for s in TAILS for psi in (2.0, 8.0)))
"""The twelve bets of docs/statistics.md section 5, weighted alike."""
SHIPPED = _tilts((0.1, 0.3, 0.9, 2.0), ((0.02, 2.0), (0.02, 6.0), (0.004, 4.0)), (1.0, 1.0, 1.2, 0.8, 1.0, 1.0, 1.0))
"""Seven bets that see shifts of all requests and of the tail with fewer requests than the twelve: each bet costs the others."""


def scores(edges: tuple[float, ...], categories: int) -> tuple[float, ...]:
    """The badness of each category: the log of its geometric middle; for classes, which have no edges, their rank."""
    if not edges:
        return tuple(float(j) for j in range(categories))
    middle = [0.5 * (math.log(a) + math.log(b)) for a, b in itertools.pairwise(edges)]
    return (math.log(edges[0] / 2), *middle, math.log(2 * edges[-1]))


def share_of(counts: Tallies) -> list[float]:
    """The distribution that counts by category show, the prior included."""
    total = sum(counts) + PRIOR * len(counts)
    return [(c + PRIOR) / total for c in counts]


def at_least(th0: list[float]) -> list[float]:
    """The share of requests that are in category j or a worse one."""
    found, rest = [], 0.0
    for p in reversed(th0):
        rest += p
        found.append(rest)
    return found[::-1]


def tail_marks(counts: Tallies, tails: tuple[float, ...]) -> tuple[int, ...]:
    """For each tail the first category from which on at most that share lies; the number of categories when there is none."""
    beyond = at_least(share_of(counts))
    return tuple(next((j for j, s in enumerate(beyond) if s <= tail + 1e-12), len(counts)) for tail in tails)


@dataclass(frozen=True, slots=True)
class _Made:
    """The bets made from one distribution of stable.

    Exponential: log ratio and ratio by category. Tails: mark, log ratio and ratio below it, log ratio and ratio from it on.
    """

    exponential: tuple[tuple[tuple[float, float], ...], ...]
    tail: tuple[tuple[int, float, float, float, float] | None, ...]


@lru_cache(maxsize=512)
def _made(base: Tallies, edges: tuple[float, ...], tilts: Tilts) -> _Made:
    th0 = share_of(base)
    score = scores(edges, len(base))
    mean = sum(p * s for p, s in zip(th0, score, strict=True))
    deviation = math.sqrt(sum(p * (s - mean) ** 2 for p, s in zip(th0, score, strict=True))) or 1.0
    exponential = []
    for lam in tilts.lam:
        raised = [min(lam * (s - mean) / deviation, 50.0) for s in score]
        norm = math.log(sum(p * math.exp(r) for p, r in zip(th0, raised, strict=True)))
        exponential.append(tuple((r - norm, math.exp(r - norm)) for r in raised))
    beyond = at_least(th0)
    tail: list[tuple[int, float, float, float, float] | None] = []
    for share, psi in tilts.tails:
        (mark,) = tail_marks(base, (share,))
        if mark >= len(base):
            tail.append(None)
            continue
        norm = 1 + (psi - 1) * beyond[mark]
        tail.append((mark, -math.log(norm), 1 / norm, math.log(psi / norm), psi / norm))
    return _Made(tuple(exponential), tuple(tail))


def tilt_factors(mine: Tallies, theirs: Tallies, base: Tallies, edges: tuple[float, ...], tilts: Tilts) -> list[float]:
    """One log factor per bet for a block: `mine` and `theirs` are the candidate's and stable's requests by category.

    `base` are stable's counts as known before the block. Both arms must have served.
    """
    n1, n0 = sum(mine), sum(theirs)
    w = n1 / (n1 + n0)
    v = 1 - w
    made, log = _made(base, edges, tilts), math.log
    here = [(j, c1, c1 + c0) for j, (c1, c0) in enumerate(zip(mine, theirs, strict=True)) if c1 or c0]
    factors = []
    for ratios in made.exponential:
        factor = 0.0
        for j, c1, both in here:
            log_ratio, ratio = ratios[j]
            factor += c1 * log_ratio - both * log(w * ratio + v)
        factors.append(factor)
    for bet in made.tail:
        if bet is None:
            factors.append(0.0)
            continue
        mark, log_low, low, log_high, high = bet
        slow1, slow0 = sum(mine[mark:]), sum(theirs[mark:])
        factor = slow1 * log_high + (n1 - slow1) * log_low - (slow1 + slow0) * log(w * high + v)
        factors.append(factor - (n1 + n0 - slow1 - slow0) * log(w * low + v))
    return factors
