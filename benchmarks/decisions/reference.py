"""An independent second form of the two-armed test without tolerance, for all runs at once: it must agree with the engine.

Sections 2 and 6 of docs/statistics.md written down in numpy, straight: block factors, a fixed grid of bets, late onset. Nothing is shared
with `deployguard.analysis`, which rounds its bets to steps of half a percent; the two decide within a poll or two of one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.decisions.streams import NEVER, Counts, Floats, Ints

ONSET_SECONDS = 1800.0
LONGEST_PILE = 6
"""Polls that wait for an arm without requests before they are dropped."""


class ReferenceGRO:
    """The block GRO e-process at ratio 1 without dispersion and cap: rolled back when E reaches 1/alpha.

    `psi` and `weight` are the bets, `late_share` the part of the capital that bets on a later change; 0 switches late onset off.
    """

    def __init__(self, psi: Sequence[float], weight: Sequence[float], *, late_share: float, alpha: float = 0.01) -> None:
        self.psi, self.weight, self.late_share, self.alpha = np.array(psi), np.array(weight), late_share, alpha
        self.name = "reference GRO" + (", late onset" if late_share > 0 else "")

    def decide(self, counts: Counts) -> Ints:
        """For each run the first poll with E at or above 1/alpha, or NEVER."""
        found = np.full(counts.runs, NEVER)
        for poll, log_e in enumerate(self._evidence(counts)):
            found = np.where((found == NEVER) & (log_e >= math.log(1 / self.alpha)), poll, found)
            if (found != NEVER).all():
                break
        return found

    def _evidence(self, counts: Counts) -> Iterator[Floats]:
        """log E of every run after each poll."""
        runs = counts.runs
        past_n = counts.history_n.sum(axis=(1, 2)).astype(float)
        scale = np.minimum(1.0, 5000 / np.maximum(past_n, 1))
        past_e, past_n = 0.5 + counts.history_e.sum(axis=(1, 2)) * scale, 50 + past_n * scale
        whole, late, rest = np.zeros((runs, len(self.psi))), np.full((runs, len(self.psi)), -np.inf), np.ones(runs)
        pile, age, waited = np.zeros((runs, 4)), np.zeros(runs), np.zeros(runs)
        for poll in range(counts.polls):
            pile += np.stack([counts.n1[:, poll], counts.e1[:, poll], counts.n0[:, poll], counts.e0[:, poll]], axis=1)
            age, waited = age + 1, waited + 1
            both = counts.seen[:, poll]
            ripe = both & (pile[:, 0] >= 1) & (pile[:, 2] >= 1)
            log_l = np.where(ripe[:, None], self._factors(pile, past_e / past_n), 0.0)
            whole += log_l
            # Time without a block moves capital too, but only when the next block is played.
            gamma = np.where(ripe, -np.expm1(-waited * counts.seconds / ONSET_SECONDS), 0.0)
            with np.errstate(divide="ignore"):
                late = np.logaddexp(late, np.log(gamma * rest)[:, None]) + log_l
            rest *= 1 - gamma
            waited = np.where(ripe, 0.0, waited)
            closed = ripe | (both & (age >= LONGEST_PILE))
            past_e, past_n = past_e + np.where(closed, pile[:, 3], 0), past_n + np.where(closed, pile[:, 2], 0)
            pile[closed], age[closed] = 0.0, 0.0
            yield self._value(whole, late, rest)

    def _factors(self, pile: Floats, rate: Floats) -> Floats:
        """log L of each run and bet: (th1/th*)^e1 ... with th* the mean of both at the realised share."""
        n1, e1, n0, e0 = (pile[:, column, None] for column in range(4))
        th0 = np.clip(rate, 1e-6, 0.999)[:, None]
        odds = self.psi * th0 / (1 - th0)
        th1 = np.minimum(odds / (1 + odds), 0.9995)
        with np.errstate(invalid="ignore", divide="ignore"):
            w = n1 / (n1 + n0)
        mean = w * th1 + (1 - w) * th0
        good1, good0 = np.log1p(-th1) - np.log1p(-mean), np.log1p(-th0) - np.log1p(-mean)
        return e1 * np.log(th1 / mean) + (n1 - e1) * good1 + e0 * np.log(th0 / mean) + (n0 - e0) * good0

    def _value(self, whole: Floats, late: Floats, rest: Floats) -> Floats:
        log_weight = np.log(self.weight)
        value: Floats = np.logaddexp.reduce(whole + log_weight, axis=1)
        if self.late_share == 0:
            return value
        with np.errstate(divide="ignore"):
            later = np.logaddexp(np.logaddexp.reduce(late + log_weight, axis=1), np.log(rest))
        return np.logaddexp(value + math.log1p(-self.late_share), later + math.log(self.late_share))
