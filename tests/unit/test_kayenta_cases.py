"""The benchmark's Kayenta is Kayenta: the cases that its own tests check, and a few made by hand.

The upstream cases are not part of this repository. `DEPLOYGUARD_DATA=DIR` names the folder that holds `kayenta_cases.json`; without it
they are skipped.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="the benchmarks' extra is not installed")
from benchmarks.decisions.peers import kayenta_judge as kayenta  # noqa: E402 - needs numpy

FOLDER = os.environ.get("DEPLOYGUARD_DATA")
CHECKS = 92


def upstream(kind: str) -> list[Any]:
    """The cases of one kind, or one skipped test that says what is missing."""
    if not FOLDER:
        why = f"the upstream Kayenta cases ({kind}) were not checked: set DEPLOYGUARD_DATA to the folder of kayenta_cases.json"
        return [pytest.param(None, marks=pytest.mark.skip(reason=why), id="absent")]
    cases = json.loads((Path(FOLDER) / "kayenta_cases.json").read_text(encoding="utf-8"))[kind]
    return [pytest.param(case, id=str(case.get("name", number))) for number, case in enumerate(cases)]


def values(found: list[Any]) -> Any:
    return np.array([float(value) for value in found])


def same(found: float, expected: Any, tolerance: float = 1e-9) -> None:
    assert found == pytest.approx(float(expected), abs=tolerance, nan_ok=True)


@pytest.mark.parametrize("case", upstream("classifier"))
def test_upstream_classifier(case: dict[str, Any]) -> None:
    """The classification of a metric, whether it is critical, and its deviation."""
    call, params = case["call"], case.get("params", {})
    experiment, control = values(case["experiment"]), values(case["control"])
    if case["classifier"] == "MeanInequality":
        found = kayenta.classify_by_mean(experiment, control)
    else:
        judge = kayenta.Judge(
            tolerance=params["tolerance"],
            confidence=params["confLevel"],
            effect=tuple(params["effectSizeThresholds"]),
            critical_effect=tuple(params["criticalThresholds"]),
            measure=params["effectSizeMeasure"],
            direction=call["direction"],
            replace_nan=call["nanStrategy"] == "replace",
            critical=call["isCriticalMetric"],
            required=call["isDataRequired"],
        )
        found = judge.classify(experiment, control)
    expected = case["expected"]
    assert found.label == expected.get("classification", found.label)
    assert found.critical == expected.get("critical", found.critical)
    assert bool(found.reason) or not expected.get("reason_nonempty")
    if "deviation" in expected:
        same(found.deviation, expected["deviation"])


@pytest.mark.parametrize("case", upstream("scorer"))
def test_upstream_scorer(case: dict[str, Any]) -> None:
    """The score of many metrics and of their groups."""
    metrics = [kayenta.Metric(one["classification"], one["groups"], one["critical"], one["muted"]) for one in case["results"]]
    total, groups = kayenta.score(metrics, case["groupWeights"])
    same(total, case["expected"]["summaryScore"])
    if "groupScoresSorted" in case["expected"]:
        assert sorted(groups.values()) == case["expected"]["groupScoresSorted"]


@pytest.mark.parametrize("case", upstream("mannwhitney"))
def test_upstream_mann_whitney(case: dict[str, Any]) -> None:
    """The standardised rank sum, its roots, and the quantile."""
    expected, tolerance = case["expected"], case["tol"]
    if case["function"].startswith("norm"):
        same(float(kayenta.stats.norm.ppf(0.02 / 2)), expected, tolerance)
    elif isinstance(expected, list):
        for one in expected:
            same(kayenta.RankSum(values(case["x"]), values(case["y"])).at(one["mu"]) - one["quantile"], one["value"], tolerance)
    elif "ci_low" in expected:
        found = kayenta.mann_whitney(values(case["experiment"]), values(case["control"]), case["confidenceLevel"])
        for name, value in (("ci_low", found.low), ("ci_high", found.high), ("estimate", found.estimate)):
            same(value, expected[name], tolerance[name])
    else:
        intermediates(values(case["x"]), values(case["y"]), case["confidenceLevel"], expected, tolerance)


def intermediates(x: Any, y: Any, confidence: float, expected: dict[str, float], tolerance: float) -> None:
    """Every number on the way to the interval, and the roots without clipping."""
    least, most = float(x.min() - y.max()), float(x.max() - y.min())
    quantile, ranks = float(kayenta.stats.norm.ppf((1 - confidence) / 2)), kayenta.RankSum(x, y)
    same(least, expected["rMumin"], tolerance)
    same(most, expected["rMumax"], tolerance)
    for sign, name in ((-1, "1"), (1, "2")):
        same(sign * quantile, expected["rZqLower" if sign < 0 else "rZqUpper"], tolerance)
        same(ranks.at(least) - sign * quantile, expected[f"rFlower{name}"], tolerance)
        same(ranks.at(most) - sign * quantile, expected[f"rFupper{name}"], tolerance)
    for at, name in ((-quantile, "rCil"), (quantile, "rCiu"), (0.0, "rEst")):
        ends = (ranks.at(end) - at for end in (least, most))
        same(kayenta.brent_root(least, most, *ends, lambda mu, at=at: ranks.at(mu) - at), expected[name], tolerance)


@pytest.mark.parametrize("case", upstream("detector"))
def test_upstream_detector(case: dict[str, Any]) -> None:
    """Which points are outliers."""
    assert outliers(case, values(case["data"])).tolist() == case["expected_outlier"]


def outliers(named: dict[str, Any], data: Any) -> Any:
    if "IQR" in (named.get("detector") or named["name"]):
        return kayenta.outliers_iqr(data, named["factor"], reduced=named.get("reduceSensitivity", False))
    return kayenta.outliers_sigma(data, named["factor"])


@pytest.mark.parametrize("case", upstream("transform"))
def test_upstream_transform(case: dict[str, Any]) -> None:
    """What is left when missing values and outliers are taken out."""
    data = values(case["data"])
    if case["op"] == "removeOutliers":
        found = data[~outliers({"detector": None, **case["detector"]}, data)]
    else:
        found = kayenta.without_nan(data) if case["op"] == "removeNaNs" else kayenta.zero_for_nan(data)
    assert found.tolist() == case["expected"]


@pytest.mark.parametrize("case", upstream("statistic"))
def test_upstream_statistic(case: dict[str, Any]) -> None:
    """Descriptive statistics and effect sizes."""
    if case["function"].startswith("summary"):
        found = kayenta.summary(values(case["data"]))
        for name, value in case["expected"].items():
            same(found[name], value, case["tol"])
    elif case["function"].startswith("percentile"):
        for one in case["expected"]:
            same(kayenta.percentile(values(case["data"]), one["p"]), one["value"], one["tol"])
    else:
        effect = {"meanRatio": kayenta.mean_ratio, "cohenD": kayenta.cohen_d, "cles": kayenta.common_language}[case["function"]]
        same(effect(values(case["experiment"]), values(case["control"])), case["expected"], case.get("tol", 0.0))


@pytest.mark.parametrize("case", upstream("aggregate"))
def test_upstream_aggregate(case: dict[str, Any]) -> None:
    """Whether the whole analysis passes."""
    assert kayenta.passed(case["finalScore"], case["marginal"], case["pass"]) == case["didPass"]


@pytest.mark.parametrize("case", upstream("reported_shortcomings"))
def test_reported_shortcomings_are_kept(case: dict[str, Any]) -> None:
    """The judge passes what its users reported as wrong; the benchmark may not be kinder or harsher."""
    params = case["params"]
    judge = kayenta.Judge(params["tolerance"], params["confLevel"], tuple(params.get("effectSizeThresholds", (1.0, 1.0))))
    assert judge.classify(values(case["experiment"]), values(case["control"])).label == case["port_result"]


@pytest.mark.skipif(
    not FOLDER, reason="the upstream Kayenta cases were not counted: set DEPLOYGUARD_DATA to the folder of kayenta_cases.json"
)
def test_all_upstream_cases_are_there() -> None:
    """No case is lost between the file and the tests: one of them checks two values."""
    cases = json.loads((Path(FOLDER or "") / "kayenta_cases.json").read_text(encoding="utf-8"))
    kinds = ("classifier", "scorer", "mannwhitney", "detector", "transform", "statistic", "aggregate")
    assert sum(len(cases[kind]) for kind in kinds) + 1 == CHECKS


STEADY = [1.0, 1.2, 0.9, 1.1, 1.05, 0.95]
"""Made by hand, for those without the folder."""


@pytest.mark.parametrize(
    ("experiment", "control", "label"),
    [
        ([3.0, 3.2, 2.9, 3.1, 3.05, 2.95], STEADY, "High"),
        (STEADY, [3.0, 3.2, 2.9, 3.1, 3.05, 2.95], "Low"),
        (STEADY[::-1], STEADY, "Pass"),
        ([], STEADY, "Nodata"),
        ([2.0] * 5, [2.0] * 7, "Pass"),
        ([9.0] * 5, [1.0] * 5, "High"),
        ([0.0, 1.0, 2.0, 1.0, 0.0, 0.0], [0.0] * 6, "Pass"),
    ],
)
def test_made_by_hand_classifications(experiment: list[float], control: list[float], label: str) -> None:
    """Separate series differ, equal ones do not, none is no data, two constants differ, and sparse errors are missed."""
    assert kayenta.Judge().classify(values(experiment), values(control)).label == label


def test_interval_by_counting_pairs() -> None:
    """For well separated series the estimate is a median of the pairwise differences, to the root finder's tolerance."""
    x, y = values([10.0, 20.0, 30.0, 41.0]), values([1.0, 2.0, 3.0])
    found = kayenta.mann_whitney(x, y, 0.95)
    pairs = sorted(float(a - b) for a in x for b in y)
    assert found.low < found.estimate < found.high
    assert pairs[5] - 1e-4 <= found.estimate <= pairs[6] + 1e-4


def test_made_by_hand_scores() -> None:
    """A critical failure or half the metrics without data score 0, muted ones count for nothing, a group with only Error scores 100."""
    one = kayenta.Metric
    good, bad, none = one("Pass", ["a"]), one("High", ["a"]), one("Nodata", ["b"])
    assert kayenta.score([good, bad], {}) == (50.0, {"a": 50.0})
    assert kayenta.score([good, one("High", ["a"], critical=True)], {})[0] == 0.0
    assert kayenta.score([good, none], {})[0] == 0.0
    assert kayenta.score([good, one("High", ["a"], muted=True)], {})[0] == 100.0
    assert kayenta.score([one("Error", ["a"])], {})[0] == 100.0
    assert kayenta.score([good, good, bad, one("Pass", ["b"])], {"a": 40})[0] == 86.67
    assert kayenta.score([one("NodataFailMetric", ["a"]), good], {})[0] == 50.0


def test_outliers_reduced() -> None:
    """With reduced sensitivity a point within the middle 98 % is never an outlier."""
    data = values([1.0] * 90 + [5.0] * 10)
    assert kayenta.outliers_iqr(data, 3.0).sum() == 10
    assert kayenta.outliers_iqr(data, 3.0, reduced=True).sum() == 0
    assert math.isnan(kayenta.mean_ratio(data, values([0.0])))
