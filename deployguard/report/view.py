"""The run report: one JSON form from which every other one (text, Markdown, JUnit) is derived.

Absence is never zero: what is not known is null.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from deployguard.model.document import Document
from deployguard.model.evidence import CountsEvidence
from deployguard.model.rollout import Entry, Holding, OutcomeWord, RolledBack, RollingBack, Rollout, Verifying, phase_name
from deployguard.model.version import Version
from deployguard.report.findings import checks_json
from deployguard.report.instants import iso
from deployguard.report.versions import stable_of, version_json
from deployguard.report.words import phase_words

SCHEMA = "deployguard.dev/report/v1"
BACK = (RollingBack, Verifying, RolledBack)
"""Phases that name the version gone back to, which is an older one than stable on the last rung."""


def run_report(
    document: Document, *, now: dt.datetime, outcome: OutcomeWord, exit_code: int, reason: str, entries: Iterable[Entry] = ()
) -> dict[str, Any]:
    """The report of the document's rollout, ready for JSON; without a rollout, the bare one.

    `entries` are ledger entries of the rollout, from which people's requests are told; without them those not yet delivered.
    """
    rollout = document.rollout
    report = bare_report(document.guard, outcome, exit_code, reason, now)
    if rollout is None:
        return {**report, **_settled(document)}
    return {
        **report,
        "rollout": rollout.id,
        "kind": rollout.kind,
        "target": rollout.target,
        "phase": phase_name(rollout.phase),
        "state": phase_words(rollout, now, name=document.name),
        "stable": version_json(document, rollout.stable),
        "stable_since": _since(document, rollout.stable),
        "stable_adopted": rollout.adopted,
        "back_to": version_json(document, rollout.phase.to) if isinstance(rollout.phase, BACK) else None,
        "candidate": version_json(document, rollout.candidate),
        "override": rollout.override,
        "exposure_max": _exposure(rollout),
        **_requests(rollout),
        **_times(rollout, now),
        "checks": checks_json(rollout),
        "trail": [{"at": iso(s.at), "phase": s.phase, "text": s.text} for s in rollout.trail],
        "quarantined": [
            {"digest": q.digest, "name": document.names.get(q.digest, q.digest[7:17]), "at": iso(q.at), "text": q.text}
            for q in document.quarantine
            if q.rollout == rollout.id
        ],
        "requests_by_people": _people(rollout, entries),
    }


def unchanged_report(document: Document, *, now: dt.datetime, reason: str = "the candidate is stable already") -> dict[str, Any]:
    """The report of a run that had nothing to do: no rollout was opened, whatever an earlier one left in the document."""
    return {**bare_report(document.guard, "unchanged", 0, reason, now), **_settled(document)}


def refused_report(
    document: Document, *, now: dt.datetime, reason: str, candidate: Version | None = None, exit_code: int = 13
) -> dict[str, Any]:
    """The report of a run whose change was refused before a rollout was opened."""
    report = {**bare_report(document.guard, "refused", exit_code, reason, now), **_settled(document)}
    return {**report, "candidate": version_json(document, candidate) if candidate is not None else None}


def bare_report(guard: str, outcome: OutcomeWord, exit_code: int, reason: str, now: dt.datetime) -> dict[str, Any]:
    """A report with every key, of a run about which nothing but its end is known."""
    return {
        "schema": SCHEMA,
        "guard": guard,
        "outcome": outcome,
        "exit_code": exit_code,
        "reason": reason,
        "at": iso(now),
        "rollout": None,
        "kind": None,
        "target": None,
        "phase": None,
        "state": None,
        "stable": None,
        "stable_since": None,
        "stable_adopted": False,
        "back_to": None,
        "candidate": None,
        "override": "",
        "exposure_max": None,
        "requests": {"stable": None, "candidate": None},
        "failed_requests": {"stable": None, "candidate": None},
        "started": None,
        "exposed": None,
        "first_bad": None,
        "held": None,
        "decided": None,
        "restored": None,
        "confirmed": None,
        "verifying_until": None,
        "detection_s": None,
        "restore_s": None,
        "exposed_s": None,
        "checks": [],
        "trail": [],
        "quarantined": [],
        "requests_by_people": [],
    }


def _settled(document: Document) -> dict[str, Any]:
    """What is known without a rollout: the stable version."""
    if not document.stable:
        return {}
    first = document.stable[0]
    return {
        "stable": version_json(document, first.version),
        "stable_since": _since(document, first.version),
        "stable_adopted": first.adopted,
    }


def _since(document: Document, version: Version) -> str | None:
    found = stable_of(document, version)
    # A version that was found running carries the first of all instants until a rollout has recorded it.
    return iso(found.since) if found is not None and found.since.year > 1 else None


def _exposure(rollout: Rollout) -> dict[str, Any] | None:
    if rollout.kind == "return":
        return None
    share = rollout.exposed_most / rollout.wanted if rollout.wanted else None
    return {"instances": rollout.exposed_most, "of": rollout.wanted or None, "share": share}


def _requests(rollout: Rollout) -> dict[str, Any]:
    """Users' requests by arm since the start: as the target counts them, else as the busiest check does, else unknown."""
    arms = {"stable": rollout.stable, "candidate": rollout.candidate}
    if rollout.served:
        pairs = {arm: _served(rollout, version) for arm, version in arms.items()}
    else:
        known = [e.counted for e in rollout.evidence.values() if isinstance(e, CountsEvidence)]
        counted = max(known, key=lambda c: sum(x.total for x in c.values()), default={})
        pairs = {arm: (round(c.total), round(c.bad)) if (c := counted.get(arm)) else (None, None) for arm in arms}
    return {
        "requests": {arm: total for arm, (total, _) in pairs.items()},
        "failed_requests": {arm: bad for arm, (_, bad) in pairs.items()},
    }


def _served(rollout: Rollout, version: Version) -> tuple[int | None, int | None]:
    now, before = rollout.served.get(version.digest), rollout.served_before.get(version.digest)
    if now is None:
        # A target that counts by version and has no row for one that never ran has served nothing of it.
        return (0, 0) if before is None and version == rollout.candidate and not rollout.exposed_most else (None, None)
    if before is None:
        return now.requests, now.failed
    if now.requests < before.requests or now.failed < before.failed:
        return None, None
    return now.requests - before.requests, now.failed - before.failed


def _times(rollout: Rollout, now: dt.datetime) -> dict[str, Any]:
    latched, phase = rollout.latched, rollout.phase
    back = next((s.at for s in rollout.trail if s.phase == "rolling_back"), None)
    verified = next((s for s in reversed(rollout.trail) if s.phase == "verifying"), None)
    first_bad = latched.first_bad if latched is not None else None
    decided = latched.at if latched is not None else back or rollout.decided
    # After a relapse the instant of the first return stays in the rollout, but nothing is restored any more.
    restored = rollout.restored if back is not None and not isinstance(phase, RollingBack) else None
    ended = restored or (rollout.updated if rollout.terminal else now)
    return {
        "started": iso(rollout.started),
        "exposed": iso(rollout.exposed_since),
        "first_bad": iso(first_bad),
        "held": {"why": phase.why, "since": iso(phase.since), "text": phase.text} if isinstance(phase, Holding) else None,
        "decided": iso(decided),
        "restored": iso(restored),
        "confirmed": {"at": iso(verified.at), "text": verified.text} if verified is not None else None,
        "verifying_until": iso(phase.until) if isinstance(phase, Verifying) else None,
        "detection_s": _seconds(first_bad, decided),
        "restore_s": _seconds(back, restored),
        "exposed_s": _seconds(rollout.exposed_since, ended),
    }


def _seconds(begin: dt.datetime | None, end: dt.datetime | None) -> float | None:
    return None if begin is None or end is None else round(max(0.0, (end - begin).total_seconds()), 3)


def _people(rollout: Rollout, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """What people asked for, oldest first, each once."""
    asked = {e.n: e for e in (*entries, *rollout.outbox) if e.rollout == rollout.id and e.event == "request"}
    return [
        {"at": iso(e.at), "who": str(e.data.get("who", "")), "verb": str(e.data.get("verb", "")), "text": e.text}
        for _, e in sorted(asked.items())
    ]
