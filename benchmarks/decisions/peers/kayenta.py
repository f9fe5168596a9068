"""Kayenta as a rule: once a minute from the fifth on the judge sees all values so far, one a minute; a bad score ends the rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from benchmarks.decisions.peers import end_of_minute, per_minute, rates
from benchmarks.decisions.peers.kayenta_judge import HIGH, NODATA, Judge, Metric, score, without_nan
from benchmarks.decisions.streams import NEVER, Bools, Counts, Floats, Ints

if TYPE_CHECKING:
    from benchmarks.decisions.latency import Histograms

FIRST_MINUTE = 5
MARGINAL = 75.0
_NEAR = 2e-4
"""Twice the absolute tolerance of the judge's root finder, in the metric's unit."""


class Kayenta:
    """One metric: the error rate in percent, judged for an increase; a score at or below 75 rolls back.

    An arm without any value is Nodata, which the judge scores 0. That would roll back every service with little traffic; `strict` keeps
    it, otherwise such a minute is passed over, in the peer's favour.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.name = "Kayenta, each minute" + (", no data fails" if strict else "")

    def decide(self, counts: Counts) -> Ints:
        """The end of the first minute whose judgement ends the rollout."""
        experiment = 100 * rates(per_minute(counts.e1), per_minute(counts.n1))
        control = 100 * rates(per_minute(counts.e0), per_minute(counts.n0))
        return end_of_minute(self.series(experiment, control))

    def decide_latency(self, histograms: Histograms, *, every: int = 6) -> Ints:
        """As `decide` on the 95th percentile of `every` polls, in milliseconds; from the fifth value on."""
        experiment, control = (1000 * histograms.quantile(h, 0.95, every) for h in (histograms.h1, histograms.h0))
        found = self.series(experiment, control)
        return np.where(found == NEVER, NEVER, (found + 1) * every - 1)

    def series(self, experiment: Floats, control: Floats) -> Ints:
        """For each row the column at which the judge ends the rollout; one value a column, NaN where there is none."""
        runs, columns = experiment.shape
        found = np.full(runs, NEVER)
        for column in range(FIRST_MINUTE - 1, columns):
            open_ = np.flatnonzero(found == NEVER)
            if len(open_) == 0:
                break
            x, y = experiment[open_, : column + 1], control[open_, : column + 1]
            for row in open_[self._worth_judging(x, y)]:
                if self._ends(experiment[row, : column + 1], control[row, : column + 1], int(row)):
                    found[row] = column
        return found

    def _worth_judging(self, x: Floats, y: Floats) -> Bools:
        """Rows that could be High, or that have no data when that counts; the judge itself looks at these alone."""
        empty = np.isnan(x).all(axis=1) | np.isnan(y).all(axis=1)
        could: Bools = _could_be_high(x, y) & ~empty
        return could | empty if self.strict else could

    def _ends(self, experiment: Floats, control: Floats, run: int) -> bool:
        judge = Judge(direction="increase", noise=np.random.default_rng(run))
        label = judge.classify(without_nan(experiment), without_nan(control)).label
        if label == NODATA and not self.strict:
            return False
        if label not in (HIGH, NODATA):
            return False
        return score([Metric(label, ["errors"])], {})[0] <= MARGINAL


def _could_be_high(x: Floats, y: Floats) -> Bools:
    """Rows of (rows, values) whose standardised rank sum passes the upper quantile at a shift of about 0.

    No other row can have an interval above 0. Ties are treated as the judge does, NaN as absent.
    """
    quantile = float(stats.norm.ppf(0.99))
    m, n = (~np.isnan(x)).sum(axis=1), (~np.isnan(y)).sum(axis=1)
    could = np.zeros(len(x), dtype=bool)
    for shift in (-_NEAR, 0.0, _NEAR):
        both = np.concatenate([x - shift, y], axis=1)
        ranks = stats.rankdata(np.where(np.isnan(both), np.inf, both), axis=1)
        centred = np.where(np.isnan(x), 0.0, ranks[:, : x.shape[1]]).sum(axis=1) - m * (m + 1) / 2 - m * n / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = m * n / 12 * ((m + n + 1) - _ties(both) / ((m + n) * (m + n - 1)))
            could |= (centred - 0.5 * np.sign(centred)) / np.sqrt(np.maximum(variance, 1e-12)) > quantile
    lowest = np.where(np.isnan(x), np.inf, x).min(axis=1)
    highest = np.where(np.isnan(y), -np.inf, y).max(axis=1)
    apart = lowest > highest  # two different constants: the judge adds noise, and then they are separated
    return could | apart


def _ties(values: Floats) -> Floats:
    """Sum over groups of equal values of t^3 - t, row by row."""
    ordered = np.sort(values, axis=1)
    rows, columns = ordered.shape
    new = np.ones((rows, columns), dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begins = np.flatnonzero(new)
    sizes = np.diff(np.append(begins, rows * columns)).astype(float)
    sizes[np.isnan(ordered.ravel()[begins])] = 0
    return np.bincount(begins // columns, weights=sizes**3 - sizes, minlength=rows)
