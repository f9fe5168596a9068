"""The report for people and CI logs, and `why`: what happened, the evidence in order of weight, and what to do next.

Every number comes from the saved report or the ledger: `why` opens no connection. Plain lines, readable without colour.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from deployguard.model.document import Document
from deployguard.model.rollout import Entry
from deployguard.report.headline import headline
from deployguard.report.instants import instant, spell, time_of_day
from deployguard.report.numbers import arm_cell, evidence_cell, ranked, ratio_cell, verdict_cell
from deployguard.report.past import report_of_entries
from deployguard.report.table import plain, table
from deployguard.report.view import run_report
from deployguard.report.words import outcome, reason_words


def report_text(report: Mapping[str, Any]) -> str:
    """The end of a run, for its log: the outcome and its exit code, then what `why` says; ends with a newline."""
    first = f"{report['guard']}: {report['outcome']} (exit code {report['exit_code']})"
    lines = [f"{first}: {report['reason']}"] if report["rollout"] is None else [first, *_body(report)]
    return "\n".join(map(plain, lines)) + "\n"


def why_text(document: Document, now: dt.datetime, entries: Iterable[Entry] = ()) -> str:
    """Why the document's rollout stands where it stands; ends with a newline. `entries` add what people asked for."""
    rollout = document.rollout
    if rollout is None:
        stable = f": {document.name(document.stable[0].version)} is stable" if document.stable else ""
        return f"{document.guard}: nothing was rolled out yet{stable}\n"
    word, code, reason = outcome(rollout)
    return why_report(run_report(document, now=now, outcome=word, exit_code=code, reason=reason, entries=entries))


def why_entries(entries: Iterable[Entry], now: dt.datetime, names: Mapping[str, str] | None = None) -> str:
    """Why an older rollout ended as it did, from its ledger entries; ends with a newline. `names` as of `versions.names_of`."""
    report = report_of_entries(entries, now, names)
    return "the ledger has no entry of this rollout\n" if report is None else why_report(report)


def why_report(report: Mapping[str, Any]) -> str:
    """Why, from a report; ends with a newline."""
    return "\n".join(map(plain, _body(report))) + "\n"


def _body(report: Mapping[str, Any]) -> list[str]:
    now = instant(report["at"])
    assert now is not None
    lines = [headline(report, now), *check_lines(report["checks"], now)]
    for label, text in (
        ("exposure", exposure_words(report)),
        ("action", action_words(report, now)),
        ("quarantine", ", ".join(q["name"] for q in report["quarantined"])),
        ("asked", "; ".join(f"{p['text']} ({_clock(p['at'], now)})" for p in report["requests_by_people"])),
        ("override", report["override"]),
        ("next", next_words(report)),
    ):
        if text:
            lines.append(f"{label}: {text}")
    return lines


def _clock(text: str | None, now: dt.datetime) -> str:
    at = instant(text)
    return time_of_day(at, now) if at is not None else "unknown"


def check_lines(checks: list[dict[str, Any]], now: dt.datetime) -> list[str]:
    """One line for each check, the weightiest first: candidate and stable with their counts, ratio, evidence against its limit, verdict."""
    order = ranked(checks)
    rows = [
        [str(n), c["name"], arm_cell(c, "candidate"), arm_cell(c, "stable"), ratio_cell(c), evidence_cell(c), verdict_cell(c)]
        for n, c in enumerate(order, 1)
    ]
    lines = table(rows, indent=" ")
    found = []
    for line, check in zip(lines, order, strict=True):
        found.append(line)
        if check["verdict"] in ("fail", "blind") and check["reason"]:
            found.append(f"   {reason_words(check['reason'])}")
        if check["text"] and (not check["counts"] or (check["verdict"] == "fail" and check["evidence"] is None)):
            found.append(f"   {check['text']}")
        found += [
            f"   {arm} is silent since {_clock(gap['since'], now)}: {gap['reason']}{' ' + gap['detail'] if gap['detail'] else ''}"
            for arm, gap in check.get("silent", {}).items()
            if check["verdict"] != "pass"
        ]
    return found


def exposure_words(report: Mapping[str, Any]) -> str:
    """`1 of 20 instances for 9 s; 37 requests, 8 failed`; empty when nothing was ever exposed or known."""
    most = report["exposure_max"]
    if most is None or most["instances"] is None:
        return ""
    if not most["instances"]:
        return "none: no instance ever ran the candidate"
    text = f"at most {most['instances']} of {most['of'] or '?'} instances"
    if report["exposed_s"] is not None:
        text += f" for {spell(report['exposed_s'])}"
    requests, failed = report["requests"]["candidate"], report["failed_requests"]["candidate"]
    if requests is None:
        return f"{text}; requests not counted"
    return f"{text}; {requests} requests" + (f", {failed} failed" if failed is not None else "")


def action_words(report: Mapping[str, Any], now: dt.datetime) -> str:
    """What was done about it, and how it was confirmed."""
    version = report["back_to"] or report["stable"]
    stable = version["name"] if version else "the stable version"
    phase, confirmed = report["phase"], report["confirmed"]
    if phase == "rolling_back":
        return f"going back to {stable}; not complete yet"
    if confirmed is not None and phase in ("verifying", "rolled_back"):
        took = f" after {spell(report['restore_s'])}" if report["restore_s"] is not None else ""
        text = f"went back to {stable}; confirmed at {_clock(confirmed['at'], now)}{took}: {confirmed['text']}"
        if report["verifying_until"] is not None:
            text += f"; relapse watch until {_clock(report['verifying_until'], now)}"
        return text
    if phase == "holding":
        return "exposure stays as it is; nothing is promoted"
    if phase in ("advancing", "analyzing"):
        return f"going on; {stable} is the version to go back to"
    if phase == "watching":
        return f"promoted; the way back to {stable} stays armed"
    return ""


def next_words(report: Mapping[str, Any]) -> str:
    """What a person can do now; empty when there is nothing to do."""
    phase, held = report["phase"], report["held"]
    if phase == "rolling_back":
        return "go on with it: `deployguard run --resume`; see which instances did not come back: `deployguard status`"
    if report["quarantined"]:
        return "mend the change and run again; the same content is refused unless you give a reason: `--override 'why'`"
    if report["outcome"] == "refused":
        return "mend what the reason names and run again, or give a reason: `--override 'why'`"
    if held is not None:
        return {
            "paused": "go on with `deployguard resume`, or take it back with `deployguard abort`",
            "source": "put the source back, or take the candidate back with `deployguard abort`",
            "drift": "see who else changes the target, then `deployguard resume`, or `deployguard abort`",
            "approval": "let it go on with `deployguard approve`, or take it back with `deployguard abort`",
            "samples": "send more traffic or add a probe, then `deployguard resume`, or take it back with `deployguard abort`",
            "freeze": "it goes on by itself when the freeze is over; take it back with `deployguard abort`",
            "both_bad": "mend what is wrong with both versions; it goes on by itself, or take it back with `deployguard abort`",
        }.get(held["why"], "bring the signal back; it goes on by itself, or take it back with `deployguard abort`")
    if report["outcome"] in ("withdrawn", "interrupted") and phase in ("verifying", "rolled_back"):
        return "nothing is quarantined: run again when the reason is gone"
    return ""
