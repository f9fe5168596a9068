"""A simulation for people and for merge requests. The words of `really` and `draft` are those of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployguard.report.instants import spell
from deployguard.report.markdown import markdown_table, markdown_text
from deployguard.report.numbers import arm_cell, evidence_cell, ranked
from deployguard.report.simulation import CAUGHT, MISSED, NEW_STOP, OTHER, PASSED, SKIPPED, TAKEN_BACK, UNDECIDED
from deployguard.report.table import plain, table

_WORDS = {
    CAUGHT: "caught",
    MISSED: "MISSED",
    NEW_STOP: "NEW STOP",
    TAKEN_BACK: "taken back",
    PASSED: "passed",
    UNDECIDED: "undecided",
    OTHER: "-",
    SKIPPED: "not tried",
}
_HEAD = ["ROLLOUT", "RESULT", "REALLY", "DRAFT"]
CAVEAT = "a rollout that was stopped is recorded up to its stop alone: a draft that needs longer than that counts as missing it"


def simulation_text(data: Mapping[str, Any]) -> str:
    """The table, then what differs, then what the recordings could not answer; ends with a newline."""
    rows: Sequence[Mapping[str, Any]] = data["rollouts"]
    lines = [f"{data['draft']}, on {len(rows)} recorded rollouts of {data['guard']}", ""]
    for line, one in zip(table([_HEAD, *map(cells, rows)]), [None, *rows], strict=True):
        lines.append(line)
        lines += [f"    {text}" for text in (details(one) if one is not None else ())]
    return "\n".join(map(plain, [*lines, "", *ends(data)])) + "\n"


def simulation_markdown(data: Mapping[str, Any]) -> str:
    """The same for a merge request; ends with a newline."""
    rows: Sequence[Mapping[str, Any]] = data["rollouts"]
    title = f"### {markdown_text(data['draft'])}, on {len(rows)} recorded rollouts of {markdown_text(data['guard'])}"
    notes = [f"- {markdown_text(line)}" for line in ends(data)]
    shown = [r for r in rows if r["result"] in (MISSED, NEW_STOP, TAKEN_BACK)]
    notes += [f"- {markdown_text(r['rollout'])}: {markdown_text(text)}" for r in shown for text in details(r)]
    return "\n\n".join([title, markdown_table([_HEAD, *map(cells, rows)]), "\n".join(notes)]) + "\n"


def cells(one: Mapping[str, Any]) -> list[str]:
    """The row of a table."""
    real = one["really"]
    did = {
        "stopped": "judged bad",
        "taken_back": "taken back",
        "passed": "promoted",
        "ended": "ended before any exposure",
        "open": "still going on",
    }
    really = did[real["how"]] + _when(real["after_s"]) + (", bad" if real["bad"] and real["how"] != "stopped" else "")
    draft = one["draft"]
    if draft is None:
        return [one["rollout"], _WORDS[one["result"]], really, one["skipped"]]
    would = {
        "stopped": "stops it",
        "taken_back": "takes it back",
        "passed": "promotes it",
        "held": "holds it",
        "undecided": "still watching",
    }
    stage = f" stage {draft['stage']}" if draft["stage"] else ""
    when = _when(draft["after_s"]) if draft["how"] != "undecided" else f"{stage} at the end, {spell(draft['until_s'] or 0)}"
    return [one["rollout"], _WORDS[one["result"]], really, would[draft["how"]] + when + _compared(one["earlier_s"])]


def _when(seconds: float | None) -> str:
    return "" if seconds is None else f" after {spell(seconds)}"


def _compared(earlier: float | None) -> str:
    if earlier is None:
        return ""
    if earlier == 0:
        return ", as it was"
    return f", {spell(abs(earlier))} {'earlier' if earlier > 0 else 'later'}"


def details(one: Mapping[str, Any]) -> list[str]:
    """By which check and with what numbers a rollout was stopped or not, and when stages were passed, where that is not as it was."""
    draft, real = one["draft"], one["really"]
    if draft is None or one["result"] == OTHER:
        return []
    lines = [draft["text"]] if draft["how"] in ("held", "taken_back") or one["result"] == MISSED else []
    if one["result"] in (MISSED, NEW_STOP) or (one["result"] == CAUGHT and one["earlier_s"]):
        failed = [c for c in ranked(draft["checks"]) if c["verdict"] == "fail"]
        lines += map(_numbers, failed if draft["how"] == "stopped" else ranked(draft["checks"])[:2])
    if draft["passed"] != real["passed"] and (draft["passed"] or real["passed"]) and one["result"] != MISSED:
        lines.append(f"stages passed after: {_seconds(draft['passed'])}; really: {_seconds(real['passed'])}")
    return lines


def _numbers(check: Mapping[str, Any]) -> str:
    arms = ", ".join(arm_cell(check, arm) for arm in ("candidate", "stable") if arm in check["counts"])
    return "; ".join(part for part in (f"{check['name']}: {arms}" if arms else check["text"], evidence_cell(check)) if part)


def _seconds(passed: Mapping[str, float]) -> str:
    return ", ".join(spell(seconds) for seconds in passed.values()) or "none by then"


def ends(data: Mapping[str, Any]) -> list[str]:
    """The summary, and what the recordings could not answer."""
    s = data["summary"]
    lines = [
        f"bad rollouts: {s['bad']}; the draft stops {len(s[CAUGHT])}, misses {len(s[MISSED])}{_list(s[MISSED])}",
        f"good rollouts: {s['good']}; the draft promotes {len(s[PASSED])}, stops {len(s[NEW_STOP])}{_list(s[NEW_STOP])}",
    ]
    for word, text in ((TAKEN_BACK, "taken back without a verdict"), (UNDECIDED, "good, and not decided by the end of what was recorded")):
        if s[word]:
            lines.append(f"{text}: {len(s[word])}{_list(s[word])}")
    if s[SKIPPED]:
        lines.append(f"not tried: {len(s[SKIPPED])}")
    lines += [f"check {name} is not in the recording of {_some(names)}: it was not judged there" for name, names in data["unheard"].items()]
    lines += [f"{text} ({_some(names)})" for text, names in data["notes"].items()]
    lines += [f"records are missing in {r['rollout']}; the draft went on with what came after them" for r in data["rollouts"] if r["lost"]]
    if s[MISSED]:
        lines.append(CAVEAT)
    return lines


def _list(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} rollouts"
