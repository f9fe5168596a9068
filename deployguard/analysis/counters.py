"""From what instances count to what happened since the last reading (docs/statistics.md, section 14).

Deltas are taken per process and summed over the arm only afterwards: instances come and go, and sums over changing sets lie.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from deployguard.model.evidence import Tallies
from deployguard.model.reading import Buckets, Counter, Counters, Gauges

ZERO = Counter(0.0, 0.0)
Last = Mapping[str, Mapping[str, Counter]]
V = TypeVar("V")


def increments(last: Last, arm: str, now: Mapping[str, Counter], born: Mapping[str, dt.datetime], began: dt.datetime) -> list[Counter]:
    """Bad and total requests of each instance of `arm` since its last reading.

    A process that was born after the rollout `began` counts from its first request; an older one that is met for the first time is only a
    baseline; a counter that went down has been reset, and its new value is the delta.
    """
    mine = last.get(arm) or {}
    found = []
    for uid, value in now.items():
        base = mine.get(uid) or before(last, uid)
        bad, total = value.bad, value.total
        if base is None:
            start = born.get(uid)
            if start is None or start < began:
                continue
        elif total >= base.total and bad >= base.bad:
            bad, total = bad - base.bad, total - base.total
        found.append(Counter(min(total, bad), total))
    return found


def tallied(
    last: Mapping[str, Mapping[str, Tallies]],
    arm: str,
    now: Mapping[str, Tallies],
    born: Mapping[str, dt.datetime],
    began: dt.datetime,
    warm: dt.datetime,
) -> list[Tallies]:
    """As `increments`, for counts by category. Instances born after `warm` are still warming up: what they count is left out."""
    mine = last.get(arm) or {}
    found = []
    for uid, value in now.items():
        start = born.get(uid)
        if start is not None and start > warm:
            continue
        base = mine.get(uid)
        if base is None:
            base = before(last, uid)
        if base is None:
            if start is None or start < began:
                continue
            found.append(value)
        elif len(base) == len(value):
            fell = any(v < b for v, b in zip(value, base, strict=True))
            found.append(value if fell else tuple(v - b for v, b in zip(value, base, strict=True)))
    return found


def before(last: Mapping[str, Mapping[str, V]], uid: str) -> V | None:
    """What the process `uid` had counted in whichever arm: one that changed its version without a restart takes its counters along."""
    for values in last.values():
        if uid in values:
            return values[uid]
    return None


def summed(counters: Sequence[Counter]) -> Counter:
    """The sum over instances."""
    if len(counters) == 1:
        return counters[0]
    bad = total = 0.0
    for one in counters:
        bad += one.bad
        total += one.total
    return Counter(bad, total)


def plus(a: Counter, b: Counter) -> Counter:
    """The sum of two counts."""
    return Counter(a.bad + b.bad, a.total + b.total)


def added(a: Tallies, b: Tallies) -> Tallies:
    """The sum of two counts by category; nothing counts as nothing in every category."""
    if not a:
        return b
    return tuple(x + y for x, y in zip(a, b, strict=True)) if b else a


def added_up(parts: Iterable[Tallies]) -> Tallies:
    """The sum over instances of counts by category; nothing for no instance."""
    return tuple(map(sum, zip(*parts, strict=True)))


def kept(old: Mapping[str, V], now: dict[str, V], unread: tuple[str, ...]) -> dict[str, V]:
    """What to keep of an arm's counters for the next delta: the new values, and the old ones of instances that did not answer."""
    if not unread:
        return now
    return {**{uid: old[uid] for uid in unread if uid in old}, **now}


def same_crew(reading: Counters | Buckets | Gauges, last: Mapping[str, V]) -> bool:
    """Whether a reading speaks of the instances of the last one, those that did not answer included."""
    if reading.unread:
        return {*reading.by_instance, *reading.unread} == last.keys()
    return reading.by_instance.keys() == last.keys()


def trusted(history: Counter, seen: Counter) -> Counter:
    """The history, unless what stable has served since contradicts it by more than four standard deviations; then almost nothing.

    After an outage the instances' counters are full of errors that are over: bets made on them would see no regression. Bets may
    depend on anything that is past, so dropping a history is as valid as keeping it.
    """
    expected = seen.total * history.bad / history.total
    return history if abs(seen.bad - expected) <= 4 * math.sqrt(expected + 1) else Counter(0.5, 50.0)


def history_of(counters: Sequence[Counter], most: float = 5000.0) -> Counter:
    """What stable had counted before the rollout, as a prior for the bets: wrong history costs power, never validity."""
    was = summed(counters)
    scale = min(1.0, most / was.total) if was.total > 0 else 0.0
    return Counter(0.5 + was.bad * scale, 50.0 + was.total * scale)
