"""What people ask for, taken in as observations: one place where decisions happen, and one history."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, assert_never

import msgspec

from deployguard.engine.record import entered, noted
from deployguard.engine.stages import patience, planned
from deployguard.model.document import Document, Request
from deployguard.model.rollout import Advancing, Analyzing, BackWord, Failed, Holding, RolledBack, RollingBack, Rollout, Waiting, Watching

if TYPE_CHECKING:
    from deployguard.model.policy import Policy

MOST_CONSUMED = 100
_BACK: dict[str, BackWord] = {"abort": "abort", "interrupt": "interrupted", "rollback": "rollback", "timeout": "timeout"}


def fresh(document: Document, requests: tuple[Request, ...]) -> tuple[Request, ...]:
    """The requests for this rollout that no saved document has consumed."""
    rollout = document.rollout
    return tuple(
        r for r in requests if r.id not in document.consumed and (not r.rollout or (rollout is not None and r.rollout == rollout.id))
    )


def consumed(document: Document, requests: tuple[Request, ...]) -> Document:
    """The document that remembers `requests` as taken in."""
    if not requests:
        return document
    return msgspec.structs.replace(document, consumed=(*document.consumed, *(r.id for r in requests))[-MOST_CONSUMED:])


def asked(policy: Policy, rollout: Rollout, request: Request, now: dt.datetime) -> Rollout:
    """The rollout after one request; each leaves an entry, also when it does not apply."""
    text = f"{request.who} asked for {request.verb}" + (f": {request.reason}" if request.reason else "")
    rollout = noted(rollout, "request", text, now, {"request": request.id, "verb": request.verb, "who": request.who})
    if rollout.terminal:
        return rollout
    match request.verb:
        case "approve":
            return _approved(policy, rollout)
        case "pause" | "stop":
            return msgspec.structs.replace(rollout, paused=text)
        case "resume" | "retry":
            return _resumed(policy, msgspec.structs.replace(rollout, paused=""), now)
        case "skip-soak":
            return _soaked(policy, rollout, now)
        case "abort" | "interrupt" | "rollback" | "timeout":
            return turned_back(policy, rollout, _BACK[request.verb], text, now)
        case _:
            assert_never(request.verb)


def _approved(policy: Policy, rollout: Rollout) -> Rollout:
    """Every approval stage up to the next one to be entered counts as approved."""
    stages = planned(policy, rollout.wanted, surge=rollout.surge)
    phase = rollout.phase
    at = phase.stage + 1 if isinstance(phase, (Advancing, Analyzing, Holding)) else 0
    numbers = {n for stage in stages[: at + 1] for n in stage.numbers if n in policy.gates.approval}
    return msgspec.structs.replace(rollout, approved=tuple(sorted({*rollout.approved, *numbers})))


def _resumed(policy: Policy, rollout: Rollout, now: dt.datetime) -> Rollout:
    phase = rollout.phase
    if isinstance(phase, Holding) and phase.why in ("paused", "drift", "samples"):
        stage = planned(policy, rollout.wanted, surge=rollout.surge)[phase.stage]
        again = Advancing(phase.stage, now + patience(policy, stage, surge=rollout.surge))
        return entered(rollout, again, f"stage {phase.stage + 1} again", now, shifts=True)
    return rollout


def _soaked(policy: Policy, rollout: Rollout, now: dt.datetime) -> Rollout:
    phase = rollout.phase
    if not isinstance(phase, Analyzing):
        return rollout
    soak = planned(policy, rollout.wanted, surge=rollout.surge)[phase.stage].soak
    return msgspec.structs.replace(rollout, phase=msgspec.structs.replace(phase, since=now - soak))


def turned_back(policy: Policy, rollout: Rollout, why: BackWord, text: str, now: dt.datetime) -> Rollout:
    """The rollout on its way back to stable; before anything was exposed it simply ends.

    On the way back it stays as it is, but for an abort of one that is overdue: that closes it.
    """
    phase = rollout.phase
    if isinstance(phase, Waiting):
        return entered(rollout, RolledBack(rollout.stable, why, text), text, now, shifts=False)
    if isinstance(phase, (Advancing, Analyzing, Holding, Watching)):
        back = RollingBack(rollout.stable, 0, why, text, now + policy.rollback.within)
        return entered(rollout, back, text, now, shifts=True)
    if isinstance(phase, RollingBack) and phase.overdue and why == "abort":
        # The way back may need what no guard can give, a dead disk say; a person may close it, so that others can begin.
        return entered(rollout, Failed(f"closed by hand: {phase.text}"), text, now, shifts=False)
    return rollout
