"""`status` and `history`: three facts apart: what serves, what is wanted, what the guard does.

A row is plain JSON with stable names, and the table is made from the rows:

| key | holds |
|---|---|
| `guard` | the guard's name |
| `serving` | `name`, `digest`, `since` (null when unknown), `stable`, `adopted`, `instances` (null when the target was not seen) |
| `wanted` | `name`, `digest` of what somebody wants to run |
| `phase`, `state` | the phase's name and its words; phase null when there was no rollout |
| `rollout` | the id of the present or last rollout, or null |
| `exposure` | `instances` on the candidate (null when not seen), `of`; null after promotion or without a rollout |
| `signals` | `live`, `of`, `blind` (names); null while nothing is judged |
| `rollback` | what going back would mean now, in words |
| `held`, `overdue` | why the rollout stands still (null when it does not); whether the way back takes too long |
| `driver` | `holder`, `until`, or null when nobody drives; `needs_driver` says whether somebody should |
| `unseen_s` | how long nobody has looked at the target of an unfinished rollout; null otherwise |
| `source` | `name`, `digest`, `quarantined` of what the sources in the cluster ask for; null when it is what serves, or is not known |
| `stopped` | why everything is stopped, or empty |
| `quarantine` | list of `digest`, `name`, `since`, `text` |
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from deployguard.model.document import Document
from deployguard.model.rollout import (
    Advancing,
    Analyzing,
    Holding,
    Promoted,
    RolledBack,
    RollingBack,
    Rollout,
    Verifying,
    Waiting,
    Watching,
    phase_name,
)
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.report.instants import age, instant, iso, running, spell, time_of_day
from deployguard.report.stages import checks_of
from deployguard.report.table import plain, table
from deployguard.report.versions import stable_of
from deployguard.report.words import entered_at, phase_words

LONG_UNSEEN = 60.0
"""Seconds after which an unfinished rollout that nobody looks at is mentioned."""
_FORWARD = (Advancing, Analyzing, Holding, Watching)


def status_rows(guards: Iterable[tuple[Document, TargetView | None]], now: dt.datetime, *, stopped: str = "") -> list[dict[str, Any]]:
    """One row for each guard, ready for JSON. `stopped` is what the stop switch says, empty when it is not set."""
    return [_row(document, view, now, stopped) for document, view in guards]


def _row(document: Document, view: TargetView | None, now: dt.datetime, stopped: str) -> dict[str, Any]:
    rollout = document.rollout
    claim = document.claim if document.claim is not None and document.claim.until > now else None
    phase = rollout.phase if rollout is not None else None
    return {
        "guard": document.guard,
        "serving": _serving(document, view, now),
        "wanted": _named(document, _wanted(document, view)),
        "source": _source(document, view),
        "phase": phase_name(phase) if phase is not None else None,
        "state": phase_words(rollout, now, name=document.name) if rollout is not None else "nothing rolled out yet",
        "rollout": rollout.id if rollout is not None else None,
        "exposure": _exposure(rollout, view),
        "signals": _signals(rollout),
        "rollback": _way_back(document, now),
        "held": {"why": phase.why, "since": iso(phase.since), "text": phase.text} if isinstance(phase, Holding) else None,
        "overdue": isinstance(phase, RollingBack) and phase.overdue,
        "driver": {"holder": claim.holder, "until": iso(claim.until)} if claim is not None else None,
        "needs_driver": rollout is not None and not rollout.terminal and claim is None,
        "unseen_s": round((now - rollout.updated).total_seconds()) if rollout is not None and not rollout.terminal else None,
        "stopped": stopped,
        "quarantine": [
            {"digest": q.digest, "name": document.names.get(q.digest, q.digest[7:17]), "since": iso(q.at), "text": q.text}
            for q in document.quarantine
        ],
    }


def _named(document: Document, version: Version | None) -> dict[str, Any] | None:
    return None if version is None else {"name": document.name(version), "digest": version.digest}


def _serving(document: Document, view: TargetView | None, now: dt.datetime) -> dict[str, Any] | None:
    """What most instances say they have loaded; without a look at the target, what is recorded as stable."""
    version, count = (document.stable[0].version if document.stable else None), None
    if view is not None:
        loaded = [i.loaded for i in view.instances if i.loaded is not None]
        if loaded:
            version = max(sorted(set(loaded)), key=loaded.count)
        count = sum(v == version for v in loaded)
        if version is None:
            version = view.adopted
    if version is None:
        return None
    known = stable_of(document, version)
    since = known.since if known is not None and known.since.year > 1 else None
    return {
        "name": document.name(version),
        "digest": version.digest,
        "since": iso(since),
        "age_s": round((now - since).total_seconds()) if since is not None else None,
        "stable": known is not None and not known.adopted,
        "adopted": known is not None and known.adopted,
        "instances": count,
    }


def _wanted(document: Document, view: TargetView | None) -> Version | None:
    """What somebody wants to run: the candidate of a rollout that goes on; else, in a cluster, what the sources ask for."""
    rollout = document.rollout
    if (
        view is not None
        and view.source is not None
        and not (rollout is not None and isinstance(rollout.phase, (Waiting, Advancing, Analyzing, Holding)))
    ):
        return view.source
    if rollout is None:
        return document.stable[0].version if document.stable else None
    return rollout.stable if rollout.kind == "return" else rollout.candidate


def _source(document: Document, view: TargetView | None) -> dict[str, Any] | None:
    """What the sources ask for beside what the workload runs: a condemned version comes back by them."""
    if view is None or view.source is None or view.source == view.adopted:
        return None
    parts = {view.source.release, view.source.config, view.source.digest}
    return {
        "name": document.name(view.source),
        "digest": view.source.digest,
        "quarantined": any(bad.digest in parts for bad in document.quarantine),
    }


def _exposure(rollout: Rollout | None, view: TargetView | None) -> dict[str, Any] | None:
    if rollout is None or rollout.kind == "return" or isinstance(rollout.phase, Promoted):
        return None
    if view is None:
        return {"instances": None, "of": rollout.wanted or None}
    return {"instances": len(view.running(rollout.candidate)), "of": view.wanted}


def _signals(rollout: Rollout | None) -> dict[str, Any] | None:
    if rollout is None or not isinstance(rollout.phase, _FORWARD):
        return None
    names = checks_of(rollout)
    blind = [name for name in names if name in rollout.evidence and rollout.evidence[name].gaps]
    unread = [name for name in names if name not in rollout.evidence]
    return {"live": len(names) - len(blind) - len(unread), "of": len(names), "blind": blind + unread}


def _way_back(document: Document, now: dt.datetime) -> str:
    """What going back would mean, or how the last one went."""
    rollout = document.rollout
    if rollout is not None:
        phase = rollout.phase
        if isinstance(phase, RollingBack):
            return (
                f"overdue, {running(now - entered_at(rollout))} so far"
                if phase.overdue
                else f"running {running(now - entered_at(rollout))}"
            )
        if isinstance(phase, (Verifying, RolledBack)):
            begun = next((s.at for s in rollout.trail if s.phase == "rolling_back"), None)
            return f"took {spell((rollout.restored - begun).total_seconds())}" if begun and rollout.restored else "nothing was exposed"
        if isinstance(phase, _FORWARD):
            return f"armed, to {document.name(rollout.stable)}"
    older = document.stable[1:2]
    return f"to {document.name(older[0].version)}" if older else "none older"


def status_text(rows: list[dict[str, Any]], now: dt.datetime | None = None) -> str:
    """The table for a terminal, and below it a line for each thing that needs attention; ends with a newline.

    With `now`, times that are not of today carry their date.
    """
    if not rows:
        return "no guards\n"
    head = ["GUARD", "SERVING", "WANTED", "STATE", "EXPOSURE", "SIGNALS", "ROLLBACK"]
    lines = table([head, *(_cells(row) for row in rows)])
    if stopped := next((row["stopped"] for row in rows if row["stopped"]), ""):
        lines.append(f"everything: {stopped}; the way back stays open")
    for row in rows:
        lines += [f"{row['guard']}: {text}" for text in _remarks(row, now)]
    return "\n".join(map(plain, lines)) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    serving, wanted, exposure = row["serving"], row["wanted"], row["exposure"]
    return [
        row["guard"],
        _serving_cell(serving) if serving else "<unknown>",
        wanted["name"] if wanted else "<none>",
        _first_part(row["state"]),
        f"{'?' if exposure['instances'] is None else exposure['instances']}/{exposure['of'] or '?'}" if exposure else "-",
        _signals_cell(row["signals"]),
        row["rollback"],
    ]


def _serving_cell(serving: dict[str, Any]) -> str:
    rank = "adopted" if serving["adopted"] else "stable" if serving["stable"] else "not stable"
    since = f" ({age(serving['age_s'])})" if serving["age_s"] is not None else ""
    return f"{serving['name']} {rank}{since}"


def _first_part(state: str) -> str:
    """The state without its reason, which stands below the table in full."""
    return state.split(": ", 1)[0]


def _signals_cell(signals: dict[str, Any] | None) -> str:
    if signals is None:
        return "-"
    blind = f" blind: {', '.join(signals['blind'])}" if signals["blind"] else ""
    return f"{signals['live']}/{signals['of']}{blind}"


def _remarks(row: dict[str, Any], now: dt.datetime | None) -> list[str]:
    found = []
    if _first_part(row["state"]) != row["state"]:
        found.append(row["state"])
    if row["overdue"]:
        found.append("the way back takes longer than the policy allows; it goes on")
    if row["driver"] is not None and row["phase"] not in (None, "promoted", "rolled_back", "failed", "refused", "superseded"):
        found.append(f"driven by {row['driver']['holder']}")
    elif row["needs_driver"]:
        # After a promotion, and after a rollback, a pipeline has ended as it should: only the watch for a relapse is left.
        settled = row["phase"] in ("watching", "verifying")
        what = "nobody watches it any more, which is as a finished run leaves it; to watch on" if settled else "nobody drives"
        found.append(f"{what}: `deployguard run --resume{' --watch' if settled else ''}`")
    if row["unseen_s"] is not None and row["unseen_s"] >= LONG_UNSEEN:
        found.append(f"nobody has looked at the target for {age(row['unseen_s'])}: that time is not watched")
    if row["source"] is not None and row["source"]["quarantined"]:
        found.append(f"the source still wants {row['source']['name']} (quarantined)")
    for bad in row["quarantine"]:
        at = instant(bad["since"])
        since = time_of_day(at, now or at) if at is not None else "an unknown time"
        found.append(f"{bad['name']} is quarantined since {since}: {bad['text']}")
    if row["serving"] is not None and row["serving"]["instances"] is None:
        found.append("the target was not seen; what serves is what was last recorded")
    return found
