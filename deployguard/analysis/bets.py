"""Bets: the alternatives that an e-process puts its capital on, fixed before the data come.

A bet moves the odds of a bad request by a factor psi. The grids and their weights are those measured in Turner, Ly, Grünwald
(JSPI 230, 2024, arXiv 2106.02693) form; any grid is valid, a good one is fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

_HIGHEST = 0.9995
_CERTAIN = 1500.0


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Odds ratios `psi` and their prior weights, which sum to one. Compared by identity, so that it is a cheap key."""

    psi: tuple[float, ...]
    weight: tuple[float, ...]


def _grid(psi: tuple[float, ...], power: float) -> Grid:
    raw = [p**-power for p in psi]
    total = sum(raw)
    return Grid(psi, tuple(r / total for r in raw))


REFERENCE = _grid(tuple(1.7 * (_CERTAIN / 1.7) ** (g / 5) for g in range(6)), 0.3)
"""psi_g = 1.7 (1500/1.7)^(g/5), weights ~ psi^-0.3: good for every lift when nothing is known."""


@lru_cache(maxsize=64)
def policy_grid(claims: float, ratio: float) -> Grid:
    """The grid for a policy that claims to see a ratio of `claims` and tolerates one of `ratio`.

    With r = max(claims, 1.2 ratio): psi = r, r^2.4, r^5.5 as far as they lie well below the last, and max(400, r) for a total failure;
    weights ~ psi^-0.25. Four bets find lifts of 1.5 to 10 with as few requests as the six of docs/statistics.md section 2 do.
    """
    least = max(claims, 1.2 * ratio)
    last = max(400.0, least)
    return _grid((*(psi for psi in (least, least**2.4, least**5.5) if psi < 0.7 * last), last), 0.25)


def shifted(rate: float, psi: float) -> float:
    """The rate whose odds are `psi` times those of `rate`, at most 0.9995."""
    odds = psi * rate / (1 - rate)
    return min(odds / (1 + odds), _HIGHEST)


def clipped(bad: float, total: float) -> float:
    """The rate bad/total kept inside [1e-6, 0.999], so that every bet has finite logarithms."""
    return min(max(bad / total, 1e-6), 0.999)


_FINENESS = 50.0


def settled(bad: float, total: float) -> float:
    """As `clipped`, rounded to steps of two percent: bets that hardly differ are the same bets, and are made once.

    A rate that is off by a percent scales both arms' bets alike, and costs next to nothing.
    """
    return clipped(math.exp(round(math.log(clipped(bad, total)) * _FINENESS) / _FINENESS), 1.0)
