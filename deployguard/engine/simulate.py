"""A recorded rollout under another policy: the engine itself decides, on what was seen, at the instants at which it was seen.

The exposure is what it was. So a stage of the draft counts as in place when what runs is what the recorded rollout wanted, whatever
number of instances the draft would have asked for, and the rollout waits for its first instance as long as the recorded one
did. Where the recorded rollout was taken back the candidate serves nobody any more, and the simulation ends.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from deployguard.engine import claims
from deployguard.engine.recording import Loaded, Looked, Lost, Record
from deployguard.engine.stages import PlannedStage, planned
from deployguard.engine.step import step
from deployguard.model.action import Observation
from deployguard.model.document import Document
from deployguard.model.rollout import TERMINAL, Advancing, Analyzing, Holding, Phase, RollingBack, Rollout, Verifying, Waiting, Watching
from deployguard.model.target import Instance, TargetView

if TYPE_CHECKING:
    from deployguard.model.policy import Policy

OVER = (RollingBack, Verifying, *TERMINAL)
"""Phases in which a candidate is no longer exposed, or nothing more is decided."""
AS_RECORDED = "the recorded rollout waited"


@dataclass(frozen=True, slots=True)
class Turn:
    """A phase, and when it was entered."""

    at: dt.datetime
    phase: Phase


@dataclass(slots=True)
class Path:
    """The phases of a rollout in their order."""

    turns: list[Turn] = field(default_factory=list)

    def add(self, at: dt.datetime, phase: Phase) -> None:
        """The rollout is in `phase` at `at`."""
        if not self.turns or _name(self.turns[-1].phase) != _name(phase):
            self.turns.append(Turn(at, phase))

    def passed(self) -> dict[int, dt.datetime]:
        """When each stage, counted from 0, was passed."""
        found: dict[int, dt.datetime] = {}
        stage = -1
        for turn in self.turns:
            if isinstance(turn.phase, (Advancing, Analyzing, Holding)):
                for before in range(max(stage, 0), turn.phase.stage):
                    found.setdefault(before, turn.at)
                stage = max(stage, turn.phase.stage)
            elif isinstance(turn.phase, Watching) and stage >= 0:
                found.setdefault(stage, turn.at)
        return found

    def entered(self, *kinds: type) -> Turn | None:
        """The first phase of these kinds."""
        return next((turn for turn in self.turns if isinstance(turn.phase, kinds)), None)


def _name(phase: Phase) -> tuple[object, ...]:
    """What tells one phase from the next: not that its soak began anew."""
    return (type(phase), getattr(phase, "stage", None), getattr(phase, "why", None))


@dataclass(slots=True)
class Simulated:
    """What came of a draft on one recording, beside what really happened there. `rollout` is the draft's at the end.

    `until` is the last instant that counted: the recording's own end, or the way back of either. `lost` are instants where records
    are missing.
    """

    began: dt.datetime
    until: dt.datetime
    rollout: Rollout
    real: Path = field(default_factory=Path)
    draft: Path = field(default_factory=Path)
    ticks: int = 0
    lost: list[dt.datetime] = field(default_factory=list)


def whole(document: Document) -> str:
    """Why nothing can be simulated on a recording that begins with `document`; empty when it can."""
    rollout = document.rollout
    if rollout is None or rollout.kind != "candidate":
        return "it went back to a named version: no candidate was judged"
    if not isinstance(rollout.phase, Waiting):
        return "the beginning of its recording is gone, and with it what had been counted by then"
    return ""


class Shadow:
    """The rollout as the draft would have driven it, beside the recorded one."""

    def __init__(self, draft: Policy, names: Mapping[str, str], document: Document, at: dt.datetime) -> None:
        """`names` are the recorded checks by those of the draft that read the same."""
        assert document.rollout is not None
        self._draft, self._names = draft, names
        known = {mine: document.rollout.evidence[theirs] for mine, theirs in names.items() if theirs in document.rollout.evidence}
        begun = msgspec.structs.replace(document.rollout, evidence={**document.rollout.evidence, **known})
        self._document = self._saved = msgspec.structs.replace(document, rollout=begun)
        self._stages = planned(draft, max(document.rollout.wanted, 1), surge=document.rollout.surge)
        self._by = self._holder = ""
        self._seq = 0
        self._real: Phase = document.rollout.phase
        self.found = Simulated(began=document.rollout.started, until=at, rollout=document.rollout)

    def loaded(self, record: Loaded) -> None:
        """Another driver, or the same one after trouble: what was not saved is forgotten."""
        self._by, self._holder, self._document = record.by, record.holder, self._saved
        mine = record.document.claim is not None and record.document.claim.holder == record.holder
        began = record.document if mine else claims.claimed(record.document, record.holder, record.at)
        assert began.rollout is not None
        self._seq = began.rollout.seq

    def ticked(self, tick: Looked) -> bool:
        """One tick on what was seen then; whether the simulation goes on."""
        if tick.by != self._by:
            return True  # a driver that had been overtaken: what it learnt was never saved
        before, found = self._document, self.found
        if before.claim is None or before.claim.holder != self._holder:
            before = claims.claimed(before, self._holder, tick.at)
        assert before.rollout is not None
        decision = step(self._draft, before, self._seen(tick, before.rollout), tick.at, self._staged(tick, before.rollout))
        self._document, left = decision.document, decision.document.rollout or before.rollout
        if tick.saved or decision.moved:
            self._document = self._saved = claims.claimed(self._document, self._holder, tick.at)
        self._seq, self._real = tick.seq, tick.phase
        found.until, found.rollout, found.ticks = tick.at, left, found.ticks + 1
        found.real.add(tick.at, tick.phase)
        found.draft.add(tick.at, left.phase)
        return not isinstance(tick.phase, OVER) and not isinstance(left.phase, OVER)

    def _seen(self, tick: Looked, rollout: Rollout) -> Observation:
        """What was seen, under the draft's names and fences."""
        seen = tick.seen
        answers = {mine: seen.answers[theirs] for mine, theirs in self._names.items() if theirs in seen.answers}
        view = seen.view
        if isinstance(view, TargetView) and rollout.seq != self._seq:
            drifted = isinstance(tick.phase, Holding) and tick.phase.why == "drift"
            view = msgspec.structs.replace(view, fence=rollout.seq - (self._seq - view.fence if drifted else 0))
        if isinstance(view, TargetView) and self._ahead(rollout):
            view = msgspec.structs.replace(view, instances=tuple(i for i in view.instances if not _coming(i, rollout)))
        waited = isinstance(tick.phase, Waiting) and isinstance(rollout.phase, Waiting)
        stopped = seen.stopped or (AS_RECORDED if waited else "")
        return dataclasses.replace(seen, view=view, answers=answers, stopped=stopped, ledgered=rollout.written, announced=rollout.written)

    def _staged(self, tick: Looked, rollout: Rollout) -> tuple[PlannedStage, ...]:
        """The draft's stages, each with the instances that the recorded rollout wanted then."""
        view = tick.seen.view
        told = view.told if isinstance(view, TargetView) else None
        if told is None or not isinstance(view, TargetView):
            return self._stages
        everywhere = rollout.wanted if told.stable == rollout.candidate else 1
        count = told.count if told.candidate == rollout.candidate else everywhere
        if self._ahead(rollout):
            count = sum(i.assigned == rollout.candidate and not _coming(i, rollout) for i in view.instances)
        return tuple(dataclasses.replace(stage, count=max(count, 1)) for stage in self._stages)

    def _ahead(self, rollout: Rollout) -> bool:
        """Whether the recorded rollout was bringing up more instances while the draft still watches those before them."""
        return isinstance(self._real, Advancing) and isinstance(rollout.phase, (Analyzing, Holding))


def _coming(instance: Instance, rollout: Rollout) -> bool:
    """Whether an instance is only on its way to the candidate, and nothing is known against it."""
    there = instance.ready and instance.loaded == rollout.candidate
    return instance.assigned == rollout.candidate and not there and instance.exit is None and not instance.refused


def simulated(draft: Policy, names: Mapping[str, str], document: Document, records: Iterable[Record]) -> Simulated:
    """What `draft` would have decided on a recording that began with `document`, which must be `whole`."""
    assert document.rollout is not None
    shadow = Shadow(draft, names, document, document.rollout.started)
    for record in records:
        if isinstance(record, Loaded):
            shadow.loaded(record)
        elif isinstance(record, Lost):
            shadow.found.lost.append(record.at)
        elif isinstance(record, Looked) and not shadow.ticked(record):
            break
    return shadow.found
