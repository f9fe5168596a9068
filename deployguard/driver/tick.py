"""One tick: load, observe, step, save, act. This order is the promise.

Nothing is told to the world that no saved state says. What was learnt since the last save is kept in memory for as long as nobody else
saves; a crash loses seconds of it, never a promise.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from deployguard.driver.observe import Observer
from deployguard.driver.perform import perform
from deployguard.driver.recording import Recording
from deployguard.driver.world import World
from deployguard.engine import claims
from deployguard.engine.step import step
from deployguard.errors import DeployguardError, StaleView
from deployguard.model.action import Action
from deployguard.model.document import Claim, Document

CHECKPOINT = dt.timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one tick did. `held` is the claim of somebody else who drives; `troubles` are writes that failed and come again."""

    document: Document
    wake: dt.datetime
    saved: bool = False
    held: Claim | None = None
    outdated: bool = False
    troubles: tuple[DeployguardError, ...] = ()


class Driver:
    """Drives one guard's rollout, a tick at a time. Its memory is only a shortcut: any other driver can go on from the store."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.observer = Observer(world)
        self.recording = Recording(world.readings, world.me) if world.readings is not None else None
        self._memo: tuple[Document, str] | None = None
        self._saved: dt.datetime | None = None

    def tick(self) -> Ticked:
        """One look, at most one save, then the actions. Raises `WorldError` when the document cannot be read or a due save fails."""
        world, now = self.world, self.world.clock.now()
        document, revision = self._load()
        before, fresh = document, self._memo is None
        if other := claims.held_by_other(document, world.me, now, world.gone):
            return Ticked(document, now + world.policy.interval, held=other)
        mine = document.claim is not None and document.claim.holder == world.me
        if not mine:
            document = claims.claimed(document, world.me, now)
        seen = self.observer.observe(document, now)
        decision = step(world.policy, document, seen, now)
        if decision.outdated:
            self._memo = None
            return Ticked(document, decision.wake, outdated=True)
        due = not mine or decision.moved or self._saved is None or now - self._saved >= CHECKPOINT
        document = decision.document
        if due:
            document = claims.claimed(document, world.me, now)
            try:
                revision = world.store.save(document, revision)
            except StaleView:
                self._memo = None
                return Ticked(document, now)
            self._saved = now
        self._memo = (document, revision)
        if self.recording is not None:
            self.recording.tick(before, seen, now, decision, fresh=fresh, saved=document if due else None)
        return Ticked(document, decision.wake, saved=due, troubles=self._act(decision.actions))

    def _load(self) -> tuple[Document, str]:
        saved, revision = self.world.store.load()
        if self._memo is not None and self._memo[1] == revision:
            return self._memo
        self._memo = None
        return saved, revision

    def _act(self, actions: tuple[Action, ...]) -> tuple[DeployguardError, ...]:
        troubles = []
        for action in actions:
            try:
                perform(self.world, action)
            except DeployguardError as error:
                # Normal: what was not done is a difference that the next tick finds again.
                troubles.append(error)
        return tuple(troubles)

    def release(self) -> None:
        """Give the claim back, keeping everything learnt. A store that has moved on is left alone."""
        document, revision = self._load()
        free = claims.released(document, self.world.me)
        if free is not document:
            try:
                self.world.store.save(free, revision)
            except StaleView:
                return
            self._memo = None

    def close(self) -> None:
        """End what this driver keeps running."""
        self.observer.close()
