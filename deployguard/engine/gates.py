"""What must be open before a rollout starts or goes on: freezes, approvals, the global stop."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim

from deployguard.engine.stages import PlannedStage

if TYPE_CHECKING:
    from deployguard.model.policy import Freeze, Policy


def frozen(policy: Policy, stopped: str, now: dt.datetime) -> str:
    """Why nothing may be started or promoted now; empty when it may."""
    if stopped:
        return f"stopped: {stopped}"
    for freeze in policy.gates.freeze:
        if _active(freeze, now):
            return f"freeze: {freeze.reason or freeze.cron or f'until {freeze.until:%Y-%m-%d %H:%M}'}"
    return ""


def _active(freeze: Freeze, now: dt.datetime) -> bool:
    if freeze.cron is None:
        assert freeze.from_ is not None
        assert freeze.until is not None
        return freeze.from_ <= now < freeze.until
    assert freeze.for_ is not None
    zone = ZoneInfo(freeze.timezone)
    # The first beginning after (now - for) has not ended yet; the window is open if it has begun.
    first = next(CronSim(freeze.cron, (now - freeze.for_).astimezone(zone)))
    return first <= now


def unapproved(policy: Policy, stage: PlannedStage, approved: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of the policy's stages in `stage` that a person must still approve."""
    return tuple(n for n in stage.numbers if n in policy.gates.approval and n not in approved)
