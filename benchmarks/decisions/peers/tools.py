"""Rules of rollout controllers: a threshold on the candidate's success rate, looked at once a minute."""

from __future__ import annotations

import numpy as np

from benchmarks.decisions.peers import end_of_minute, first, least_success, per_minute, rates
from benchmarks.decisions.streams import NEVER, Bools, Counts, Ints


class Argo:
    """Argo Rollouts: one measurement a minute, `result >= 0.95` or `0.99`; the run fails when more than `limit` measurements failed.

    Failed measurements are never forgotten. A minute without requests gives NaN, which is not at least anything and so a failed
    measurement, unless the user wrote `isNaN(result) ||` before (`guarded`).
    """

    def __init__(self, limit: int, *, guarded: bool = False) -> None:
        self.limit, self.guarded = limit, guarded
        self.name = f"Argo Rollouts, limit {limit}" + (", isNaN guard" if guarded else "")

    def decide(self, counts: Counts) -> Ints:
        """The end of the minute that is one failure too many."""
        failed = _failed(counts)
        if self.guarded:
            failed &= per_minute(counts.n1) > 0
        return end_of_minute(first(np.cumsum(failed, axis=1) > self.limit))


class Flagger:
    """Flagger: a failed check adds one and is never taken back; no value is a failed check; it acts a tick after the threshold."""

    def __init__(self, threshold: int = 5) -> None:
        self.threshold = threshold
        self.name = f"Flagger, threshold {threshold}"

    def decide(self, counts: Counts) -> Ints:
        """The tick after the one that reached the threshold."""
        reached = first(np.cumsum(_failed(counts), axis=1) >= self.threshold)
        acts = np.where(reached == NEVER, NEVER, reached + 1)
        last = counts.polls // 6 - 1
        return end_of_minute(np.where(acts > last, NEVER, acts))


def _failed(counts: Counts) -> Bools:
    success = 1 - rates(per_minute(counts.e1), per_minute(counts.n1))
    return ~(success >= least_success(counts.p0))
