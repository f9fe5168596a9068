"""Answers what is written down, so that a policy can be tried on an hour of trouble in a millisecond.

Counting series hold *increments*, what came in each poll, because that is how people think of traffic. The source deals them out to
the instances that serve, and shows for each of them the counters that its metrics page would show: they begin at zero with the process
and end with it. What a gap or a NaN hides is not known and counts as nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deployguard.model.reading import Answer, Buckets, Counter, Counters, Gauges, Missing, Run, Runs
from deployguard.model.target import STABLE, Arm, Instance

_KEPT = 64
Series = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is written down of one arm, poll by poll: columns of equal length, by stratum (`""` when there are none).

    Columns are bad and total requests, requests by category with the upper bounds `edges`, or the value of a gauge. Bad requests are
    dealt out in clumps of `clump`; `lost` is the share of the single instances' scrapes that do not come.
    """

    parts: Mapping[str, tuple[Series, ...]]
    edges: tuple[float, ...] = ()
    clump: int = 1
    lost: float = 0.0

    def absent(self, poll: int) -> Missing | None:
        """Why the arm says nothing at that poll; None when it does."""
        missing = (_absent(column, poll) for columns in self.parts.values() for column in columns)
        return next((found for found in missing if found is not None), None)


class ReplaySource:
    """The numbers of one check, as written down."""

    def __init__(
        self, start: dt.datetime, interval: dt.timedelta, kind: Literal["counts", "categories", "gauge"], arms: Mapping[Arm, Recorded]
    ) -> None:
        """The first value of each column belongs to the poll at `start`. An arm that is not there has no instance."""
        self._start, self._interval, self._kind, self._arms = start, interval, kind, arms
        self._counted: dict[tuple[str, str], list[float]] = {}
        self._through: dict[Arm, int] = {}
        self._turn: dict[tuple[Arm, str, int], int] = {}

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:  # noqa: ARG002
        """What the arm's instances show at the last poll at or before `now`; the arm counts from its first read on."""
        recorded = self._arms.get(arm)
        running = tuple(one for one in instances if one.started is not None)
        if recorded is None or not running:
            return Missing("no_instance", f"no series for the {arm} arm" if recorded is None else f"the {arm} arm has no started instance")
        poll = (now - self._start) // self._interval
        before = self._through.setdefault(arm, poll - 1)
        if (absent := recorded.absent(poll)) is not None:
            return absent
        serving = tuple(one.uid for one in running if one.ready) or tuple(one.uid for one in running)
        if self._kind != "gauge":
            for number in range(before + 1, poll + 1):
                self._count(arm, recorded, number, serving)
        self._through[arm] = max(poll, before)
        heard = tuple(one for place, one in enumerate(running) if not _lost(recorded.lost, poll, place))
        if not _speaks(arm, running, heard):
            return Missing("timeout", f"{len(heard)} of {len(running)} instances read")
        return self._reading(recorded, poll, now, heard, tuple(one.uid for one in running if one not in heard))

    def reset(self, uids: Iterable[str]) -> None:
        """The counters of these instances are at zero, although their processes are not new."""
        gone = set(uids)
        for (_, uid), sums in self._counted.items():
            if uid in gone:
                sums[:] = [0.0] * len(sums)

    def close(self) -> None:
        """Nothing is kept running."""

    def _reading(self, recorded: Recorded, poll: int, now: dt.datetime, heard: tuple[Instance, ...], unread: tuple[str, ...]) -> Answer:
        born = {one.uid: one.started for one in heard if one.started is not None}
        if self._kind == "gauge":
            value = recorded.parts[""][0][poll]
            assert value is not None
            return Gauges(now, {uid: float(value) for uid in born}, born, unread)
        shown = {name: {uid: self._sums(name, uid, len(columns)) for uid in born} for name, columns in recorded.parts.items()}
        if self._kind == "categories":
            return Buckets(now, recorded.edges, {uid: tuple(sums) for uid, sums in shown[""].items()}, born, unread)
        strata = {name: {uid: Counter(sums[0], sums[1]) for uid, sums in by.items()} for name, by in shown.items()}
        if "" in strata:
            return Counters(now, strata[""], born, unread)
        whole = {uid: Counter(sum(by[uid].bad for by in strata.values()), sum(by[uid].total for by in strata.values())) for uid in born}
        return Counters(now, whole, born, unread, strata)

    def _sums(self, part: str, uid: str, columns: int) -> list[float]:
        return self._counted.setdefault((part, uid), [0.0] * columns)

    def _count(self, arm: Arm, recorded: Recorded, poll: int, serving: tuple[str, ...]) -> None:
        """What came in that poll has been dealt out to the instances that serve."""
        for name, columns in recorded.parts.items():
            if any(_absent(column, poll) for column in columns):
                continue
            # The last column first: of the counts it is the total, within which the bad ones must fit.
            shares = [self._dealt((arm, name, n), columns[n][poll] or 0.0, 1, len(serving)) for n in range(1, len(columns))]
            first = self._dealt((arm, name, 0), columns[0][poll] or 0.0, recorded.clump, len(serving))
            shares = [_within(first, shares[0]) if self._kind == "counts" else first, *shares]
            for place, uid in enumerate(serving):
                sums = self._sums(name, uid, len(columns))
                for n, share in enumerate(shares):
                    sums[n] += share[place]

    def _dealt(self, whose: tuple[Arm, str, int], amount: float, clump: int, hands: int) -> list[float]:
        """`amount` in clumps, dealt out in turn; what is less than a clump is the next one's."""
        clumps, rest = divmod(amount, clump)
        each, more = divmod(int(clumps), hands)
        turn = self._turn.get(whose, 0)
        shares = [float(each * clump)] * hands
        for n in range(more):
            shares[(turn + n) % hands] += clump
        turn += more
        if rest:
            shares[turn % hands] += rest
            turn += 1
        self._turn[whose] = turn % hands
        return shares


def _within(bad: list[float], total: list[float]) -> list[float]:
    """The same number of bad requests, none of them on an instance that did not serve it."""
    over = 0.0
    for place, room in enumerate(total):
        over += max(bad[place] - room, 0.0)
        bad[place] = min(bad[place], room)
    for place, room in enumerate(total):
        more = min(over, room - bad[place])
        bad[place] += more
        over -= more
    return bad


def _lost(share: float, poll: int, place: int) -> bool:
    """Whether a scrape is lost: irregularly, as by chance, and the same in every play."""
    return share > 0 and int.from_bytes(hashlib.blake2b(f"{poll}/{place}".encode(), digest_size=6).digest()) < share * 2**48


def _speaks(arm: Arm, running: tuple[Instance, ...], heard: tuple[Instance, ...]) -> bool:
    """As for metrics pages: any candidate says something, fewer than half of the stable instances are no control."""
    if arm != STABLE:
        return bool(heard)
    ready = sum(one.ready for one in running)
    return bool(heard) and 2 * sum(one.ready for one in heard) >= ready


class ReplayProbe:
    """Recorded walks: 1 is green, 0 is red, a gap is a poll without a walk."""

    def __init__(self, start: dt.datetime, interval: dt.timedelta, green: Mapping[Arm, Series]) -> None:
        """The first value of each series is the walk at `start`."""
        self._start, self._interval, self._green = start, interval, green

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:  # noqa: ARG002
        """The walks of the arm that ended after `through` and not after `now`, at most the last 64."""
        series = self._green.get(arm)
        if series is None:
            return Missing("no_instance", f"no series for the {arm} path")
        poll = (now - self._start) // self._interval
        if (absent := _absent(series, poll)) is not None:
            return absent
        runs = (self._run(n, series[n]) for n in range(max(0, poll - _KEPT + 1), poll + 1))
        return Runs(now, tuple(run for run in runs if run and (through is None or run.at > through)))

    def close(self) -> None:
        """Nothing is kept running."""

    def _run(self, poll: int, value: float | None) -> Run | None:
        if value is None or math.isnan(value):
            return None
        at = self._start + poll * self._interval
        return Run(at, True) if value else Run(at, False, step="1 replay", detail="recorded as red")


def _absent(series: Series, poll: int) -> Missing | None:
    """Why the series has no value at that poll; None when it has one."""
    if not 0 <= poll < len(series):
        return Missing("stale", "the series has not begun" if poll < 0 else "the series has ended")
    value = series[poll]
    if value is None:
        return Missing("stale", "a gap in the series")
    return Missing("nan", "NaN in the series") if math.isnan(value) else None
