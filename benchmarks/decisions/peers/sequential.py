"""Rules of the literature on cumulative counts, looked at after every poll."""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats

from benchmarks.decisions.peers import first
from benchmarks.decisions.streams import Counts, Floats, Ints


def _totals(counts: Counts) -> tuple[Floats, Floats, Floats, Floats]:
    n1, e1, n0, e0 = (np.cumsum(values, axis=1).astype(float) for values in (counts.n1, counts.e1, counts.n0, counts.e0))
    return n1, e1, n0, e0


def _difference(counts: Counts, *, pooled: bool) -> tuple[Floats, Floats]:
    """p1 - p0 and the plug-in variance of that difference; 0 and NaN while an arm has no request."""
    n1, e1, n0, e0 = _totals(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        p1, p0, both = e1 / n1, e0 / n0, (e1 + e0) / (n1 + n0)
        variance = both * (1 - both) * (1 / n1 + 1 / n0) if pooled else p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0
        return np.nan_to_num(p1 - p0), variance


class NaiveZ:
    """A two-sample z-test at level alpha, repeated at every poll as if each were the only one."""

    name = "z-test each poll"

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = alpha

    def decide(self, counts: Counts) -> Ints:
        """The first poll whose one-sided p-value is below alpha."""
        difference, variance = _difference(counts, pooled=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return first(difference / np.sqrt(variance) > stats.norm.isf(self.alpha))


class MixtureSPRT:
    """mSPRT of Johari, Koomen, Pekelis, Walsh (KDD 2017): a normal prior of deviation `t` on the difference, plug-in variance.

    `t` is the true lift where the stream has one and `knows` is set, else stable's rate.
    """

    def __init__(self, alpha: float = 0.01, *, knows: bool = False) -> None:
        self.alpha, self.knows = alpha, knows
        self.name = "mSPRT" + (", lift known" if knows else "")

    def decide(self, counts: Counts) -> Ints:
        """The first poll at which the mixture reaches 1/alpha with the candidate worse."""
        difference, v = _difference(counts, pooled=False)
        t2 = (counts.p1 - counts.p0 if self.knows and counts.p1 > counts.p0 else counts.p0) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            log_e = 0.5 * np.log(v / (v + t2)) + t2 * difference**2 / (2 * v * (v + t2))
            return first((log_e >= math.log(1 / self.alpha)) & (difference > 0))


class LindonMalek:
    """Lindon, Malek (NeurIPS 2022, arXiv 2011.03567): a bad request is the candidate's with the nominal share as probability.

    A Beta mixture with c = 4, truncated to "more than its share".
    """

    name = "Lindon-Malek"

    def __init__(self, alpha: float = 0.01, c: float = 4.0) -> None:
        self.alpha, self.c = alpha, c

    def log_e(self, c1: Floats, c0: Floats, w: float) -> Floats:
        """The closed form for cumulative events `c1` of the candidate and `c0` of stable at a constant share `w`."""
        a, b = self.c * w, self.c * (1 - w)
        with np.errstate(divide="ignore"):
            after = special.betaln(a + c1, b + c0) + np.log(special.betaincc(a + c1, b + c0, w))
        before = special.betaln(a, b) + math.log(special.betaincc(a, b, w))
        found: Floats = after - before - c1 * math.log(w) - c0 * math.log1p(-w)
        return found

    def decide(self, counts: Counts) -> Ints:
        """The first poll at which the mixture reaches 1/alpha."""
        _, e1, _, e0 = _totals(counts)
        return first(self.log_e(e1, e0, counts.share) >= math.log(1 / self.alpha))


class Oracle:
    """Wald's sequential probability ratio test for one who knows both rates and the share: what could be had at best."""

    name = "oracle (knows both rates)"

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = alpha

    def decide(self, counts: Counts) -> Ints:
        """The first poll at which the likelihood ratio against the closest equal rate reaches 1/alpha."""
        n1, e1, n0, e0 = _totals(counts)
        p1, p0 = min(counts.p1, 1.0), counts.p0
        q = counts.share * p1 + (1 - counts.share) * p0
        log_e = (
            special.xlogy(e1, p1 / q)
            + special.xlogy(n1 - e1, (1 - p1) / (1 - q))
            + special.xlogy(e0, p0 / q)
            + special.xlogy(n0 - e0, (1 - p0) / (1 - q))
        )
        return first(log_e >= math.log(1 / self.alpha))
