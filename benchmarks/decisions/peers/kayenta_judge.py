"""Kayenta's judge: the Mann-Whitney test with its interval, detectors of outliers, effect sizes, and the score of many metrics.

Written from the description of the judge's behaviour; `tests/unit/test_kayenta_cases.py` holds it to the cases that Kayenta's own tests
check. Deviations from textbook statistics (a root finder with an absolute tolerance, noise added to constants) are the judge's and kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from benchmarks.decisions.streams import Bools, Floats

PASS, HIGH, LOW, NODATA, NODATA_FAIL, ERROR = "Pass", "High", "Low", "Nodata", "NodataFailMetric", "Error"

_TOLERANCE = 1e-4
"""Absolute, whatever the unit of the metric."""
_NOISE = 1e-5
_ITERATIONS = 1001
_MOST_NODATA = 50.0


class TiedError(ValueError):
    """All observations are tied: there is no interval."""


class RankSum:
    """The rank sum of one series against another, at any shift: groups of equal values are counted once."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self.m, self.n = len(x), len(y)
        self.x, self.x_count = np.unique(x, return_counts=True)
        self.y, self.y_count = np.unique(y, return_counts=True)
        self.below = np.concatenate([[0], np.cumsum(self.y_count)])
        self.ties = float((self.x_count**3 - self.x_count).sum() + (self.y_count**3 - self.y_count).sum())

    def at(self, mu: float) -> float:
        """The standardised rank sum of `x - mu` against `y`, with ties and continuity correction."""
        moved = self.x - mu
        if (moved[1:] == moved[:-1]).any():  # values that rounding has made equal are ties as well
            return RankSum(np.repeat(moved, self.x_count), np.repeat(self.y, self.y_count)).at(0.0)
        m, n = self.m, self.n
        place = np.searchsorted(self.y, moved)
        equal = np.flatnonzero(self.y[np.minimum(place, len(self.y) - 1)] == moved)
        wins, ties = float(self.x_count @ self.below[place]), self.ties
        if len(equal):
            mine, theirs = self.x_count[equal], self.y_count[place[equal]]
            wins += 0.5 * float(mine @ theirs)
            ties += float((3 * mine * theirs * (mine + theirs)).sum())  # (a+b)^3 - a^3 - b^3
        centred = wins - m * n / 2
        variance = m * n / 12 * ((m + n + 1) - ties / ((m + n) * (m + n - 1)))
        if variance <= 0:
            raise TiedError("cannot compute a confidence interval when all observations are tied")
        correction = 0.5 if centred > 0 else -0.5 if centred < 0 else 0.0
        return (centred - correction) / math.sqrt(variance)


def brent_root(low: float, high: float, f_low: float, f_high: float, f: Callable[[float], float]) -> float:
    """Brent's method (Algorithms for Minimization Without Derivatives, 1973, chapter 4) with the judge's absolute tolerance."""
    if f_low == 0.0:
        return low
    if f_high == 0.0:
        return high
    before, now, other = low, high, low
    f_before, f_now, f_other = f_low, f_high, f_low
    for _ in range(_ITERATIONS):
        last = now - before
        if abs(f_other) < abs(f_now):
            before, now, other = now, other, now
            f_before, f_now, f_other = f_now, f_other, f_now
        least = 2 * np.finfo(float).eps * abs(now) + _TOLERANCE / 2
        step = (other - now) / 2
        if abs(step) <= least or f_now == 0.0:
            return now
        if abs(last) >= least and abs(f_before) > abs(f_now):
            step = _interpolated(before, now, other, f_before, f_now, f_other, last, least, step)
        if abs(step) < least:
            step = math.copysign(least, step) if step != 0 else -least
        before, f_before = now, f_now
        now += step
        f_now = f(now)
        if f_now * f_other > 0:
            other, f_other = before, f_before
    return now


def _interpolated(a: float, b: float, c: float, fa: float, fb: float, fc: float, last: float, least: float, bisected: float) -> float:
    """The step by secant or inverse quadratic interpolation if it is safe, else `bisected`."""
    width, s = c - b, fb / fa
    if a == c:
        p, q = width * s, 1 - s
    else:
        q0, r = fa / fc, fb / fc
        p = s * (width * q0 * (q0 - r) - (b - a) * (r - 1))
        q = (q0 - 1) * (r - 1) * (s - 1)
    p, q = (p, -q) if p > 0 else (-p, q)
    if p < 0.75 * width * q - abs(least * q) / 2 and p < abs(last * q / 2):
        return p / q
    return bisected


@dataclass(frozen=True)
class Interval:
    """Confidence interval and Hodges-Lehmann estimate of the shift of `x` against `y`."""

    low: float
    high: float
    estimate: float


def mann_whitney(x: Floats, y: Floats, confidence: float) -> Interval:
    """The interval of the normal approximation: roots of the standardised rank sum, clipped to the ends where there is none."""
    least, most = float(x.min() - y.max()), float(x.max() - y.min())
    quantile, ranks = float(stats.norm.ppf((1 - confidence) / 2)), RankSum(x, y)
    first, last = ranks.at(least), ranks.at(most)

    def root(at: float, *, clip: bool) -> float:
        f_low, f_high = first - at, last - at
        if clip and f_low <= 0:
            return least
        if clip and f_high >= 0:
            return most
        return brent_root(least, most, f_low, f_high, lambda mu: ranks.at(mu) - at)

    return Interval(root(-quantile, clip=True), root(quantile, clip=True), root(0.0, clip=False))


def mean_ratio(experiment: Floats, control: Floats) -> float:
    """mean(experiment)/mean(control); NaN when one of them is 0."""
    top, bottom = (float(values.mean()) if len(values) else math.nan for values in (experiment, control))
    return math.nan if top == 0 or bottom == 0 else top / bottom


def common_language(experiment: Floats, control: Floats) -> float:
    """Vargha, Delaney (2000): how often a value of `experiment` exceeds one of `control`, ties counted half."""
    m, n = len(experiment), len(control)
    ranks = stats.rankdata(np.concatenate([experiment, control]))
    return (2 * float(ranks[:m].sum()) - m * (m + 1)) / (2 * n * m)


def cohen_d(experiment: Floats, control: Floats) -> float:
    """The difference of the means in pooled standard deviations."""
    m, n = len(experiment), len(control)
    pooled = math.sqrt(((m - 1) * experiment.var(ddof=1) + (n - 1) * control.var(ddof=1)) / (m + n - 2))
    return abs(float(experiment.mean() - control.mean())) / pooled


@dataclass(frozen=True)
class Classification:
    """What one metric shows. `deviation` is the ratio of the means for the report."""

    label: str
    critical: bool = False
    deviation: float = 1.0
    reason: str = ""


@dataclass(frozen=True)
class Judge:
    """The settings of one metric; the defaults are the judge's own. Thresholds are (allowed decrease, allowed increase) of the effect."""

    tolerance: float = 0.25
    confidence: float = 0.98
    effect: tuple[float, float] = (1.0, 1.0)
    critical_effect: tuple[float, float] = (1.0, 1.0)
    measure: str = "meanRatio"
    direction: str = "either"
    replace_nan: bool = False
    critical: bool = False
    required: bool = False
    noise: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def classify(self, experiment: Floats, control: Floats) -> Classification:
        """Compare two series that hold no NaN."""
        if len(experiment) == 0 or len(control) == 0:
            return self._without_data()
        if np.array_equal(np.sort(experiment), np.sort(control)):
            return Classification(PASS, reason="the data are identical")
        both = np.concatenate([experiment, control])
        if len(np.unique(both)) == 1:
            return Classification(PASS)
        try:
            return self._compared(experiment, control)
        except TiedError as error:
            return Classification(ERROR, reason=str(error))

    def _without_data(self) -> Classification:
        if self.replace_nan:
            return Classification(PASS)
        if self.required and not self.critical:
            return Classification(NODATA_FAIL, reason="missing data")
        return Classification(NODATA, critical=self.critical, reason="missing data")

    def _compared(self, experiment: Floats, control: Floats) -> Classification:
        if len(np.unique(experiment)) == 1 and len(np.unique(control)) == 1:
            experiment, control = self._noisy(experiment), self._noisy(control)
        found = mann_whitney(experiment, control, self.confidence)
        bound = self.tolerance * abs(found.estimate)
        deviation = mean_ratio(experiment, control)
        size = common_language(experiment, control) if self.measure == "cles" else deviation
        label, side = PASS, 0
        if self.direction in ("increase", "either") and found.low > bound and not size < self.effect[1]:
            label, side = HIGH, 1
        elif self.direction in ("decrease", "either") and found.high < -bound and not size > self.effect[0]:
            label, side = LOW, -1
        beyond = (side > 0 and not size < self.critical_effect[1]) or (side < 0 and not size > self.critical_effect[0])
        return Classification(label, critical=self.critical and beyond, deviation=deviation, reason=label if side else "")

    def _noisy(self, values: Floats) -> Floats:
        return values + self.noise.normal(0.0, 1.0, len(values)) * abs(float(values[0])) * _NOISE


def classify_by_mean(experiment: Floats, control: Floats) -> Classification:
    """The judge's simple alternative: whichever mean is larger."""
    if len(experiment) == 0 or len(control) == 0:
        return Classification(NODATA)
    if np.array_equal(experiment, control):
        return Classification(PASS)
    ratio = float(experiment.mean() / control.mean())
    return Classification(HIGH if ratio > 1 else LOW if ratio < 1 else PASS, deviation=ratio)


def percentile(values: Floats, p: float) -> float:
    """Type 7 of Hyndman and Fan: linear between order statistics."""
    return float(np.percentile(values, p)) if len(values) else math.nan


def outliers_iqr(values: Floats, factor: float, *, reduced: bool = False) -> Bools:
    """Beyond `factor` interquartile ranges from the quartiles; `reduced` never calls the middle 98 % outliers."""
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    p25, p75 = percentile(values, 25), percentile(values, 75)
    low, high = p25 - factor * (p75 - p25), p75 + factor * (p75 - p25)
    if reduced:
        low, high = min(low, percentile(values, 1)), max(high, percentile(values, 99))
    return (values < low) | (values > high)


def outliers_sigma(values: Floats, factor: float) -> Bools:
    """More than `factor` standard deviations from the mean."""
    if len(values) < 2:
        return np.zeros(len(values), dtype=bool)
    return np.abs(values - values.mean()) > factor * values.std(ddof=1)


def without_nan(values: Floats) -> Floats:
    """The values that are numbers."""
    return values[~np.isnan(values)]


def zero_for_nan(values: Floats) -> Floats:
    """Zero in place of what is missing."""
    return np.nan_to_num(values, nan=0.0)


def summary(values: Floats) -> dict[str, float]:
    """min, max, mean, std (n-1) and count; zeros when empty."""
    if len(values) == 0:
        return dict.fromkeys(("min", "max", "mean", "std", "count"), 0.0)
    std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean()), "std": std, "count": float(len(values))}


@dataclass(frozen=True)
class Metric:
    """One metric's classification on its way to the score."""

    label: str
    groups: Sequence[str]
    critical: bool = False
    muted: bool = False


def score(metrics: Sequence[Metric], weights: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The score of 0 to 100 and that of each group; unlisted groups share the weight that is left."""
    heard = [metric for metric in metrics if not metric.muted]
    groups: dict[str, Counter[str]] = {}
    for metric in heard:
        for name in metric.groups:
            groups.setdefault(name, Counter())[metric.label] += 1
    judged = {name: sum(labels[label] for label in (PASS, HIGH, LOW, NODATA_FAIL)) for name, labels in groups.items()}
    scores = {name: 100 * labels[PASS] / judged[name] if judged[name] else 0.0 for name, labels in groups.items()}
    if any(metric.critical and metric.label != PASS for metric in heard):
        return 0.0, scores
    if heard and 100 * sum(metric.label == NODATA for metric in heard) / len(heard) >= _MOST_NODATA:
        return 0.0, scores
    unlisted = [name for name in groups if name not in weights]
    left = (100 - sum(weights.values())) / len(unlisted) if unlisted else 0.0
    total = sum((scores[name] if judged[name] else 100.0) * weights.get(name, left) / 100 for name in groups)
    return math.floor(total * 100 + 0.5) / 100, scores


def passed(final: float, marginal: float | None, least: float | None) -> bool:
    """Whether the whole analysis passes: the final score reaches `least`, else `marginal`, else anything."""
    wanted = least if least is not None else marginal if marginal is not None else 0.0
    return final >= wanted
