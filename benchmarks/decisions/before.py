"""What the hour before the exposure teaches, for many runs at once.

`deployguard.analysis.learning` measures the dispersion and lets every instance of stable play the candidate, which takes a quarter of a
second for twenty instances and an hour. Here the sums are taken for all runs together, and the placebos are played with numpy; only where
one of them comes near to being condemned the product's own code decides. `tests/unit/test_decision_streams.py` compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.decisions.latency import Histograms
from benchmarks.decisions.streams import Bools, Floats, Ints
from deployguard.analysis.dispersion import ENOUGH, UNFIT, measured
from deployguard.analysis.eprocess import LATE_SHARE, ONSET_SECONDS
from deployguard.analysis.learning import MOST_PLACEBOS, categories_learnt, counts_learnt
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence, Learnt, Spread, Stratum
from deployguard.model.reading import Counter

_NEAR = 1.5
"""Nats below the threshold at which a placebo is played by the product: the margin and the rounding of bets are left out before that."""


def counts_before(n: Ints, e: Ints, seconds: float, rules: Any) -> list[CountsEvidence]:
    """The evidence that each run begins with; `n` requests and `e` bad ones by (runs, polls, instances)."""
    spreads = spreads_of(n, e)
    phis = [measured(spread, ENOUGH) for spread in spreads]
    near = condemned_nearly(n, e, np.array([phi or 1.0 for phi in phis]), seconds, rules)
    found = []
    for run, phi in enumerate(phis):
        if phi is not None and (near[run] or phi > UNFIT):
            found.append(by_product(n[run], e[run], seconds, rules))
            continue
        bad, total, whole = float(e[run].sum()), float(n[run].sum()), n.shape[1] * seconds
        learnt = Learnt(bad=0.0, seconds=whole) if phi is None else Learnt(phi, bad, whole, min(n.shape[2], MOST_PLACEBOS))
        found.append(CountsEvidence(learnt=learnt, strata={"": Stratum(Counter(0.5 + bad, 50.0 + total))}))
    return found


def by_product(n: Ints, e: Ints, seconds: float, rules: Any) -> CountsEvidence:
    """As `counts_before`, by the product's own code, for one run: (polls, instances)."""
    return counts_learnt([(seconds, _growth(n[poll], e[poll])) for poll in range(len(n))], rules)


def _growth(n: Ints, e: Ints) -> Mapping[str, tuple[float, ...]]:
    return {f"s{k}": (float(bad), float(total)) for k, (total, bad) in enumerate(zip(n.tolist(), e.tolist(), strict=True))}


def latency_before(batch: Histograms, run: int, rules: Any) -> CategoriesEvidence:
    """The evidence that a run on latency begins with, by the product's own code."""
    history = batch.history[run].tolist()
    return categories_learnt([(batch.seconds, {f"s{k}": tuple(map(float, one)) for k, one in enumerate(poll)}) for poll in history], rules)


def spreads_of(n: Ints, e: Ints) -> list[Spread]:
    """The sums of the dispersion between instances and between the two polls of a pair, run by run."""
    even = n.shape[1] // 2 * 2
    pairs = (v.sum(axis=2)[:, :even].reshape(len(v), even // 2, 2) for v in (n, e))
    found = [*(_sums(n, e) if n.shape[2] > 1 else (np.zeros(len(n)),) * 3), *_sums(*pairs)]
    return [Spread(*(float(v[run]) for v in found)) for run in range(len(n))]


def _sums(n: Ints, e: Ints) -> tuple[Floats, Floats, Ints]:
    """Numerator, denominator and degrees of freedom of the dispersion of `e` in `n` between units of the last axis, summed over polls."""
    total, bad = n.sum(axis=2), e.sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = bad / total
        off = ((e - n * p[:, :, None]) ** 2).sum(axis=2)
        expected = p * (1 - p) * total / (total - 1) * (n * (1 - n / total[:, :, None])).sum(axis=2)
    tells = (bad > 0) & (total > 1) & (bad < total)
    return np.where(tells, off, 0).sum(axis=1), np.where(tells, expected, 0).sum(axis=1), np.minimum(bad, n.shape[2] - 1).sum(axis=1)


def condemned_nearly(n: Ints, e: Ints, phi: Floats, seconds: float, rules: Any) -> Bools:
    """Runs in which an instance playing the candidate comes near to 1/alpha; by the formulas of docs/statistics.md, sections 3 and 6."""
    if n.shape[2] < 2:
        return np.zeros(len(n), dtype=bool)
    n0, e0 = n.sum(axis=2, keepdims=True) - n, e.sum(axis=2, keepdims=True) - e
    played = (n >= 1) & (n0 >= 1)
    past_n, past_e = (start + np.cumsum(np.where(played, v, 0), axis=1) - np.where(played, v, 0) for start, v in ((50.0, n0), (0.5, e0)))
    th0, w = past_e / past_n, np.where(played, n / np.maximum(n + n0, 1), 0.5)
    part = LATE_SHARE if rules.late_onset else 0.0
    gamma = np.where(played, -math.expm1(-seconds / ONSET_SECONDS), 0.0)
    left = np.cumprod(1 - gamma, axis=1)
    enters, value = gamma * left / (1 - gamma), part * left
    for psi, weight in zip(rules.grid.psi, rules.grid.weight, strict=True):
        factor = np.where(played, _log_factor(n, e, n0, e0, w, th0, psi, rules.ratio), 0.0) / phi[:, None, None]
        gone = np.cumsum(factor, axis=1)
        value += weight * (1 - part) * np.exp(np.minimum(gone, 600))
        if part:
            with np.errstate(divide="ignore"):
                late = gone + np.logaddexp.accumulate(np.log(enters) - (gone - factor), axis=1)
            value += weight * part * np.exp(np.minimum(late, 600))
    near: Bools = np.log(value).max(axis=(1, 2)) >= -math.log(rules.alpha) - (_NEAR if rules.margin else _NEAR / 5)
    return near


def _log_factor(n1: Ints, e1: Ints, n0: Ints, e0: Ints, w: Floats, th0: Floats, psi: float, ratio: float) -> Floats:
    odds = psi * th0 / (1 - th0)
    th1 = np.minimum(odds / (1 + odds), 0.9995)
    mean = w * th1 + (1 - w) * th0
    b = (1 - w * (1 - th1)) + ratio * (1 - (1 - w) * (1 - th0))
    q0 = 2 * mean / (b + np.sqrt(np.maximum(b * b - 4 * ratio * mean, 0.0)))
    q1 = np.minimum(ratio * q0, 1 - 1e-12)
    good = (n1 - e1) * (np.log1p(-th1) - np.log1p(-q1)) + (n0 - e0) * (np.log1p(-th0) - np.log1p(-q0))
    factor: Floats = np.where(th1 > ratio * th0, e1 * np.log(th1 / q1) + e0 * np.log(th0 / q0) + good, 0.0)
    return factor
