"""Recorded data: latency of two microservice systems with injected faults (Nezha), and gauges (Nezha, NAB; see `real_gauges`).

Three kinds of pairs. Concurrent: every slot of a service is split between the arms at random, an exact null with the real ups and downs.
Faults: the injected service within three minutes of the injection against its fault-free slots of that day. Hard A/A: fault-free slots
against others of that day, which breaks concurrency on purpose.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decisions import rows as flat
from benchmarks.decisions.engine import BARE, NO_TOLERANCE, SHIPPED, Deployguard
from benchmarks.decisions.latency import Histograms
from benchmarks.decisions.peers.dkw import Bands
from benchmarks.decisions.peers.kayenta import Kayenta
from benchmarks.decisions.real_gauges import gauge_rows
from benchmarks.decisions.rows import Row
from benchmarks.decisions.streams import Ints

FIRST_BIN, LAST_BIN = 19, 100
BOUNDS = tuple(2 ** ((b + 1) / 4) / 1e6 for b in range(FIRST_BIN, LAST_BIN))
"""Bins are quarter octaves of microseconds: upper bounds in seconds of all but the last."""
SLOT, WATCHED = 10, 180
LEAST_MINE, LEAST_THEIRS = 5, 10
CLEAR_BEFORE, CLEAR_AFTER = 10, 400
"""A slot is fault-free from so many seconds after an injection until so many before the next."""
WINDOW = 36
"""Slots of a concurrent window; of a hard one, half as many are the candidate's."""


@dataclass(frozen=True)
class Fault:
    """What was injected where; `at` in seconds since 1970, time-stamp trap corrected."""

    date: str
    at: float
    service: str
    kind: str


@dataclass(frozen=True)
class Nezha:
    """The slots of each day and service in order of time: start, counts by bin, fault-free or not."""

    slots: dict[tuple[str, str], list[tuple[int, Ints, bool]]]
    faults: list[Fault]


class EveryTenSeconds:
    """Kayenta on the 95th percentile of every slot, as the recorded windows are too short for minutes."""

    name = "Kayenta, p95 each 10 s"

    def decide_latency(self, batch: Histograms) -> Ints:
        """The slot at which the judge ends it."""
        return Kayenta().decide_latency(batch, every=1)


RULES: tuple[tuple[Any, float | None], ...] = (
    *((Deployguard(settings), settings.alpha) for settings in (SHIPPED, NO_TOLERANCE, BARE)),
    (Bands(), 0.01),
    (EveryTenSeconds(), None),
)


def rows(folder: Path, *, quick: bool, seed: int) -> list[Row]:
    """The rows of all recorded data in `folder`; a file that is not there is said and passed over."""
    found: list[Row] = []
    names = ("nezha_service_hist10s.csv.gz", "nezha_faults.json")
    if all((folder / name).is_file() for name in names):
        data = nezha(*(folder / name for name in names))
        found += [*_concurrent(data, seed, 5 if quick else 1), *_detections(data, seed), *_hard(data, seed, 3 if quick else 1)]
    else:
        print(f"NO RECORDED LATENCY: {folder} lacks {' or '.join(names)}")
    return [*found, *gauge_rows(folder)]


def nezha(histograms: Path, faults: Path) -> Nezha:
    """Both files read and put in order."""
    injected = [_fault(one) for one in json.loads(faults.read_text(encoding="utf-8"))]
    counts: dict[tuple[str, str], dict[int, Ints]] = defaultdict(dict)
    calm: dict[tuple[str, str, int], bool] = {}
    with gzip.open(histograms, "rt", encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        for date, phase, _, service, start, category, count in reader:
            mine, at = counts[date, service], int(start)
            if at not in mine:
                mine[at] = np.zeros(LAST_BIN - FIRST_BIN + 1, dtype=np.int64)
                calm[date, service, at] = False
            mine[at][int(category) - FIRST_BIN] += int(count)
            calm[date, service, at] |= phase == "c"
    times: dict[str, list[float]] = defaultdict(list)
    for one in injected:
        times[one.date].append(one.at)

    def free(date: str, service: str, at: int) -> bool:
        return calm[date, service, at] or not any(t - CLEAR_BEFORE <= at < t + CLEAR_AFTER for t in times[date])

    return Nezha({key: [(at, mine[at], free(*key, at)) for at in sorted(mine)] for key, mine in sorted(counts.items())}, injected)


def _fault(one: dict[str, Any]) -> Fault:
    """One injection. Some time stamps are eight hours early: where the written time, read as UTC, is far from the stamp, it is right."""
    written = dt.datetime.fromisoformat(one["inject_time_utc_or_local"]).replace(tzinfo=dt.UTC).timestamp()
    stamped = float(one["inject_timestamp"])
    return Fault(one["date"], written if abs(written - stamped) > 3600 else stamped, one["service"], one["type"])


def batch(mine: Sequence[Sequence[Ints]], theirs: Sequence[Sequence[Ints]], before: Sequence[Sequence[Ints]], share: float) -> Histograms:
    """Runs of different lengths as one batch, the missing slots without requests. `before` is stable's history."""

    def padded(found: Sequence[Sequence[Ints]]) -> Ints:
        longest = max(1, *(len(one) for one in found))
        full = np.zeros((len(found), longest, LAST_BIN - FIRST_BIN + 1), dtype=np.int64)
        for run, one in enumerate(found):
            if len(one):
                full[run, : len(one)] = np.stack(one)
        return full

    return Histograms(BOUNDS, share, float(SLOT), padded(mine), padded(theirs), padded(before)[:, :, None, :])


def _rows(stream: str, null: bool, found: Histograms, share: float) -> list[Row]:
    made = []
    for rule, alpha in RULES:
        polls = rule.decide_latency(found)
        mine = found.h1.sum(axis=2)
        result = flat.decided(polls, found.seconds, mine + found.h0.sum(axis=2), mine)
        made.append(flat.row(result, stream=stream, null=null, rule=rule.name, alpha=alpha, floor=None, family="real", about={"w": share}))
    return made


def _concurrent(data: Nezha, seed: int, thin: int) -> list[Row]:
    """Windows of six minutes, each slot split by the hypergeometric law; the window before is the history."""
    made = []
    for share in (0.05, 0.2, 0.5):
        rng = np.random.default_rng([seed, round(100 * share)])
        runs: list[tuple[list[Ints], list[Ints], list[Ints]]] = []
        for slots in data.slots.values():
            for begin in range(WINDOW, len(slots) - WINDOW + 1, WINDOW):
                whole = [counts for _, counts, _ in slots[begin : begin + WINDOW]]
                given = [rng.multivariate_hypergeometric(counts, rng.binomial(counts.sum(), share)) for counts in whole]
                rest = [counts - one for counts, one in zip(whole, given, strict=True)]
                runs.append((given, rest, [counts for _, counts, _ in slots[begin - WINDOW : begin]]))
        chosen = runs[::thin]
        made += _rows(f"Nezha A/A, concurrent split, w={share:.0%}", True, batch(*zip(*chosen, strict=True), share), share)
    return made


def _detections(data: Nezha, seed: int) -> list[Row]:
    """Each fault with enough slots, by kind and all together."""
    rng = np.random.default_rng([seed, 1])
    runs: dict[str, list[tuple[list[Ints], list[Ints], list[Ints]]]] = defaultdict(list)
    for fault in data.faults:
        slots = data.slots.get((fault.date, fault.service), [])
        mine = [counts for at, counts, _ in slots if fault.at <= at < fault.at + WATCHED]
        theirs = [counts for _, counts, free in slots if free]
        if len(mine) >= LEAST_MINE and len(theirs) >= LEAST_THEIRS:
            pair = _against(mine, theirs, rng)
            runs[fault.kind].append(pair)
            runs["all kinds"].append(pair)
    made = []
    for kind, some in sorted(runs.items()):
        made += _rows(f"Nezha fault: {kind}", False, batch(*zip(*some, strict=True), 0.5), 0.5)
    return made


def _against(mine: list[Ints], theirs: list[Ints], rng: np.random.Generator) -> tuple[list[Ints], list[Ints], list[Ints]]:
    """The candidate's slots, as many sums of stable's beside them drawn at random, and the rest of stable's in order of time as history."""
    beside = max(len(theirs) // 2, min(len(theirs), len(mine)))
    each = max(beside // len(mine), 1)
    drawn = rng.permutation(len(theirs))[: each * len(mine)]
    sums = [np.sum([theirs[n] for n in drawn[k * each : (k + 1) * each]], axis=0) for k in range(len(mine)) if k * each < len(drawn)]
    sums += [np.zeros_like(mine[0])] * (len(mine) - len(sums))
    rest = sorted(set(range(len(theirs))) - set(drawn.tolist()))
    return mine, sums, [theirs[n] for n in rest]


def _hard(data: Nezha, seed: int, thin: int) -> list[Row]:
    """Eighteen fault-free slots in a row against other fault-free slots of the day: not concurrent, and so not guaranteed."""
    rng = np.random.default_rng([seed, 2])
    runs = []
    for slots in data.slots.values():
        free = [counts for _, counts, calm in slots if calm]
        for begin in range(0, len(free) - WINDOW // 2 + 1, WINDOW // 2):
            mine, theirs = free[begin : begin + WINDOW // 2], free[:begin] + free[begin + WINDOW // 2 :]
            if len(theirs) >= LEAST_THEIRS:
                runs.append(_against(mine, theirs, rng))
    return _rows("Nezha hard A/A, not concurrent", True, batch(*zip(*runs[::thin], strict=True), 0.5), 0.5)
