"""Events per instance-second: restarts, kills for memory, crash loops (docs/statistics.md, section 7).

Two Poisson processes with a common, arbitrary profile over time; given their total, an event is the candidate's with the probability of its
share of the exposure. Lindon, Malek, NeurIPS 2022, arXiv 2011.03567. The exposure changes between polls, so each poll is judged by its own
share:

    w = T1/(T1+T0), th_g = psi_g w/(psi_g w + 1-w), th_r = rho w/(rho w + 1-w), L_g = (th_g/th_r)^d1 ((1-th_g)/(1-th_r))^d0
"""

from __future__ import annotations

import math

from deployguard.analysis.bets import Grid
from deployguard.analysis.eprocess import log_value, play, start
from deployguard.model.evidence import EventsEvidence, Happened
from deployguard.model.target import CANDIDATE, STABLE

RATIO = 2.0
"""How many times stable's rate of exits is tolerated: instances that exit at all are few, and their number is noisy."""


def event_factors(mine: Happened, theirs: Happened, grid: Grid, ratio: float) -> list[float]:
    """One log factor per bet against H0: the candidate's rate is at most `ratio` times stable's.

    A bet inside the null is neutral, and so is a poll in which only one arm was there.
    """
    if mine.seconds <= 0 or theirs.seconds <= 0:
        return [0.0] * len(grid.psi)
    w = mine.seconds / (mine.seconds + theirs.seconds)
    rest = ratio * w + 1 - w
    factors = []
    for psi in grid.psi:
        if psi <= ratio:
            factors.append(0.0)
            continue
        bet = psi * w + 1 - w
        factors.append(mine.events * math.log(psi * rest / (ratio * bet)) + theirs.events * math.log(rest / bet))
    return factors


def counted(evidence: EventsEvidence, moved: dict[str, Happened], grid: Grid, *, late_onset: bool) -> EventsEvidence:
    """The evidence after the events of one poll."""
    import msgspec

    mine, theirs = moved.get(CANDIDATE, Happened()), moved.get(STABLE, Happened())
    process = evidence.worse or start(len(grid.psi), late_onset=late_onset)
    seconds = max((h.seconds for h in moved.values()), default=0.0)
    if mine.events or theirs.events:
        process = play(process, event_factors(mine, theirs, grid, RATIO), grid.weight, seconds)
    before = evidence.counted
    sums = {arm: _plus(before.get(arm, Happened()), h) for arm, h in moved.items()}
    return msgspec.structs.replace(evidence, worse=process, counted={**before, **sums})


def _plus(a: Happened, b: Happened) -> Happened:
    return Happened(a.events + b.events, a.seconds + b.seconds)


def worse_evidence(evidence: EventsEvidence, grid: Grid) -> float:
    """log E that the candidate's instances exit more often than tolerated; 0 before any did."""
    return log_value(evidence.worse, grid.weight) if evidence.worse else 0.0
