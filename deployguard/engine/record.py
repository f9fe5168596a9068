"""Entering a phase: its trail line, its ledger entry, and the fence that grows with it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from deployguard.model.rollout import Entry, Phase, Rollout, Step, phase_name

MOST_TRAIL = 200
MOST_OUTBOX = 500


def noted(rollout: Rollout, event: str, text: str, now: dt.datetime, data: dict[str, Any] | None = None) -> Rollout:
    """The rollout with one more entry for the ledger."""
    n = rollout.written + 1
    entry = Entry(
        rollout=rollout.id,
        n=n,
        at=now,
        guard=rollout.guard,
        event=event,
        phase=phase_name(rollout.phase),
        text=text,
        data={"seq": rollout.seq, "candidate": rollout.candidate.digest, "stable": rollout.stable.digest, **(data or {})},
    )
    return msgspec.structs.replace(rollout, written=n, outbox=(*rollout.outbox, entry)[-MOST_OUTBOX:])


def entered(rollout: Rollout, phase: Phase, text: str, now: dt.datetime, *, shifts: bool, data: dict[str, Any] | None = None) -> Rollout:
    """The rollout in `phase`. `shifts`: what the target shall do changes, so the fence grows."""
    step = Step(now, phase_name(phase), text)
    rollout = msgspec.structs.replace(
        rollout,
        phase=phase,
        seq=rollout.seq + 1 if shifts else rollout.seq,
        trail=(*rollout.trail, step)[-MOST_TRAIL:],
    )
    return noted(rollout, "transition", text, now, data)
