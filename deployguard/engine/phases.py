"""What each phase leaves to: one small function a phase, at most one hop a tick."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from deployguard.engine import health
from deployguard.engine.begin import condemned_before
from deployguard.engine.gates import frozen, unapproved
from deployguard.engine.record import entered, noted
from deployguard.engine.requests import turned_back
from deployguard.engine.stages import PlannedStage, patience
from deployguard.model.document import Document
from deployguard.model.evidence import Latched, Verdict
from deployguard.model.rollout import (
    Advancing,
    Analyzing,
    Failed,
    Holding,
    HoldWord,
    Promoted,
    Refused,
    RolledBack,
    RollingBack,
    Rollout,
    Superseded,
    Verifying,
    Waiting,
    Watching,
)
from deployguard.model.target import TargetView
from deployguard.model.units import format_duration

if TYPE_CHECKING:
    from deployguard.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything one tick knows. `view` is None while the target does not answer; `unwatched`: nobody looked for too long."""

    policy: Policy
    document: Document
    stages: tuple[PlannedStage, ...]
    view: TargetView | None
    verdict: Verdict
    stopped: str
    silence: str
    unwatched: bool
    journeys_healthy: bool
    journeys_red: str
    journeys_unheard: str
    now: dt.datetime


def advanced(scene: Scene, rollout: Rollout) -> Rollout:
    """The rollout after at most one hop."""
    phase = rollout.phase
    if isinstance(phase, (Advancing, Analyzing, Holding, Watching)) and scene.verdict.word == "fail":
        return condemned(scene, rollout, scene.verdict)
    if isinstance(phase, (Advancing, Analyzing, Holding)) and _retreated(scene, rollout):
        return turned_back(scene.policy, rollout, "lease", "nobody renewed the lease, so the target went back by itself", scene.now)
    if scene.view is not None and not rollout.terminal and (why := _overtaken(scene, rollout, scene.view)):
        return _superseded(scene, rollout, scene.view, why)
    match phase:
        case Waiting():
            return _waiting(scene, rollout, phase)
        case Advancing():
            return _advancing(scene, rollout, phase)
        case Analyzing():
            return _analyzing(scene, rollout, phase)
        case Holding():
            return _holding(scene, rollout, phase)
        case Watching():
            return _watching(scene, rollout, phase)
        case RollingBack():
            return _rolling_back(scene, rollout, phase)
        case Verifying():
            return _verifying(scene, rollout, phase)
        case Promoted() | RolledBack() | Failed() | Refused() | Superseded():
            return rollout
        case _:
            assert_never(phase)


def _overtaken(scene: Scene, rollout: Rollout, view: TargetView) -> str:
    """What somebody else rolled out since this rollout began, in words; empty when nobody did.

    Until the target has had this rollout's first word, what it says of the word before is an older rollout's business: then it is what
    runs that counts.
    """
    if view.fence >= rollout.first_seq:
        return view.superseded or _unrecorded(rollout, view)
    if view.source is None or view.adopted is None or rollout.kind != "candidate" or condemned_before(scene.document, view.adopted):
        return ""
    return "" if view.adopted == rollout.stable else view.superseded or "somebody else changed what runs since the rollout began"


def _unrecorded(rollout: Rollout, view: TargetView) -> str:
    """That the record of what the target was told is gone, and that it runs what this rollout never asked for; empty when it does not."""
    ours = view.told is not None or view.source is None or view.adopted in (None, rollout.stable, rollout.candidate)
    return "" if ours else "somebody else changed what runs, and took the record of the rollout away with it"


def _superseded(scene: Scene, rollout: Rollout, view: TargetView, text: str) -> Rollout:
    """Somebody else rolled something out: that is never fought. What is ours is taken away, and the rollout is at its end."""
    phase = rollout.phase
    match phase:
        case Watching():
            return entered(rollout, Promoted(), f"the watch is over: {text}", scene.now, shifts=False)
        case Verifying():
            return entered(rollout, RolledBack(phase.to, phase.why, phase.text), f"no relapse: {text}", scene.now, shifts=False)
        case RollingBack() if view.pending or view.fence != rollout.seq:
            return _overdue(scene, rollout, phase)
        case RollingBack() | Waiting():
            return entered(rollout, Superseded(text), text, scene.now, shifts=False)
        case _:
            return turned_back(scene.policy, rollout, "superseded", text, scene.now)


def _retreated(scene: Scene, rollout: Rollout) -> bool:
    return scene.view is not None and scene.view.retreated is not None and scene.view.retreated >= rollout.first_seq


def condemned(scene: Scene, rollout: Rollout, verdict: Verdict) -> Rollout:
    """The rollout with its FAIL latched, on the way back."""
    exposed = len(scene.view.running(rollout.candidate)) if scene.view else 0
    firsts = [e.first_bad for e in rollout.evidence.values() if e.first_bad is not None]
    latched = Latched(scene.now, verdict.reason, verdict.text, verdict.findings, exposed, rollout.wanted, min(firsts, default=None))
    back = RollingBack(rollout.stable, 0, "fail", verdict.text, scene.now + scene.policy.rollback.within)
    rollout = msgspec.structs.replace(rollout, latched=latched, decided=scene.now, findings=verdict.findings)
    data: dict[str, Any] = {"verdict": "fail", "reason": verdict.reason, "exposed": exposed, "wanted": rollout.wanted}
    data["findings"] = msgspec.to_builtins(verdict.findings)
    data["first_bad"] = latched.first_bad.isoformat() if latched.first_bad else None
    return entered(rollout, back, verdict.text, scene.now, shifts=True, data=data)


def _waiting(scene: Scene, rollout: Rollout, phase: Waiting) -> Rollout:
    if scene.view is None:
        return rollout
    reasons = []
    if why := frozen(scene.policy, scene.stopped, scene.now):
        reasons.append(why)
    if missing := unapproved(scene.policy, scene.stages[0], rollout.approved):
        reasons.append(f"approval of stage {missing[0]}")
    if rollout.paused:
        reasons.append(rollout.paused)
    if scene.journeys_unheard:
        reasons.append(f"the first walk of the probe {scene.journeys_unheard} on stable")
    if scene.journeys_red:
        reasons.append(f"the probe {scene.journeys_red} is red on stable")
    if tuple(reasons) == phase.reasons and reasons:
        return rollout
    if reasons:
        return entered(rollout, Waiting(tuple(reasons), scene.now), "for " + ", ".join(reasons), scene.now, shifts=False)
    return _to_stage(scene, rollout, 0)


def _to_stage(scene: Scene, rollout: Rollout, stage: int, why: str = "") -> Rollout:
    count, of = scene.stages[stage].count, len(scene.stages)
    beside = rollout.surge and not scene.stages[stage].full
    size = f"{count} beside {rollout.wanted} instances" if beside else f"{count} of {rollout.wanted} instances"
    text = f"stage {stage + 1}/{of}: {size}" + (f" ({why})" if why else "")
    deadline = scene.now + patience(scene.policy, scene.stages[stage], surge=rollout.surge)
    return entered(rollout, Advancing(stage, deadline), text, scene.now, shifts=True)


def _in_place(scene: Scene, rollout: Rollout, stage: int) -> bool:
    """The target carries this phase's own fence, and what runs is what the stage wants."""
    view = scene.view
    return view is not None and view.fence == rollout.seq and health.settled(view, rollout.candidate, scene.stages[stage].count)


def _advancing(scene: Scene, rollout: Rollout, phase: Advancing) -> Rollout:
    if _in_place(scene, rollout, phase.stage):
        soak = format_duration(scene.stages[phase.stage].soak)
        text = f"stage {phase.stage + 1}/{len(scene.stages)} for {soak}"
        return entered(rollout, Analyzing(phase.stage, scene.now, scene.now), text, scene.now, shifts=False)
    if scene.now < phase.deadline or scene.view is None:
        return rollout
    if finding := health.late(scene.view, rollout.candidate):
        return condemned(scene, rollout, Verdict("fail", "late", finding.text, (finding, *scene.verdict.findings)))
    why = health.unsettled_words(scene.view, rollout.candidate)
    return turned_back(scene.policy, rollout, "not_started", f"stage {phase.stage + 1} did not get in place: {why}", scene.now)


def _held(scene: Scene, rollout: Rollout, stage: int, why: HoldWord, text: str, *, advance: bool = False) -> Rollout:
    holding = Holding(stage, why, text, scene.now, "advance" if advance else "analyze")
    data = {"findings": msgspec.to_builtins(scene.verdict.findings)}
    return entered(rollout, holding, f"({why.replace('_', ' ')}) {text}", scene.now, shifts=False, data=data)


def _analyzing(scene: Scene, rollout: Rollout, phase: Analyzing) -> Rollout:
    if scene.silence:
        return _held(scene, rollout, phase.stage, "blind", scene.silence)
    view = scene.view
    if view is None:
        return rollout
    if view.fence < rollout.fence_seen:
        text = f"the target's fence went back from {rollout.fence_seen} to {view.fence}: somebody else wrote to it"
        return _held(scene, rollout, phase.stage, "drift", text)
    if not health.settled(view, rollout.candidate, scene.stages[phase.stage].count):
        return _to_stage(scene, rollout, phase.stage, f"again: {health.unsettled_words(view, rollout.candidate)}")
    if view.source_changed:
        return _held(scene, rollout, phase.stage, "source", view.source_changed)
    if rollout.paused:
        return _held(scene, rollout, phase.stage, "paused", rollout.paused)
    if scene.unwatched or view.fence < rollout.seq:
        return msgspec.structs.replace(rollout, phase=msgspec.structs.replace(phase, since=scene.now, entered=scene.now))
    return _judged(scene, rollout, phase)


def _judged(scene: Scene, rollout: Rollout, phase: Analyzing) -> Rollout:
    verdict, stage = scene.verdict, scene.stages[phase.stage]
    match verdict.word:
        case "pass":
            return _passed(scene, msgspec.structs.replace(rollout, findings=verdict.findings), phase.stage)
        case "blind" if verdict.reason == "too_few_samples":
            if scene.now - phase.since >= stage.soak + stage.longest:
                return _held(scene, rollout, phase.stage, "samples", verdict.text)
            return rollout
        case "blind":
            return _held(scene, rollout, phase.stage, "both_bad" if verdict.reason == "both_bad" else "blind", verdict.text)
        case _:
            return rollout


def _passed(scene: Scene, rollout: Rollout, stage: int) -> Rollout:
    """To the next stage, if every gate before it is open; after the last one the candidate becomes stable."""
    if why := frozen(scene.policy, scene.stopped, scene.now):
        return _held(scene, rollout, stage, "freeze", why, advance=True)
    following = stage + 1
    if following == len(scene.stages):
        text = "stable: it passed every stage; rollback stays armed"
        data = {"findings": msgspec.to_builtins(rollout.findings)}
        rollout = msgspec.structs.replace(rollout, decided=scene.now)
        return entered(rollout, Watching(scene.now + scene.policy.watch), text, scene.now, shifts=True, data=data)
    if missing := unapproved(scene.policy, scene.stages[following], rollout.approved):
        return _held(scene, rollout, stage, "approval", f"stage {missing[0]} must be approved", advance=True)
    return _to_stage(scene, rollout, following)


def _holding(scene: Scene, rollout: Rollout, phase: Holding) -> Rollout:
    if scene.view is None:
        return rollout
    if out := _retreating(scene, rollout, phase):
        return out
    sees = scene.verdict.word in ("pass", "undecided") or scene.verdict.reason == "too_few_samples"
    match phase.why:
        case "blind" | "both_bad":
            return _seeing_again(scene, scene.view, rollout, phase) if sees and not scene.silence else rollout
        case "samples":
            return _passed(scene, rollout, phase.stage) if scene.verdict.word == "pass" else rollout
        case "approval" | "freeze":
            return _passed(scene, rollout, phase.stage) if sees and _gates_open(scene, rollout, phase.stage) else rollout
        case "source":
            return rollout if scene.view.source_changed else _seeing_again(scene, scene.view, rollout, phase)
        case "paused" | "drift":
            return rollout  # a person's `resume` ends these
        case _:
            assert_never(phase.why)


def _seeing_again(scene: Scene, view: TargetView, rollout: Rollout, phase: Holding) -> Rollout:
    """Every required signal is back: the stage is watched anew, once what runs is what it wants."""
    if not health.settled(view, rollout.candidate, scene.stages[phase.stage].count):
        return _to_stage(scene, rollout, phase.stage, "again after the hold")
    if view.fence != rollout.seq:
        return rollout  # a driver that took over is about to put its own fence on the target
    text = f"stage {phase.stage + 1}/{len(scene.stages)}: signals are back, the soak starts anew"
    return entered(rollout, Analyzing(phase.stage, scene.now, scene.now), text, scene.now, shifts=False)


def _gates_open(scene: Scene, rollout: Rollout, stage: int) -> bool:
    if frozen(scene.policy, scene.stopped, scene.now):
        return False
    return stage + 1 >= len(scene.stages) or not unapproved(scene.policy, scene.stages[stage + 1], rollout.approved)


def _retreating(scene: Scene, rollout: Rollout, phase: Holding) -> Rollout | None:
    """At or below half of the instances a hold does not last for ever; above, and with a healthy probe while blind, it moves nothing."""
    if scene.stages[phase.stage].share > 0.5:
        return None
    held = scene.now - phase.since
    blind = scene.policy.blind
    if phase.why == "blind" and held >= blind.retreat_after and not scene.journeys_healthy:
        text = f"blind for {format_duration(blind.retreat_after)}: {phase.text}"
        return turned_back(scene.policy, rollout, "blind", text, scene.now)
    if held >= blind.hold_limit:
        text = f"held ({phase.why.replace('_', ' ')}) for {format_duration(blind.hold_limit)}: {phase.text}"
        return turned_back(scene.policy, rollout, "hold", text, scene.now)
    return None


def _watching(scene: Scene, rollout: Rollout, phase: Watching) -> Rollout:
    if scene.now < phase.until:
        blind = scene.silence or (scene.verdict.text if scene.verdict.word == "blind" and scene.verdict.reason == "missing" else "")
        if bool(blind) == bool(phase.blind):
            return rollout
        # Blind in the watch is told and moves nothing: the candidate is what serves everybody.
        rollout = msgspec.structs.replace(rollout, phase=msgspec.structs.replace(phase, blind=blind))
        return noted(rollout, "blind", f"blind while watching: {blind}" if blind else "watching with every signal again", scene.now)
    return entered(rollout, Promoted(), "the watch is over", scene.now, shifts=False)


def _overdue(scene: Scene, rollout: Rollout, phase: RollingBack) -> Rollout:
    """The rollout, with a word once that its way back takes too long."""
    if scene.now < phase.deadline or phase.overdue:
        return rollout
    late = health.not_restored(scene.view, phase.to) if scene.view else ()
    text = f"not complete within {format_duration(scene.policy.rollback.within)}" + (f": instances {', '.join(late)}" if late else "")
    rollout = msgspec.structs.replace(rollout, phase=msgspec.structs.replace(phase, overdue=True))
    return noted(rollout, "overdue", text, scene.now)


def _rolling_back(scene: Scene, rollout: Rollout, phase: RollingBack) -> Rollout:
    view = scene.view
    if view is not None and view.fence == rollout.seq and health.restored(view, phase.to):
        done = health.acknowledged(view, phase.to)
        text = f"{len(done)} of {rollout.wanted} instances have loaded the stable version"
        rollout = msgspec.structs.replace(rollout, restored=scene.now)
        until = scene.now + scene.policy.rollback.relapse_watch
        return entered(rollout, Verifying(phase.to, phase.rung, phase.why, phase.text, until, done), text, scene.now, shifts=False)
    if scene.now >= phase.deadline and not phase.overdue:
        return _overdue(scene, rollout, phase)
    if view is not None and view.fence == rollout.seq and scene.now >= _rung_ends(scene, phase):
        return _next_rung(scene, rollout, phase)
    return rollout


def _rung_ends(scene: Scene, phase: RollingBack) -> dt.datetime:
    """The rungs share the time of the way back evenly."""
    within, rungs = scene.policy.rollback.within, len(scene.policy.rollback.ladder) + 1
    return phase.deadline - within + within * (phase.rung + 1) / rungs


def _next_rung(scene: Scene, rollout: Rollout, phase: RollingBack) -> Rollout:
    ladder = scene.policy.rollback.ladder
    if phase.rung >= len(ladder):
        return rollout
    to, text = phase.to, "restarting what did not take the stable version"
    if ladder[phase.rung] == "older":
        older = [s.version for s in scene.document.stable if s.version not in (phase.to, rollout.candidate)]
        if not older:
            return rollout
        to, text = older[0], f"going back to the next older stable version {scene.document.name(older[0])}"
    following = msgspec.structs.replace(phase, to=to, rung=phase.rung + 1)
    return entered(rollout, following, text, scene.now, shifts=True)


def _verifying(scene: Scene, rollout: Rollout, phase: Verifying) -> Rollout:
    view = scene.view
    if view is None:
        return rollout
    exposed = view.running(rollout.candidate) if rollout.kind == "candidate" and rollout.candidate != phase.to else ()
    if exposed:
        text = f"relapse: instance {exposed[0].id} runs the candidate again"
        rung = min(phase.rung + 1, len(scene.policy.rollback.ladder))
        back = RollingBack(phase.to, rung, phase.why, phase.text, scene.now + scene.policy.rollback.within)
        return entered(rollout, back, text, scene.now, shifts=True)
    if scene.now >= phase.until:
        return entered(rollout, RolledBack(phase.to, phase.why, phase.text), "the relapse watch is over", scene.now, shifts=False)
    return rollout
