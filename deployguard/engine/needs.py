"""What must be read now: even reading is decided purely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployguard.model.rollout import Advancing, Analyzing, Holding, RollingBack, Rollout, Verifying, Waiting, Watching
from deployguard.model.target import CANDIDATE, STABLE, TargetView

if TYPE_CHECKING:
    from deployguard.model.policy import Policy

JUDGED = (Advancing, Analyzing, Holding, Watching)
"""Phases in which the candidate serves: FAIL is judged at every tick."""
EXPOSING = (Advancing, Analyzing, Holding)
"""Phases in which a candidate is held on a lease."""


def needs(policy: Policy, rollout: Rollout | None, view: TargetView | None) -> dict[str, tuple[str, ...]]:
    """The paths to read for each check: stable's alone before the exposure, the arms that have instances while it is judged.

    Journeys are also walked as users come (`all`), unless the target has listeners and none for that. Nothing is read on the way back,
    but journeys after it.
    """
    if rollout is None or rollout.terminal or view is None:
        return {}
    wanted: dict[str, tuple[str, ...]] = {}
    entered = "all" in view.listeners or not view.listeners
    for check in policy.checks:
        journey = check.source == "probe"
        if isinstance(rollout.phase, Waiting):
            wanted[check.name] = (STABLE,)
        elif isinstance(rollout.phase, JUDGED):
            wanted[check.name] = arms(rollout, view) + (("all",) if journey and entered else ())
        elif isinstance(rollout.phase, (RollingBack, Verifying)) and journey and entered:
            wanted[check.name] = ("all",)
    return wanted


def arms(rollout: Rollout, view: TargetView) -> tuple[str, ...]:
    """The arms that have instances now; the candidate's counts as soon as one is assigned to it."""
    found = []
    if any(i.assigned != rollout.candidate for i in view.instances):
        found.append(STABLE)
    if any(i.assigned == rollout.candidate for i in view.instances):
        found.append(CANDIDATE)
    return tuple(found)
