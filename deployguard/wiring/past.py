"""How the stable version has been counting before a rollout: its instances' own increments, block by block, from the recordings."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployguard.engine.recording import WHOLE, WHOLE_EVERY, Looked, read
from deployguard.errors import ForeignState
from deployguard.model.document import Document
from deployguard.model.reading import Answer, Buckets, Counters
from deployguard.model.target import TargetView
from deployguard.model.units import parse_duration
from deployguard.model.version import Version
from deployguard.stores.readings import FileReadings
from deployguard.wiring.replay import JUDGING

BLOCK = dt.timedelta(seconds=10)
MOST_BLOCKS = 360
WATCHED = dt.timedelta(hours=1)
APART = 60.0
"""Seconds: what lies further apart was not watched, and is no block."""
_MARK = msgspec.json.encode({"k": WHOLE})[:-1].decode()

Increments = dict[str, tuple[float, ...]]
Blocks = list[tuple[float, Increments]]


def stable_blocks(readings: FileReadings, document: Document) -> dict[str, Blocks]:
    """How the instances of the document's stable version have been counting, by check: blocks of about ten seconds, oldest first.

    A block is its length in seconds, and by instance uid what its counters grew by: (bad, total), or one number for each category.
    It reaches up to the last hour that was watched, through the newest recordings, and has at most 360 blocks. An instance is in a
    block when it ran the stable version at both ends of it. A check that an older recording read otherwise is not taken from it, and
    nothing is taken from a recording that cannot be read.
    """
    if not document.stable:
        return {}
    stable = document.stable[0].version
    found: dict[str, Blocks] = {}
    reads: dict[str, Any] = {}
    for rollout in readings.rollouts():
        if _longest(found) >= WATCHED.total_seconds():
            break
        begun = _begun(readings, rollout)
        if begun is None or stable not in begun.versions:
            continue
        same = {name for name, what in begun.reads.items() if reads.setdefault(name, what) == what}
        for name, blocks in _of_one(readings, rollout, stable, begun).items():
            if name in same:
                found[name] = blocks + found.get(name, [])
    return {name: blocks[-MOST_BLOCKS:] for name, blocks in sorted(found.items())}


def _longest(found: dict[str, Blocks]) -> float:
    return max((sum(seconds for seconds, _ in blocks) for blocks in found.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the first record of a recording says: the versions of its arms, what each check reads, and seconds that are a gap."""

    versions: tuple[Version, ...]
    reads: dict[str, Any]
    apart: float


def _begun(readings: FileReadings, rollout: str) -> _Begun | None:
    """None for a recording whose beginning is gone or cannot be read."""
    first = next(readings.read(rollout), {})
    try:
        said = first["document"]["rollout"]
        spec = said["spec"]
        return _Begun(
            versions=tuple(msgspec.convert(said[arm], Version) for arm in ("stable", "candidate")),
            reads={c["name"]: {key: value for key, value in c.items() if key not in JUDGING} for c in spec.get("checks", ())},
            apart=max(APART, 3 * parse_duration(spec.get("interval", "1s")).total_seconds()),
        )
    except (KeyError, TypeError, ValueError, msgspec.ValidationError):
        return None


def _of_one(readings: FileReadings, rollout: str, stable: Version, begun: _Begun) -> dict[str, Blocks]:
    pool = _Pool(stable, begun.apart)
    back = WATCHED // WHOLE_EVERY + 1
    with contextlib.suppress(ForeignState):
        for record in read(readings.read(rollout, _MARK, back), rollout, BLOCK):
            if isinstance(record, Looked):
                pool.add(record)
    return pool.blocks


@dataclass(slots=True)
class _Pool:
    """The blocks of one recording, as its ticks come. What was seen first is only where counting begins."""

    stable: Version
    apart: float
    blocks: dict[str, Blocks] = field(default_factory=dict)
    last: dict[str, tuple[dt.datetime, dict[str, tuple[float, ...]]]] = field(default_factory=dict)

    def add(self, tick: Looked) -> None:
        """A tick at the end of a block, and at the beginning of the next."""
        view = tick.seen.view
        if not isinstance(view, TargetView):
            return
        mine = {i.uid for i in view.instances if i.ready and i.assigned == i.loaded == self.stable}
        for name, answers in tick.seen.answers.items():
            counts = {uid: count for answer in answers.values() for uid, count in _counts(answer).items() if uid in mine}
            if not counts:
                continue
            at, before = self.last.get(name, (tick.at, {}))
            self.last[name] = (tick.at, counts)
            seconds = (tick.at - at).total_seconds()
            grown = {uid: _grown(before[uid], now) for uid, now in counts.items() if len(before.get(uid, ())) == len(now)}
            if grown and 0 < seconds <= self.apart:
                self.blocks.setdefault(name, []).append((seconds, grown))


def _counts(answer: Answer) -> dict[str, tuple[float, ...]]:
    """The cumulative counts of each instance; none where nothing is counted by instance."""
    if isinstance(answer, Counters):
        return {uid: (counter.bad, counter.total) for uid, counter in answer.by_instance.items()}
    return dict(answer.by_instance) if isinstance(answer, Buckets) else {}


def _grown(before: tuple[float, ...], now: tuple[float, ...]) -> tuple[float, ...]:
    """By how much counters grew; one that fell began anew, and shows what it has counted since."""
    if any(b < a for a, b in zip(before, now, strict=True)):
        return now
    return tuple(b - a for a, b in zip(before, now, strict=True))
