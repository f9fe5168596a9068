"""Recorded gauges: processor and memory of services (Nezha), and series with labelled anomalies (NAB).

They have one series for each service, so a candidate can only be compared with what the same service did before: not concurrent. What
deployguard bets on, that a block above the tolerated ratio is no likelier than one below, need not hold here.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.decisions import rows as flat
from benchmarks.decisions.peers.kayenta import Kayenta
from benchmarks.decisions.rows import Row
from benchmarks.decisions.streams import NEVER, Floats, Ints
from deployguard.analysis import gauges
from deployguard.analysis.gauges import GaugeRules
from deployguard.model.evidence import GaugeEvidence
from deployguard.model.reading import Gauges
from deployguard.model.target import CANDIDATE, STABLE

HOUR = 60
"""Values of a window of Nezha's, one a minute."""
DAY = 288
"""Values of a day of NAB's, one each five minutes."""
NAB_LENGTH = 72
_BEGAN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
Pair = tuple[Floats, Floats]


class Signs:
    """deployguard's sign betting on gauges: each value is a block of its own, and is judged when the next one comes."""

    def __init__(self, ratio: float) -> None:
        self.rules = GaugeRules(True, ratio, 2.0, None, False, 0.01, 1.0, True, dt.timedelta())
        self.name = f"deployguard, gauge ratio {ratio:g}"

    def series(self, experiment: Floats, control: Floats) -> Ints:
        """For each row the column at which the evidence condemns, or NEVER."""
        return np.array([self._run(x, y) for x, y in zip(experiment, control, strict=True)])

    def _run(self, mine: Floats, theirs: Floats) -> int:
        evidence, now = GaugeEvidence(), _BEGAN
        for column, (x, y) in enumerate(zip(mine.tolist(), theirs.tolist(), strict=True)):
            answers = {CANDIDATE: Gauges(now, {"c": x}), STABLE: Gauges(now, {"s": y})}
            evidence = gauges.fold(evidence, answers, (CANDIDATE, STABLE), self.rules, now)
            now += gauges.BLOCK
            if gauges.worse_evidence(evidence) >= np.log(100):
                return column
        return NEVER


def gauge_rows(folder: Path) -> list[Row]:
    """The rows of Nezha's and NAB's gauges; a file that is not there is said and passed over."""
    found: list[Row] = []
    nezha, series, windows = (folder / name for name in ("nezha_pod_metrics_1m.csv.gz", "nab_aws_known.csv.gz", "nab_windows.json"))
    if nezha.is_file():
        for column, ratio in (("CpuUsageRate(%)", 1.25), ("MemoryUsageRate(%)", 1.1)):
            found += _rows(f"Nezha {column} an hour against the next", True, list(nezha_pairs(nezha, column)), 60.0, ratio)
    else:
        print(f"NO RECORDED GAUGES: {folder} lacks {nezha.name}")
    if series.is_file() and windows.is_file():
        normal, odd = nab_pairs(series, windows)
        found += _rows("NAB: six hours against the same hours a day before", True, normal, 300.0, 1.25)
        found += _rows("NAB anomaly against the same hours a day before", False, odd, 300.0, 1.25)
    else:
        print(f"NO RECORDED ANOMALIES: {folder} lacks {series.name} or {windows.name}")
    return found


def _rows(stream: str, null: bool, pairs: Sequence[Pair], seconds: float, ratio: float) -> list[Row]:
    longest = max(len(x) for x, _ in pairs)
    experiment, control = (np.stack([np.pad(p[arm], (0, longest - len(p[arm])), constant_values=np.nan) for p in pairs]) for arm in (0, 1))
    made = []
    for name, alpha, polls in (
        (f"deployguard, gauge ratio {ratio:g}", 0.01, Signs(ratio).series(experiment, control)),
        ("Kayenta, each value", None, Kayenta().series(experiment, control)),
    ):
        nothing = np.zeros(experiment.shape, dtype=np.int64)
        result = flat.decided(polls, seconds, nothing, nothing)
        made.append(flat.row(result, stream=stream, null=null, rule=name, alpha=alpha, floor=None, family="real"))
    return made


def nezha_pairs(path: Path, column: str) -> Iterator[Pair]:
    """Each hour of a service's gauge against the hour before: (later, earlier)."""
    values: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if line[column]:
                values[line["date"], line["service"]].append((int(line["unix"]), float(line[column])))
    for _, mine in sorted(values.items()):
        series = np.array([value for _, value in sorted(mine)])
        for begin in range(0, len(series) - 2 * HOUR + 1, HOUR):
            yield series[begin + HOUR : begin + 2 * HOUR], series[begin : begin + HOUR]


def nab_pairs(path: Path, windows: Path) -> tuple[list[Pair], list[Pair]]:
    """Six hours against the same hours of the day before: stretches without any anomaly, and those that begin with one."""
    labelled = json.loads(windows.read_text(encoding="utf-8"))
    series: dict[str, list[tuple[dt.datetime, float]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            series[line["file"]].append((dt.datetime.fromisoformat(line["timestamp"]), float(line["value"])))
    normal: list[Pair] = []
    odd: list[Pair] = []
    for name, points in sorted(series.items()):
        at, values = [t for t, _ in points], np.array([value for _, value in points])
        marked = np.zeros(len(at), dtype=bool)
        for first, last in labelled.get(name, []):
            begin, end = dt.datetime.fromisoformat(first), dt.datetime.fromisoformat(last)
            inside = np.array([begin <= t <= end for t in at])
            where = int(inside.argmax())
            if inside.any() and where >= DAY:
                odd.append((values[where : where + NAB_LENGTH], values[where - DAY : where - DAY + NAB_LENGTH]))
            marked |= inside
        for begin in range(DAY, len(at) - NAB_LENGTH + 1, NAB_LENGTH):
            pair = slice(begin, begin + NAB_LENGTH), slice(begin - DAY, begin - DAY + NAB_LENGTH)
            if not marked[pair[0]].any() and not marked[pair[1]].any():
                normal.append((values[pair[0]], values[pair[1]]))
    return normal, odd
