"""The report of an older rollout, as far as its ledger entries tell it: the document keeps only the present one."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Any

from deployguard.model.rollout import Entry
from deployguard.report.findings import recorded_json
from deployguard.report.instants import iso
from deployguard.report.view import bare_report

_OUTCOME: dict[str, Any] = {
    "promoted": ("promoted", 0),
    "watching": ("promoted", 0),
    "refused": ("refused", 13),
    "superseded": ("superseded", 14),
}
_STAGE = re.compile(r"(\d+) of (\d+) instances")


def report_of_entries(entries: Iterable[Entry], now: dt.datetime, names: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """The report that the entries of one rollout amount to; None when there are none. What they do not say is null."""
    found = sorted({e.n: e for e in entries}.values(), key=lambda e: e.n)
    if not found:
        return None
    moves = [e for e in found if e.event == "transition"] or found
    first, last = moves[0], moves[-1]
    decision = next((e for e in moves if e.data.get("verdict") == "fail"), None)
    judged = decision or next((e for e in reversed(moves) if e.data.get("findings")), None)
    back = next((e for e in moves if e.phase == "rolling_back"), None)
    verified = next((e for e in reversed(moves) if e.phase == "verifying"), None)
    passed = next((e for e in moves if e.phase == "watching"), None)
    checks = [recorded_json(f) for f in judged.data.get("findings", ())] if judged is not None else []
    outcome, code, reason = _ended(last, decision, back or last)
    ended = decision or back or passed
    report = bare_report(first.guard, outcome, code, reason, now)
    return {
        **report,
        "rollout": first.rollout,
        "kind": "return" if first.phase == "rolling_back" else "candidate",
        "phase": last.phase,
        "state": f"{last.phase.upper()}: {last.text}",
        "stable": _version(first.data.get("stable"), names or {}),
        "back_to": _version(first.data.get("stable"), names or {}) if last.phase in ("rolling_back", "verifying", "rolled_back") else None,
        "candidate": _version(first.data.get("candidate"), names or {}),
        "exposure_max": _exposure(moves, decision),
        "started": iso(found[0].at),
        "decided": iso(ended.at) if ended is not None else None,
        "restored": iso(verified.at) if verified is not None else None,
        "confirmed": {"at": iso(verified.at), "text": verified.text} if verified is not None else None,
        "restore_s": (verified.at - back.at).total_seconds() if verified is not None and back is not None else None,
        **_requests(checks),
        "checks": checks,
        "trail": [{"at": iso(e.at), "phase": e.phase, "text": e.text} for e in moves],
        "requests_by_people": [
            {"at": iso(e.at), "who": str(e.data.get("who", "")), "verb": str(e.data.get("verb", "")), "text": e.text}
            for e in found
            if e.event == "request"
        ],
    }


def _ended(last: Entry, decision: Entry | None, back: Entry) -> tuple[Any, int, str]:
    if last.phase in _OUTCOME:
        word, code = _OUTCOME[last.phase]
        return word, code, last.text
    if last.phase in ("verifying", "rolled_back"):
        return ("rolled_back", 10, decision.text) if decision is not None else ("withdrawn", 12, back.text)
    if last.phase == "rolling_back":
        return "failed", 11, back.text
    return "failed", 1, last.text


def _version(digest: Any, names: Mapping[str, str]) -> dict[str, Any] | None:
    """The version by the digest of its pair: the ledger does not hold its components."""
    if not isinstance(digest, str) or not digest:
        return None
    return {"digest": digest, "release": None, "config": None, "name": names.get(digest, digest[7:17])}


def _requests(checks: list[dict[str, Any]]) -> dict[str, Any]:
    """Requests by arm up to the decision, as the busiest check that compares arms counted them; null when none did."""
    counted = [c["counts"] for c in checks if c["evidence"] is not None]
    busiest: dict[str, Any] = max(counted, key=lambda c: sum(x["total"] for x in c.values()), default={})
    arms = {arm: busiest.get(arm) for arm in ("stable", "candidate")}
    return {
        "requests": {arm: round(c["total"]) if c else None for arm, c in arms.items()},
        "failed_requests": {arm: round(c["bad"]) if c else None for arm, c in arms.items()},
    }


def _exposure(moves: Iterable[Entry], decision: Entry | None) -> dict[str, Any] | None:
    """The largest stage that was entered, or what was exposed at the FAIL."""
    stages = [match for e in moves if e.phase == "advancing" and (match := _STAGE.search(e.text))]
    if decision is not None and "wanted" in decision.data:
        most, of = int(decision.data.get("exposed", 0)), int(decision.data["wanted"])
    elif stages:
        most, of = max((int(m[1]), int(m[2])) for m in stages)
    else:
        return None
    return {"instances": most, "of": of or None, "share": most / of if of else None}
