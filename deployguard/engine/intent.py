"""From a phase to what the target shall do, and from the difference to actions.

The transition itself emits nothing: after a crash the next tick finds the same difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployguard.engine.health import not_restored
from deployguard.engine.needs import EXPOSING
from deployguard.engine.stages import PlannedStage, batch, pace
from deployguard.model.action import Action, Announce, Append, Forget, Observation, Renew, Shift
from deployguard.model.document import GENERATIONS, Document
from deployguard.model.rollout import Advancing, Analyzing, Holding, RollingBack, Rollout, Verifying, Watching
from deployguard.model.target import Desired, TargetView
from deployguard.model.version import Version

if TYPE_CHECKING:
    from deployguard.model.policy import Policy


def desired(policy: Policy, document: Document, rollout: Rollout, stages: tuple[PlannedStage, ...], view: TargetView) -> Desired | None:
    """What the phase wants of the target; None when it wants nothing."""
    phase, at_once = rollout.phase, batch(policy, max(view.wanted, 1))
    keep, by = _kept(document, rollout), f"{rollout.guard}/{rollout.id}"
    # Only a workload that others may change too tells the two apart; for a fleet all instances are simply that many.
    full = isinstance(phase, (Advancing, Analyzing, Holding)) and stages[phase.stage].full
    if isinstance(phase, (Advancing, Analyzing, Holding)):
        return Desired(
            fence=rollout.seq,
            stable=rollout.stable,
            candidate=rollout.candidate,
            count=stages[phase.stage].count,
            batch=at_once,
            lease=policy.lease.total_seconds(),
            keep=keep,
            by=by,
            full=full,
            pace=pace(policy) if full else 0,
        )
    if isinstance(phase, Watching):
        return Desired(fence=rollout.seq, stable=rollout.candidate, batch=at_once, keep=keep, by=by)
    if isinstance(phase, (RollingBack, Verifying)):
        restart: tuple[str, ...] = ()
        if phase.rung > 0 and view.told is not None and view.told.fence == rollout.seq:
            restart = view.told.restart
        elif phase.rung > 0:
            restart = not_restored(view, phase.to)
        watched = pace(policy) if _careful(policy, rollout) else 0
        return Desired(fence=rollout.seq, stable=phase.to, batch=at_once, restart=restart, keep=keep, by=by, pace=watched)
    return None


def _careful(policy: Policy, rollout: Rollout) -> bool:
    """Whether the way back keeps its pace: where nothing is wrong, and where a candidate was slow.

    What is slow may be overloaded, and a way back at full speed takes capacity away for a moment; errors are ended at once.
    """
    if rollout.kind == "return":
        return True
    slow = {check.name for check in policy.checks if check.source in ("scrape", "prometheus") and check.kind == "categories"}
    failed = {finding.check for finding in rollout.latched.findings if finding.verdict == "fail"} if rollout.latched is not None else set()
    return bool(failed) and failed <= slow


def _kept(document: Document, rollout: Rollout) -> tuple[Version, ...]:
    versions = [rollout.stable, rollout.candidate, *(s.version for s in document.stable[:GENERATIONS])]
    return tuple(sorted(set(versions)))


def actions(
    policy: Policy, document: Document, rollout: Rollout, stages: tuple[PlannedStage, ...], seen: Observation
) -> tuple[Action, ...]:
    """The difference between what the saved document wants and what was seen. The ledger comes before the target."""
    found: list[Action] = []
    if entries := tuple(e for e in rollout.outbox if e.n > seen.ledgered):
        found.append(Append(entries))
    found.extend(_target_actions(policy, document, rollout, stages, seen))
    if entries := tuple(e for e in rollout.outbox if e.n > seen.announced):
        found.append(Announce(entries))
    if done := tuple(r.id for r in seen.requests if r.id in document.consumed):
        found.append(Forget(done))
    return tuple(found)


def _target_actions(
    policy: Policy, document: Document, rollout: Rollout, stages: tuple[PlannedStage, ...], seen: Observation
) -> list[Action]:
    view = seen.view
    if not isinstance(view, TargetView) or view.fence > rollout.seq:
        return []
    want = desired(policy, document, rollout, stages, view)
    if want is None:
        return []
    if view.fence < rollout.seq or view.told != want or view.pending:
        return [Shift(want, view.basis)]
    if isinstance(rollout.phase, EXPOSING) and want.count > 0:
        return [Renew(rollout.seq, want.lease)]
    return []
