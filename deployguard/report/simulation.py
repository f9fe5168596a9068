"""What a draft policy would have done with recorded rollouts, beside what really happened: rows, and lists of what differs."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployguard.engine.simulate import Simulated
from deployguard.model.rollout import Advancing, Analyzing, Entry, Holding, Promoted, RolledBack, RollingBack, Verifying, Waiting, Watching
from deployguard.report.findings import recorded_json
from deployguard.report.instants import iso

CAUGHT, MISSED, NEW_STOP, TAKEN_BACK, PASSED, UNDECIDED, OTHER, SKIPPED = (
    "caught",
    "missed",
    "new_stop",
    "taken_back",
    "passed",
    "undecided",
    "other",
    "skipped",
)
_STAGE = re.compile(r"stage (\d+)/\d+")
_PEOPLE = ("abort", "interrupted", "rollback", "timeout")


def really(entries: Sequence[Entry]) -> dict[str, Any]:
    """What happened, from the ledger: `how` is stopped (judged bad), taken_back, passed, ended (nothing was exposed) or open.

    `bad`: it was judged bad, or a person rolled it back. `stages` say when each was passed.
    """
    moves = [e for e in entries if e.event == "transition"]
    began = entries[0].at if entries else None
    failed = next((e for e in moves if e.data.get("verdict") == "fail"), None)
    back = next((e for e in moves if e.phase == "rolling_back"), None)
    passed = next((e for e in moves if e.phase == "watching"), None)
    ended = next((e for e in moves if e.phase in ("refused", "superseded", "rolled_back", "failed")), None)
    how, last = next(
        (word, e)
        for word, e in (("stopped", failed), ("taken_back", back), ("passed", passed), ("ended", ended), ("open", None))
        if e or word == "open"
    )
    asked = {e.at for e in entries if e.event == "request" and e.data.get("verb") == "rollback"}
    findings = failed.data.get("findings", ()) if failed is not None else ()
    return {
        "how": how,
        "bad": failed is not None or (back is not None and back.at in asked),
        "at": iso(last.at) if last is not None else None,
        "after_s": _after(began, last.at) if last is not None else None,
        "text": last.text if last is not None else (moves[-1].text if moves else ""),
        "checks": [recorded_json(f) for f in findings],
        "passed": _passed_stages(moves, began),
        "promoted": iso(passed.at) if passed is not None else None,
    }


def _passed_stages(moves: Iterable[Entry], began: dt.datetime | None) -> dict[str, float]:
    """Seconds from the start at which each stage, counted from 1, was passed."""
    found: dict[str, float] = {}
    stage = 0
    for entry in moves:
        match = _STAGE.match(entry.text) if entry.phase in ("advancing", "analyzing") else None
        following = int(match[1]) if match else (stage + 1 if entry.phase == "watching" and stage else stage)
        for before in range(max(stage, 1), following):
            found.setdefault(str(before), _after(began, entry.at) or 0.0)
        stage = max(stage, following)
    return found


def _after(began: dt.datetime | None, at: dt.datetime) -> float | None:
    return None if began is None else round((at - began).total_seconds(), 3)


def drafted(found: Simulated, began: dt.datetime | None) -> dict[str, Any]:
    """What the draft would have done: `how` is stopped, taken_back, passed, held or undecided, at the end of what was recorded."""
    rollout, phase = found.rollout, found.rollout.phase
    passed = found.draft.entered(Watching, Promoted)
    back = found.draft.entered(RollingBack, RolledBack)
    by_person = back is not None and isinstance(back.phase, (RollingBack, RolledBack)) and back.phase.why in _PEOPLE
    at, text = found.until, "not stopped by the end of what was recorded"
    if rollout.latched is not None:
        how, at, text = "stopped", rollout.latched.at, rollout.latched.text
    elif back is not None and not by_person:
        how, at = "taken_back", back.at
        text = back.phase.text if isinstance(back.phase, (RollingBack, RolledBack, Verifying)) else ""
    elif passed is not None:
        how, at, text = "passed", passed.at, "passed every stage"
    elif isinstance(phase, (Holding, Waiting)):
        turn = found.draft.turns[-1]
        why = f"({phase.why.replace('_', ' ')}) {phase.text}" if isinstance(phase, Holding) else "for " + ", ".join(phase.reasons)
        how, at, text = "held", turn.at, why
    else:
        how = "undecided"
    findings = rollout.latched.findings if rollout.latched is not None else rollout.findings
    return {
        "how": how,
        "at": iso(at),
        "after_s": _after(began, at),
        "text": text,
        "checks": [_finding(f) for f in findings],
        "passed": {str(stage + 1): _after(began, when) for stage, when in sorted(found.draft.passed().items())},
        "promoted": iso(passed.at) if passed is not None else None,
        "until": iso(found.until),
        "until_s": _after(began, found.until),
        "stage": phase.stage + 1 if isinstance(phase, (Advancing, Analyzing, Holding)) else None,
    }


def _finding(finding: Any) -> dict[str, Any]:
    import msgspec

    return recorded_json(msgspec.to_builtins(finding))


def row(rollout: str, entries: Sequence[Entry], found: Simulated | None, *, bad: bool, skipped: str = "", **more: Any) -> dict[str, Any]:
    """One rollout. `bad`: a person says that it was, whatever was judged then."""
    began = entries[0].at if entries else None
    real = really(entries)
    real["bad"] = real["bad"] or bad
    draft = drafted(found, began) if found is not None else None
    return {
        "rollout": rollout,
        "candidate": next((str(e.data["candidate"]) for e in entries if e.data.get("candidate")), None),
        "started": iso(began),
        "result": result(real, draft),
        "really": real,
        "draft": draft,
        "earlier_s": _earlier(real, draft),
        "skipped": skipped,
        "lost": [iso(at) for at in found.lost] if found is not None else [],
        **more,
    }


def _earlier(real: Mapping[str, Any], draft: Mapping[str, Any] | None) -> float | None:
    """How much earlier the draft stops it, or lets it pass; negative: later. None when they do not end alike."""
    if draft is None or draft["how"] != real["how"] or draft["after_s"] is None or real["after_s"] is None:
        return None
    return round(float(real["after_s"]) - float(draft["after_s"]), 3)


def result(real: Mapping[str, Any], draft: Mapping[str, Any] | None) -> str:
    """One word for the comparison."""
    if draft is None:
        return SKIPPED
    how = draft["how"]
    if real["bad"]:
        return {"stopped": CAUGHT, "taken_back": TAKEN_BACK}.get(how, MISSED)
    if how == "stopped":
        return NEW_STOP
    if real["how"] != "passed":
        return OTHER
    return {"taken_back": TAKEN_BACK, "passed": PASSED}.get(how, UNDECIDED)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rollouts by what became of them: `missed` is the list of bad ones that the draft would not have stopped."""
    by = {
        word: [r["rollout"] for r in rows if r["result"] == word]
        for word in (CAUGHT, MISSED, NEW_STOP, TAKEN_BACK, PASSED, UNDECIDED, OTHER, SKIPPED)
    }
    tried = [r for r in rows if r["draft"] is not None]
    bad = sum(r["really"]["bad"] for r in tried)
    good = sum(r["really"]["how"] == "passed" and not r["really"]["bad"] for r in tried)
    return {"rollouts": len(rows), "bad": bad, "good": good, **by}
