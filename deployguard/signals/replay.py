"""Answers recorded numbers, so that a policy can be tried on an hour of trouble in a millisecond.

Series are written in promtool's notation, a value per poll: `1+2x3` is 1 3 5 7, `10-2x2` is 10 8 6, `5x2` is 5 5 5, `_` is
a gap, `_x4` are four gaps, `NaN` and `stale` are themselves. The values of a counting series are *increments*, what came
in that poll, because that is how people think of traffic; the source adds them up into the counters that a server would
show. What a gap or a NaN hides is not known and counts as nothing.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from itertools import accumulate

from deployguard.errors import UserError
from deployguard.model.reading import Answer, Counter, Counters, Missing, Run, Runs
from deployguard.model.target import Arm, Instance

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RAMP = re.compile(rf"({_NUMBER})(?:([+-](?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))?(?:x(\d+))?")
_GAPS = re.compile(r"_(?:x(\d+))?")
_LONGEST = 1_000_000
_KEPT = 64
Series = list[float | None]


def parse_series(text: str) -> Series:
    """The values that `text` writes, None for a gap. Raises ValueError naming the piece that does not parse."""
    values: Series = []
    for piece in text.split():
        values += _piece(piece, _LONGEST - len(values))
    return values


def _piece(piece: str, room: int) -> Series:
    if piece.lower() == "nan":
        found: Series = [math.nan]
    elif piece == "stale":
        found = [None]
    elif match := _GAPS.fullmatch(piece):
        found = [None] * min(int(match[1] or 1), room + 1)
    elif (match := _RAMP.fullmatch(piece)) and (match[3] or not match[2]):
        first, by, more = float(match[1]), float(match[2] or 0), int(match[3] or 0)
        found = [first + by * n for n in range(min(more + 1, room + 1))]
    else:
        raise ValueError(f"`{piece}` is not a piece of a series; write `5`, `1+2x10`, `1-2x10`, `5x10`, `_`, `_x10`, `NaN` or `stale`")
    if len(found) > room:
        raise ValueError(f"`{piece}` makes the series longer than {_LONGEST} values")
    return found


class ReplaySource:
    """Recorded counts, one synthetic instance per arm, whose uid is `replay-` and the arm's name."""

    def __init__(self, start: dt.datetime, interval: dt.timedelta, total: Mapping[Arm, str], bad: Mapping[Arm, str]) -> None:
        """The first value of each series belongs to the poll at `start`. Raises `UserError` for a series that cannot be read.

        An arm without a `bad` series had no bad requests.
        """
        self._start, self._interval = start, interval
        self._total = {arm: _counting(f"total of {arm}", text) for arm, text in total.items()}
        self._bad = {arm: _counting(f"bad of {arm}", text) for arm, text in bad.items()}
        self._sums = {id(series): _sums(series) for series in (*self._total.values(), *self._bad.values())}

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:  # noqa: ARG002
        """The arm's counters as they stood at the last poll at or before `now`."""
        if arm not in self._total:
            return Missing("no_instance", f"no series for the {arm} arm")
        poll = (now - self._start) // self._interval
        total = self._at(self._total[arm], poll)
        bad = self._at(self._bad[arm], poll) if arm in self._bad else 0.0
        for value in (total, bad):
            if isinstance(value, Missing):
                return value
        assert isinstance(total, float)
        assert isinstance(bad, float)
        uid = f"replay-{arm}"
        return Counters(now, {uid: Counter(min(bad, total), total)}, {uid: self._start})

    def close(self) -> None:
        """Nothing is kept running."""

    def _at(self, series: Series, poll: int) -> float | Missing:
        absent = _absent(series, poll)
        return absent if absent is not None else self._sums[id(series)][poll]


class ReplayProbe:
    """Recorded walks: 1 is green, 0 is red, a gap is a poll without a walk."""

    def __init__(self, start: dt.datetime, interval: dt.timedelta, green: Mapping[Arm, str]) -> None:
        """The first value of each series is the walk at `start`. Raises `UserError` for a series that cannot be read."""
        self._start, self._interval = start, interval
        self._green = {arm: _parsed(f"green of {arm}", text) for arm, text in green.items()}
        for arm, series in self._green.items():
            if any(value not in (0, 1) for value in series if value is not None and not math.isnan(value)):
                raise UserError(f"green of {arm}: a walk is 1 (green) or 0 (red)")

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


def _parsed(what: str, text: str) -> Series:
    try:
        return parse_series(text)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from error


def _counting(what: str, text: str) -> Series:
    series = _parsed(what, text)
    if any(value is not None and value < 0 for value in series):
        raise UserError(f"{what}: a negative increment", hint="values are what came in each poll, not a gauge")
    return series


def _sums(series: Series) -> list[float]:
    return list(accumulate(0.0 if value is None or math.isnan(value) else value for value in series))


def _absent(series: Series, poll: int) -> Missing | None:
    """Why the series has no value at that poll; None when it has one."""
    if not 0 <= poll < len(series):
        return Missing("stale", "the series has not begun" if poll < 0 else "the series has ended")
    value = series[poll]
    if value is None:
        return Missing("stale", "a gap in the series")
    return Missing("nan", "NaN in the series") if math.isnan(value) else None
