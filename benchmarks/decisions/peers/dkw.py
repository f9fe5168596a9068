"""Anytime-valid bands on distribution functions: roll back when the candidate's lies below stable's by more than both bands.

Howard, Ramdas (Bernoulli 28(3), 2022, arXiv 1906.09712), used on rollouts by Lindon, Sanden, Shirikian (KDD 2022, arXiv 2205.14762):
half-width 0.85 sqrt((ln(1 + ln n) + C)/n).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.decisions.peers import first
from benchmarks.decisions.streams import Counts, Floats, Ints

if TYPE_CHECKING:
    from benchmarks.decisions.latency import Histograms

_C = {0.01: 9.783496}
"""C by alpha: half of alpha for each arm."""


class Bands:
    """DKW bands at level alpha, for counts and for histograms."""

    name = "DKW bands"

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha, self.c = alpha, _C[alpha]

    def decide(self, counts: Counts) -> Ints:
        """The first poll at which the rates of bad requests are further apart than both bands."""
        good1, good0 = counts.n1 - counts.e1, counts.n0 - counts.e0
        return self._apart(np.stack([good1, counts.n1], axis=2), np.stack([good0, counts.n0], axis=2))

    def decide_latency(self, histograms: Histograms) -> Ints:
        """The first poll at which a cumulative bucket is further apart than both bands."""
        return self._apart(np.cumsum(histograms.h1, axis=2), np.cumsum(histograms.h0, axis=2))

    def _apart(self, below1: Ints, below0: Ints) -> Ints:
        """`below` counts what is at most each bound, the last one everything; (runs, polls, bounds)."""
        below1, below0 = np.cumsum(below1, axis=1), np.cumsum(below0, axis=1)
        n1, n0 = below1[:, :, -1], below0[:, :, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = (below0 / n0[:, :, None] - below1 / n1[:, :, None]).max(axis=2)
            return first(gap > self._width(n1) + self._width(n0))

    def _width(self, n: Ints) -> Floats:
        return 0.85 * np.sqrt((np.log1p(np.log(n)) + self.c) / n)
