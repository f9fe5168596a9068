"""E-processes: evidence that may be looked at as often as one likes.

Under the null an e-process has expectation at most one at every stopping time, so by Ville's inequality (1939) it ever reaches
1/alpha with probability at most alpha. It is never reset within a rollout. Part of the capital of a process with late onset bets on a
change at an unknown later time (docs/statistics.md, section 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from deployguard.model.evidence import Process

ONSET_SECONDS = 1800.0
LATE_SHARE = 0.25
"""The part of the capital that bets on a later change. A quarter costs a fault at the start 0.29 nats where half would cost 0.69, and a
late one 0.69 more than half would; most faults are there from the start."""
_MOST = 600.0
"""Capital beyond e^600 is given away: less capital is as valid, and its exponential stays a number."""
_MOST_LATE = 1e250


def log_sum(values: Sequence[float]) -> float:
    """log(sum(exp(v))) without overflow; -inf for nothing."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(v - top) for v in values))


def start(bets: int, *, late_onset: bool) -> Process:
    """A process that has seen nothing: E = 1."""
    return Process(whole=(0.0,) * bets, late=(0.0,) * bets if late_onset else ())


def play(
    process: Process, log_factors: Sequence[float], weights: Sequence[float], seconds: float, late_share: float = LATE_SHARE
) -> Process:
    """The process after one block: `log_factors[g]` is the logarithm of bet g's factor, `seconds` the length of the block."""
    exp = math.exp
    whole, value = [], 0.0
    for m, f, weight in zip(process.whole, log_factors, weights, strict=True):
        m += f
        if m > _MOST:
            m = _MOST
        whole.append(m)
        value += weight * exp(m)
    late, rest = process.late, process.rest
    if late:
        placed = -math.expm1(-max(seconds, 1e-9) / ONSET_SECONDS)
        entering, later, moved = placed * rest, 0.0, []
        for r, f, weight in zip(late, log_factors, weights, strict=True):
            r = (r + entering) * exp(min(_MOST, f))
            if r > _MOST_LATE:
                r = _MOST_LATE
            moved.append(r)
            later += weight * r
        late, rest = tuple(moved), rest * (1 - placed)
        value = (1 - late_share) * value + late_share * (later + rest)
    best = process.best
    if value > 1.0:
        best = max(best, math.log(value))
    return Process(tuple(whole), late, rest, best)


def log_value(process: Process, weights: Sequence[float], late_share: float = LATE_SHARE) -> float:
    """log E now: the weighted capital of all bets."""
    whole = log_sum([m + math.log(w) for w, m in zip(weights, process.whole, strict=True)])
    if not process.late:
        return whole
    late = process.rest + sum(w * r for w, r in zip(weights, process.late, strict=True))
    whole += math.log1p(-late_share)
    return log_sum((whole, math.log(late_share * late))) if late > 0 else whole


def accuses(process: Process) -> bool:
    """Whether the evidence may be larger than one: never false when it is. A look at each bet alone, cheaper than their sum."""
    return max(process.whole) > 0 or (bool(process.late) and max(process.late) > 1 - process.rest)


def tempered(log_factors: Sequence[float], dispersion: float, cap: float | None) -> Sequence[float]:
    """Factors made safe for errors in clumps: each divided by the dispersion, and no more than `cap` in one block."""
    if dispersion != 1.0:
        log_factors = [f / dispersion for f in log_factors]
    if cap is not None:
        most = math.log(cap)
        if max(log_factors) > most:
            log_factors = [min(f, most) for f in log_factors]
    return log_factors
