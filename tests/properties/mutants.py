"""The eight deliberate mistakes of the design's section 3: tests that nobody has seen fail prove nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import msgspec

from deployguard.driver.tick import Driver, Ticked
from deployguard.engine import health, phases, step
from deployguard.model.action import Decision, Renew, Shift
from deployguard.model.document import Document
from deployguard.model.rollout import Advancing, RollingBack, Verifying
from deployguard.stores.memory import MemoryStore
from deployguard.targets.simulated import SimulatedTarget


class ActsBeforeSaving(Driver):
    """Tells the target first and saves afterwards."""

    def tick(self) -> Ticked:
        real = self.world.store.save

        def late(document: Document, expected: str) -> str:
            decided = self._last
            self._act(tuple(a for a in decided.actions if isinstance(a, Shift)))
            return real(document, expected)

        with mock.patch.object(self.world.store, "save", late), mock.patch("deployguard.driver.tick.step", self._remembering):
            return super().tick()

    def _remembering(self, *args: Any) -> Decision:
        self._last = step.step(*args)
        return self._last


class ActsOnEdges(Driver):
    """Acts only in the tick that moved."""

    def tick(self) -> Ticked:
        with mock.patch("deployguard.driver.tick.step", self._remembering):
            return super().tick()

    def _remembering(self, *args: Any) -> Decision:
        decided = step.step(*args)
        self._moved = decided.moved
        return decided

    def _act(self, actions: Any) -> Any:
        return super()._act(tuple(a for a in actions if self._moved or not isinstance(a, Shift)))


class CountsDeadlinesFromItsStart(Driver):
    """Believes that deadlines begin when its own process does."""

    fresh = True

    def _load(self) -> tuple[Document, str]:
        document, revision = super()._load()
        rollout = document.rollout
        if self.fresh and rollout is not None:
            self.fresh = False
            now, policy = self.world.clock.now(), self.world.policy
            phase = rollout.phase
            if isinstance(phase, Advancing):
                phase = msgspec.structs.replace(phase, deadline=now + policy.advance_within)
            elif isinstance(phase, RollingBack):
                phase = msgspec.structs.replace(phase, deadline=now + policy.rollback.within)
            elif isinstance(phase, Verifying):
                phase = msgspec.structs.replace(phase, until=now + policy.rollback.relapse_watch)
            document = msgspec.structs.replace(document, rollout=msgspec.structs.replace(rollout, phase=phase))
        return document, revision


def _no_precondition(self: SimulatedTarget, desired: Any, basis: str) -> None:
    self._live()
    self.fence, self.told = desired.fence, desired
    self.generation += 1
    self._assign(desired)


def _blind_save(self: MemoryStore, document: Document, expected: str) -> str:
    from deployguard.stores import schema
    from deployguard.stores.memory import revision_of

    self.world.before("save")
    data = schema.write(document)
    self.world.documents[self.guard] = data
    self.world.after("save")
    return revision_of(data)


def _ignoring_higher_fence(policy: Any, document: Document, seen: Any, now: Any) -> Decision:
    rollout = document.rollout
    view = seen.view
    if rollout is not None and hasattr(view, "fence") and view.fence > rollout.seq:
        shown = msgspec.structs.replace(view, fence=rollout.seq)
        return step.step(policy, document, _with_view(seen, shown), now)
    return step.step(policy, document, seen, now)


def _with_view(seen: Any, view: Any) -> Any:
    import dataclasses

    return dataclasses.replace(seen, view=view)


def _by_value_alone(scene: phases.Scene, rollout: Any, stage: int) -> bool:
    return scene.view is not None and health.settled(scene.view, rollout.candidate, scene.stages[stage].count)


def _told_by_value_alone(policy: Any, document: Any, rollout: Any, stages: Any, seen: Any) -> Any:
    from deployguard.engine import intent

    view = seen.view
    want = intent.desired(policy, document, rollout, stages, view) if hasattr(view, "told") else None
    if want is None:
        return []
    same = view.told is not None and (view.told.stable, view.told.candidate, view.told.count) == (want.stable, want.candidate, want.count)
    if same or (view.told is None and want.count == 0):
        return [Renew(rollout.seq, want.lease)] if want.count else []
    return [Shift(want, view.basis)]


@contextlib.contextmanager
def mutant(name: str) -> Iterator[type[Driver]]:
    """While this lasts, the product makes the mistake `name`; the driver class to use."""
    patches: dict[str, Any] = {
        "act before save": ActsBeforeSaving,
        "act on edges only": ActsOnEdges,
        "no precondition on writes": [mock.patch.object(SimulatedTarget, "shift", _no_precondition)],
        "blind compare-and-swap": [mock.patch.object(MemoryStore, "save", _blind_save)],
        "ignoring a higher fence": [mock.patch("deployguard.driver.tick.step", _ignoring_higher_fence)],
        "in place by equal value alone": [
            mock.patch.object(phases, "_in_place", _by_value_alone),
            mock.patch("deployguard.engine.intent._target_actions", _told_by_value_alone),
        ],
        "evidence folded twice": [mock.patch("deployguard.analysis.counts.kept", lambda old, now, unread: old)],
        "deadline counted from process start": CountsDeadlinesFromItsStart,
    }
    how = patches[name]
    with contextlib.ExitStack() as stack:
        if isinstance(how, list):
            for patch in how:
                stack.enter_context(patch)
            yield Driver
        else:
            yield how


MUTANTS = (
    "act before save",
    "act on edges only",
    "no precondition on writes",
    "blind compare-and-swap",
    "ignoring a higher fence",
    "in place by equal value alone",
    "evidence folded twice",
    "deadline counted from process start",
)
