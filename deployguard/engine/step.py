"""One tick's decision."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from deployguard.analysis import journeys
from deployguard.analysis.cases.base import Case
from deployguard.analysis.cases.journeys import JourneyCase
from deployguard.analysis.judge import Bench, judge
from deployguard.engine import health, invariants
from deployguard.engine.fold import delivered, folded
from deployguard.engine.intent import actions
from deployguard.engine.needs import JUDGED
from deployguard.engine.phases import Scene, advanced
from deployguard.engine.requests import asked, consumed, fresh
from deployguard.engine.rules import cases
from deployguard.engine.stages import PlannedStage, fitted, planned
from deployguard.model.action import Decision, Observation
from deployguard.model.document import GENERATIONS, Document, Quarantined, StableVersion
from deployguard.model.evidence import Verdict
from deployguard.model.reading import Missing
from deployguard.model.rollout import Advancing, Analyzing, Holding, RollingBack, Rollout, Verifying, Watching
from deployguard.model.target import CANDIDATE, STABLE, TargetView
from deployguard.model.version import components

if TYPE_CHECKING:
    from deployguard.model.policy import Policy

BUSY = dt.timedelta(milliseconds=250)
"""While the target is being changed it is looked at more often: what has just gone wrong, or come back, is seen sooner."""
TELL = dt.timedelta(seconds=5)
"""While nothing is decided the findings are put into words this often: it costs more than judging."""
NOTHING = Verdict("undecided", "not_judged", "")


def step(
    policy: Policy, document: Document, seen: Observation, now: dt.datetime, stages: tuple[PlannedStage, ...] | None = None
) -> Decision:
    """What to save, and what to do after it. Pure: equal arguments give an equal decision.

    `stages` are the policy's own unless given: a simulation gives those with the exposure that was recorded.
    """
    wake = now + policy.interval
    before = document.rollout
    if before is None:
        return Decision(document, (), wake, moved=False)
    view = seen.view if isinstance(seen.view, TargetView) else None
    if view is not None and view.fence > before.seq:
        return Decision(document, (), wake, moved=False, outdated=True)
    stages = stages or _stages(policy, before, view)
    rollout = delivered(before, seen)
    requests = fresh(document, seen.requests)
    for request in requests:
        rollout = asked(policy, rollout, request, now)
    if not rollout.terminal and rollout.seq == before.seq:
        rollout = _moved_on(policy, document, rollout, stages, seen, view, now)
    after = _settled(consumed(document, requests), before, rollout, now)
    invariants.check(document, after)
    moved = rollout.phase != before.phase or rollout.written != before.written or bool(requests)
    if isinstance(rollout.phase, (Advancing, RollingBack)):
        wake = now + min(policy.interval, BUSY)
    return Decision(after, actions(policy, after, rollout, stages, seen), wake, moved=moved)


def _stages(policy: Policy, rollout: Rollout, view: TargetView | None) -> tuple[PlannedStage, ...]:
    """The rollout's stages; of a target whose size others may change, as they are for its present size."""
    stages = planned(policy, max(rollout.wanted, 1), surge=rollout.surge)
    return fitted(stages, policy, max(view.wanted, 1)) if rollout.surge and view is not None else stages


def _moved_on(
    policy: Policy,
    document: Document,
    rollout: Rollout,
    stages: tuple[PlannedStage, ...],
    seen: Observation,
    view: TargetView | None,
    now: dt.datetime,
) -> Rollout:
    """The rollout after folding, judging and at most one hop."""
    last_seen = rollout.updated
    silence = ""
    if view is None and now - last_seen >= policy.hold_after:
        detail = seen.view.detail if isinstance(seen.view, Missing) else ""
        silence = f"the target is silent: {detail}"
    if view is not None:
        rollout = folded(policy, rollout, seen, view, now)
    heard = cases(policy, rollout)
    verdict = _verdict(policy, rollout, heard, stages, view, now)
    if verdict.findings and not isinstance(rollout.phase, Watching):
        # In the watch the findings of the promotion stay: they are what `why` is asked for.
        rollout = msgspec.structs.replace(rollout, findings=verdict.findings, told=now)
    walks = [c for c in heard if isinstance(c, JourneyCase)]
    scene = Scene(
        policy=policy,
        document=document,
        stages=stages,
        view=view,
        verdict=verdict,
        stopped=seen.stopped,
        silence=silence,
        unwatched=now - last_seen > policy.hold_after,
        journeys_healthy=any(journeys.green(c.evidence, CANDIDATE) and not c.evidence.gaps for c in walks),
        journeys_red=next((c.name for c in walks if journeys.reddish(c.evidence, STABLE)), ""),
        journeys_unheard=next((c.name for c in walks if c.required and STABLE not in c.evidence.walks), ""),
        now=now,
    )
    return advanced(scene, rollout)


def _verdict(
    policy: Policy, rollout: Rollout, heard: tuple[Case, ...], stages: tuple[PlannedStage, ...], view: TargetView | None, now: dt.datetime
) -> Verdict:
    phase = rollout.phase
    if view is None or not isinstance(phase, JUDGED):
        return NOTHING
    soaked, since, patience = False, rollout.exposed_since or now, policy.hold_after
    if isinstance(phase, Analyzing):
        soaked = now - phase.since >= stages[phase.stage].soak
        since = max(since, phase.entered)
    elif isinstance(phase, Holding):
        # While holding, any gap is one: a hold ends when every required signal has come back.
        soaked, patience = phase.why in ("samples", "approval", "freeze"), dt.timedelta(0)
    watching = isinstance(phase, Watching)
    bench = Bench(
        now=now,
        since=since,
        patience=patience,
        soaked=soaked,
        alpha=policy.alpha,
        doomed=health.condemned(view, rollout.candidate, rollout.stable_doomed, policy.warmup, most=watching),
        telling=not isinstance(phase, Analyzing) or rollout.told is None or now - rollout.told >= TELL or now < rollout.told,
    )
    return judge(heard, bench)


def _settled(document: Document, before: Rollout, rollout: Rollout, now: dt.datetime) -> Document:
    """The document with what a transition means for stable, quarantine and fence."""
    stable, quarantine = document.stable, document.quarantine
    phase = rollout.phase
    if isinstance(phase, RollingBack) and not isinstance(before.phase, RollingBack):
        stable = tuple(s for s in stable if s.version != rollout.candidate or s.rollout != rollout.id)
        if rollout.latched is not None and before.latched is None:
            condemned = components(rollout.candidate, rollout.stable)
            text = rollout.latched.text
            quarantine = (*quarantine, *(Quarantined(digest, now, rollout.id, text) for digest in condemned))
    elif isinstance(phase, Watching) and not isinstance(before.phase, Watching):
        stable = _newest(stable, StableVersion(rollout.candidate, now, rollout.id))
    elif isinstance(phase, Verifying) and rollout.kind == "return" and not isinstance(before.phase, Verifying):
        known = next((s for s in stable if s.version == phase.to), StableVersion(phase.to, now, rollout.id))
        stable = _newest(stable, known)
    return msgspec.structs.replace(document, rollout=rollout, stable=stable, quarantine=quarantine, fence=max(document.fence, rollout.seq))


def _newest(stable: tuple[StableVersion, ...], version: StableVersion) -> tuple[StableVersion, ...]:
    rest = tuple(s for s in stable if s.version != version.version)
    return (version, *rest)[: GENERATIONS + 1]
