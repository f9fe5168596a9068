"""From what instances count to what happened since the last reading (docs/statistics.md, section 14).

Deltas are taken per process and summed over the arm only afterwards: instances come and go, and sums over changing sets lie.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping

from deployguard.model.evidence import CheckEvidence
from deployguard.model.reading import Counter, Counters, Window

ZERO = Counter(0.0, 0.0)


def delta(evidence: CheckEvidence, arm: str, reading: Counters | Window, began: dt.datetime) -> Counter | None:
    """Bad and total requests of `arm` since its last reading; None when a window does not continue where the last one ended.

    A process that was born after the rollout `began` counts from its first request; an older one that is met for the first time is only a
    baseline; a counter that went down has been reset, and its new value is the delta.
    """
    if isinstance(reading, Window):
        last = evidence.read_at.get(arm)
        if last is not None and reading.start != last:
            return None
        return _clip(reading.bad, reading.total)
    bad = total = 0.0
    for uid, now in reading.by_instance.items():
        base = _base(evidence, arm, uid, now, reading.born.get(uid), began)
        bad += now.bad - base.bad
        total += now.total - base.total
    return _clip(bad, total)


def _base(evidence: CheckEvidence, arm: str, uid: str, now: Counter, born: dt.datetime | None, began: dt.datetime) -> Counter:
    before = evidence.last.get(arm, {}).get(uid)
    if before is None:
        # A process that changed its version without a restart takes its counters along to the other arm.
        before = next((counters[uid] for counters in evidence.last.values() if uid in counters), None)
    if before is None:
        return ZERO if born is not None and born >= began else now
    return before if now.total >= before.total and now.bad >= before.bad else ZERO


def _clip(bad: float, total: float) -> Counter:
    total = max(total, 0.0)
    return Counter(min(max(bad, 0.0), total), total)


def remembered(evidence: CheckEvidence, arm: str, reading: Counters | Window) -> dict[str, Counter]:
    """What to keep of an arm's counters for the next delta: the new values, and the old ones of instances that did not answer."""
    if isinstance(reading, Window):
        return {}
    old = evidence.last.get(arm, {})
    return {**{uid: old[uid] for uid in reading.unread if uid in old}, **reading.by_instance}


def trusted(history: Counter, seen: Counter) -> Counter:
    """The history, unless what stable has served since contradicts it by more than four standard deviations; then almost nothing.

    After an outage the instances' counters are full of errors that are over: bets made on them would see no regression. Bets may
    depend on anything that is past, so dropping a history is as valid as keeping it.
    """
    expected = seen.total * history.bad / history.total
    return history if abs(seen.bad - expected) <= 4 * math.sqrt(expected + 1) else Counter(0.5, 50.0)


def history_of(reading: Counters | Window, most: float = 5000.0) -> Counter:
    """What stable had counted before the rollout, as a prior for the bets: wrong history costs power, never validity."""
    counters: Mapping[str, Counter] = reading.by_instance if isinstance(reading, Counters) else {"": Counter(reading.bad, reading.total)}
    bad, total = sum(c.bad for c in counters.values()), sum(c.total for c in counters.values())
    scale = min(1.0, most / total) if total > 0 else 0.0
    return Counter(0.5 + bad * scale, 50.0 + total * scale)
