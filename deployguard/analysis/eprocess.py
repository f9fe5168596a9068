"""E-processes: evidence that may be looked at as often as one likes.

Under the null an e-process has expectation at most one at every stopping time, so by Ville's inequality (1939) it ever reaches
1/alpha with probability at most alpha. It is never reset within a rollout. Half of the capital of a process with late onset bets on a
change at an unknown later time (docs/statistics.md, section 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from deployguard.model.evidence import Process

ONSET_SECONDS = 1800.0
_HALF = math.log(0.5)
_UNPLACED = -1e9
"""The log of no capital at all; finite, because saved state has no infinities."""


def log_sum(values: Sequence[float]) -> float:
    """log(sum(exp(v))) without overflow; -inf for nothing."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(v - top) for v in values))


def start(bets: int, *, late_onset: bool) -> Process:
    """A process that has seen nothing: E = 1."""
    return Process(whole=(0.0,) * bets, late=(_UNPLACED,) * bets if late_onset else ())


def play(process: Process, log_factors: Sequence[float], log_weights: Sequence[float], seconds: float) -> Process:
    """The process after one block: `log_factors[g]` is the logarithm of bet g's factor, `seconds` the length of the block."""
    whole = tuple(m + f for m, f in zip(process.whole, log_factors, strict=True))
    late, rest = process.late, process.rest
    if late:
        gamma = -math.expm1(-max(seconds, 1e-9) / ONSET_SECONDS)
        placed = math.log(gamma) + rest
        late = tuple(log_sum((r, placed)) + f for r, f in zip(late, log_factors, strict=True))
        rest += math.log1p(-gamma)
    after = Process(whole=whole, late=late, rest=rest, best=process.best)
    return Process(whole=whole, late=late, rest=rest, best=max(process.best, log_value(after, log_weights)))


def log_value(process: Process, log_weights: Sequence[float]) -> float:
    """log E now: the weighted capital of all bets."""
    whole = log_sum([w + m for w, m in zip(log_weights, process.whole, strict=True)])
    if not process.late:
        return whole
    late = log_sum([*(w + r for w, r in zip(log_weights, process.late, strict=True)), process.rest])
    return log_sum((_HALF + whole, _HALF + late))


def tempered(log_factor: float, dispersion: float, cap: float | None) -> float:
    """A factor made safe for errors in clumps: divided by the dispersion, and no more than `cap` in one block."""
    factor = log_factor / dispersion
    return factor if cap is None else min(factor, math.log(cap))
