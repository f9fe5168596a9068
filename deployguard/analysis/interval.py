"""The interval of the ratio of the candidate's rate to stable's, at the policy's confidence.

A confidence sequence by inverting the two-arm test on a grid of ratios (docs/statistics.md, section 12). It is computed on demand from the
pooled blocks of the rollout, one for each share of traffic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from deployguard.analysis.arms import log_factor
from deployguard.analysis.bets import clipped, shifted
from deployguard.analysis.eprocess import log_sum
from deployguard.analysis.projection import boundary
from deployguard.model.evidence import Block
from deployguard.model.reading import Counter

_BETS = (1.1, 1.25, 1.5, 2.0, 3.0, 8.0, 60.0)
_STEP = 1.02
_END = 50.0
_POINTS = 1 + math.floor(2 * math.log(_END) / math.log(_STEP))


def log_evidence(segments: Sequence[Block], history: Counter, rho: float, *, above: bool, phi: float = 1.0) -> float:
    """The largest log evidence, over the segments, against H0: p1 <= rho p0 (or >= with `above`), tempered by the dispersion `phi`."""
    capital = [0.0] * len(_BETS)
    bad, total, best = history.bad, history.total, 0.0
    for block in segments:
        th0 = clipped(bad, total)
        w = block.n1 / (block.n1 + block.n0)
        for g, k in enumerate(_BETS):
            th1 = shifted(th0, rho / k if above else rho * k)
            if rho * th0 < 1 and ((th1 < rho * th0) if above else (th1 > rho * th0)):
                capital[g] += log_factor(block, th1, th0, *boundary(w, th1, th0, rho)) / phi
        best = max(best, log_sum(capital) - math.log(len(_BETS)))
        bad, total = bad + block.e0, total + block.n0
    return best


def ratio_interval(segments: Sequence[Block], history: Counter, alpha: float, phi: float = 1.0) -> tuple[float, float]:
    """Lower and upper end of the ratio p1/p0, each wrong with probability at most alpha/2; 0 and infinity when open.

    The grid runs in steps of 2 % from 1/50 and from 50; an end is the last ratio that is rejected coming from there.
    """
    usable = [s for s in segments if s.n1 > 0 and s.n0 > 0]
    needed = math.log(2 / alpha)

    def below(i: int) -> bool:
        return log_evidence(usable, history, _STEP**i / _END, above=False, phi=phi) >= needed

    def beyond(i: int) -> bool:
        return log_evidence(usable, history, _END / _STEP**i, above=True, phi=phi) >= needed

    low, high = _last(below), _last(beyond)
    return (0.0 if low < 0 else _STEP**low / _END), (math.inf if high < 0 else _END / _STEP**high)


def _last(rejected: Callable[[int], bool]) -> int:
    """The last grid point that is rejected, counting from 0; -1 when the first is not. Rejection is monotone along the grid."""
    if not rejected(0):
        return -1
    low, high = 0, _POINTS
    while high - low > 1:
        middle = (low + high) // 2
        if rejected(middle):
            low = middle
        else:
            high = middle
    return low
