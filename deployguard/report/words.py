"""The words for each phase, verdict and outcome, in one place: `status`, reports, the live view and logs all say the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import NamedTuple, assert_never

from deployguard.model.evidence import VerdictWord
from deployguard.model.rollout import (
    Advancing,
    Analyzing,
    BackWord,
    Failed,
    Holding,
    HoldWord,
    OutcomeWord,
    Promoted,
    Refused,
    RolledBack,
    RollingBack,
    Rollout,
    Superseded,
    Verifying,
    Waiting,
    Watching,
    phase_name,
)
from deployguard.model.version import Version
from deployguard.report.instants import age, running, time_of_day
from deployguard.report.stages import stage_count

Named = Callable[[Version], str]


class Outcome(NamedTuple):
    """How a run ended: the word and the exit code of the report, and one sentence."""

    word: OutcomeWord
    exit_code: int
    reason: str


def short(version: Version) -> str:
    """The version's ten hex digits, where no names are known."""
    return version.short


def verdict_words(word: VerdictWord) -> str:
    """The verdict as one word for a table."""
    match word:
        case "pass":
            return "PASS"
        case "fail":
            return "FAIL"
        case "blind":
            return "BLIND"
        case "undecided":
            return "not yet"
        case _:
            assert_never(word)


def reason_words(reason: str) -> str:
    """The sentence for a verdict's reason; the reason itself when it is not one of the table's."""
    return {
        "veto": "a probe was red three times running on the candidate's path and green on stable's",
        "doomed": "an instance of the candidate cannot live",
        "late": "instances of the candidate run but did not become ready in time",
        "evidence": "the evidence against the candidate passed what the policy's confidence asks for",
        "both_bad": "both arms are bad, so the change is not to blame",
        "missing": "a required signal is missing",
        "too_few_samples": "the soak is over and the samples are too few",
        "soaking": "the soak is not over",
        "soaked": "the soak is over and every required check passes",
        "not_judged": "not judged in this phase",
        "": "nothing against the candidate so far",
    }.get(reason, reason.replace("_", " "))


def hold_words(why: HoldWord) -> str:
    """Why exposure stays as it is."""
    match why:
        case "blind":
            return "a required signal is silent"
        case "both_bad":
            return "both arms are bad"
        case "samples":
            return "the samples are too few"
        case "paused":
            return "somebody paused it"
        case "approval":
            return "a person must approve the next stage"
        case "drift":
            return "somebody else changed the target"
        case "source":
            return "somebody else changed the configuration's source"
        case "freeze":
            return "a freeze is on"
        case _:
            assert_never(why)


def back_words(why: BackWord) -> str:  # noqa: C901 - one arm for each word
    """Why the candidate was taken back."""
    match why:
        case "fail":
            return "it was judged bad"
        case "lease":
            return "nobody renewed the lease, so the target went back by itself"
        case "blind":
            return "a required signal stayed silent"
        case "samples":
            return "the samples stayed too few"
        case "approval":
            return "no approval came"
        case "hold":
            return "it was held for too long"
        case "abort":
            return "somebody aborted it"
        case "interrupted":
            return "the run was interrupted"
        case "rollback":
            return "somebody asked for the way back"
        case "not_started":
            return "its instances did not get in place"
        case "relapse":
            return "the candidate came back"
        case "timeout":
            return "the time for the run was over"
        case "superseded":
            return "somebody else rolled something out"
        case _:
            assert_never(why)


def entered_at(rollout: Rollout) -> dt.datetime:
    """When the present phase was entered, as far as the trail says."""
    name = phase_name(rollout.phase)
    return next((step.at for step in reversed(rollout.trail) if step.phase == name), rollout.started)


def phase_words(rollout: Rollout, now: dt.datetime, *, name: Named = short) -> str:
    """What the guard does now: `STAGE 2/4 soak 3:10`, `HELD (blind) 0:12: errors is silent`, `ROLLED_BACK 2m ago`."""
    phase, since = rollout.phase, now - entered_at(rollout)
    match phase:
        case Waiting():
            return "WAITING for " + ", ".join(phase.reasons) if phase.reasons else "WAITING, about to start"
        case Advancing():
            return f"STAGE {_stage(rollout, phase.stage)} getting in place {running(since)}"
        case Analyzing():
            return f"STAGE {_stage(rollout, phase.stage)} soak {running(now - phase.since)}"
        case Holding():
            return f"HELD ({phase.why.replace('_', ' ')}) {running(now - phase.since)}: {phase.text or hold_words(phase.why)}"
        case Watching():
            return f"STABLE, watched until {time_of_day(phase.until, now, seconds=False)}"
        case RollingBack():
            late = " (overdue)" if phase.overdue else ""
            return f"ROLLING_BACK to {name(phase.to)}{late}: {phase.text or back_words(phase.why)}"
        case Verifying():
            return f"VERIFYING until {time_of_day(phase.until, now, seconds=False)}"
        case Promoted() | RolledBack() | Failed() | Refused() | Superseded():
            return _ended_words(rollout, phase, now)
        case _:
            assert_never(phase)


def _ended_words(rollout: Rollout, phase: Promoted | RolledBack | Failed | Refused | Superseded, now: dt.datetime) -> str:
    since = age(now - entered_at(rollout))
    match phase:
        case Promoted():
            return f"PROMOTED {since} ago"
        case RolledBack():
            done = age(now - (rollout.restored or entered_at(rollout)))
            return f"ROLLED_BACK {done} ago" + (f" ({phase.why.replace('_', ' ')})" if phase.why != "fail" else "")
        case Failed():
            return f"FAILED {since} ago: {phase.text}"
        case Refused():
            return f"REFUSED {since} ago: {phase.text}"
        case Superseded():
            return f"SUPERSEDED {since} ago: {phase.text}"
        case _:
            assert_never(phase)


def _stage(rollout: Rollout, stage: int) -> str:
    of = stage_count(rollout)
    return f"{stage + 1}/{of}" if of else f"{stage + 1}"


def outcome(rollout: Rollout, *, interrupted: bool = False, timeout: bool = False, asked: bool = False) -> Outcome:
    """How the run stands, as word, exit code and sentence.

    `timeout` and `interrupted`: the run ends for this reason, whether or not the candidate is back already. `asked`: this very command
    asked for the way back, so that a complete one is its success.
    """
    phase = rollout.phase
    match phase:
        case Watching() | Promoted():
            return Outcome("promoted", 0, "it passed every stage")
        case Verifying() | RolledBack():
            return _taken_back(rollout, phase, timeout=timeout, asked=asked)
        case RollingBack():
            why = phase.text or back_words(phase.why)
            return Outcome("failed", 11, f"the way back is not complete: {why}")
        case Refused():
            return Outcome("refused", 13, phase.text)
        case Superseded():
            return Outcome("superseded", 14, phase.text)
        case Failed():
            return Outcome("failed", 1, phase.text)
        case Waiting() | Advancing() | Analyzing() | Holding():
            return _going(rollout, interrupted=interrupted, timeout=timeout)
        case _:
            assert_never(phase)


def _going(rollout: Rollout, *, interrupted: bool, timeout: bool) -> Outcome:
    where = phase_words(rollout, rollout.updated)
    if timeout:
        return Outcome("failed", 124, f"the time for the run was over: {where}")
    if interrupted:
        return Outcome("interrupted", 130, f"the run was interrupted: {where}")
    return Outcome("failed", 1, f"it is not at its end: {where}")


def _taken_back(rollout: Rollout, phase: Verifying | RolledBack, *, timeout: bool, asked: bool) -> Outcome:
    text = phase.text or back_words(phase.why)
    if rollout.kind == "return":
        return Outcome("rolled_back", 0 if asked else 12, text)
    match phase.why:
        case "fail":
            return Outcome("rolled_back", 0 if asked else 10, text)
        case "timeout":
            return Outcome("withdrawn", 124, text)
        case "interrupted":
            return Outcome("withdrawn", 124, back_words("timeout")) if timeout else Outcome("interrupted", 130, text)
        case "superseded":
            return Outcome("superseded", 14, text)
        case "abort" | "rollback":
            return Outcome("rolled_back" if asked else "withdrawn", 0 if asked else 12, text)
        case "lease" | "blind" | "samples" | "approval" | "hold" | "not_started" | "relapse":
            return Outcome("withdrawn", 12, text)
        case _:
            assert_never(phase.why)
