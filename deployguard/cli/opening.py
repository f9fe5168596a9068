"""Saving a new rollout in place of the one that ended: the old one's last words reach the ledger first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager

from deployguard import clock
from deployguard.engine import begin, claims
from deployguard.engine.begin import Wish
from deployguard.engine.recording import closing
from deployguard.errors import UserError
from deployguard.model.document import Document
from deployguard.model.rollout import Rollout
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.wiring.guard import Rig


def rollout_id(candidate: Version, now: dt.datetime) -> str:
    """An id that sorts by time and names the candidate: `r-20260101-120000-1b27eb`."""
    return f"r-{now:%Y%m%d-%H%M%S}-{candidate.short[:6]}"


def last_rollout(document: Document) -> Rollout:
    """The document's rollout. Raises `UserError` when there has been none."""
    if document.rollout is None:
        raise UserError(f"the guard `{document.guard}` has no rollout", hint="begin one with `deployguard run -f guard.yaml`")
    return document.rollout


def like_the_last(document: Document, version: Version, override: str = "") -> Wish:
    """A wish for `version` under the policy and the sinks of the document's last rollout."""
    old = last_rollout(document)
    return Wish(rollout_id(version, clock.now()), old.guard, old.target, version, old.spec, override, old.announce, place=old.place)


@contextmanager
def ended_on_failure(equipment: Rig) -> Iterator[None]:
    """Whatever goes wrong inside, or whoever interrupts it, nothing of the equipment is left running."""
    try:
        yield
    except BaseException:
        equipment.close()
        raise


def save(equipment: Rig, old: Document, new: Document, view: TargetView, revision: str) -> Document:
    """`new` is saved and driven by this process; what the old rollout had still to tell is in the ledger and with the sinks.

    The old rollout's end is saved before it is told. Raises `StaleView` when somebody saved in between.
    """
    now = clock.now()
    closed = begin.closed(old, view, now)
    if closed is not old:
        revision = equipment.store.save(closed, revision)
        if equipment.readings is not None and closed.rollout is not None:
            equipment.readings.append(closed.rollout.id, closing(equipment.world.me, old, view, now))
    if closed.rollout is not None:
        equipment.store.append(closed.rollout.outbox)
        equipment.announcer.offer(entry for entry in closed.rollout.outbox if entry.n > closed.rollout.announced)
    claimed = claims.claimed(new, equipment.world.me, clock.now())
    equipment.store.save(claimed, revision)
    return claimed
