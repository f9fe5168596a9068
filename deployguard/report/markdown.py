"""The report as Markdown, for the summary page of a CI job and for comments on a merge request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deployguard.report.headline import headline
from deployguard.report.instants import instant, time_of_day
from deployguard.report.numbers import arm_cell, evidence_cell, ranked, ratio_cell, verdict_cell
from deployguard.report.table import plain
from deployguard.report.text import action_words, exposure_words, next_words

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")
MOST_TRAIL = 50
"""Lines of the trail that are shown: CI systems limit the size of a summary."""


def report_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: a headline, a table of the checks, the facts, the trail; ends with a newline."""
    now = instant(report["at"])
    assert now is not None
    parts = [
        f"### {markdown_text(report['guard'])}: {markdown_text(report['outcome'].replace('_', ' '))} (exit code {report['exit_code']})"
    ]
    parts.append(f"**{markdown_text(headline(report, now))}**")
    if report["checks"]:
        parts.append(_checks(report["checks"]))
    facts = [f"- {label}: {markdown_text(text)}" for label, text in _facts(report) if text]
    if facts:
        parts.append("\n".join(facts))
    if report["trail"]:
        parts.append(_trail(report["trail"]))
    return "\n\n".join(parts) + "\n"


def markdown_text(text: str) -> str:
    """The text on one line, shown as it is: no character of it is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(plain(text).split()))


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a table, the first one as its head."""
    head, *body = ["| " + " | ".join(markdown_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def _checks(checks: list[dict[str, Any]]) -> str:
    def arm(check: Mapping[str, Any], name: str) -> str:
        return arm_cell(check, name).removeprefix(f"{name} ")

    rows = [
        [verdict_cell(c), c["name"], arm(c, "candidate"), arm(c, "stable"), ratio_cell(c).removeprefix("ratio "), evidence_cell(c)]
        for c in ranked(checks)
    ]
    texts = [f"- {markdown_text(c['text'])}" for c in ranked(checks) if c["text"] and c["verdict"] == "fail" and c["evidence"] is None]
    table = markdown_table([["Verdict", "Check", "Candidate", "Stable", "Ratio", "Evidence"], *rows])
    return "\n\n".join([table, "\n".join(texts)]) if texts else table


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    now = instant(report["at"])
    assert now is not None
    versions = [(arm, report[arm]) for arm in ("stable", "candidate")]
    return [
        *((arm, f"{v['name']} ({v['digest'][7:17]})" if v else "") for arm, v in versions),
        ("exposure", exposure_words(report)),
        ("action", action_words(report, now)),
        ("quarantine", ", ".join(q["name"] for q in report["quarantined"])),
        ("asked", "; ".join(p["text"] for p in report["requests_by_people"])),
        ("override", report["override"]),
        ("next", next_words(report).replace("`", "")),
    ]


def _trail(trail: list[dict[str, Any]]) -> str:
    rows = []
    for step in trail[-MOST_TRAIL:]:
        at = instant(step["at"])
        rows.append([time_of_day(at, at) if at is not None else "", step["phase"], step["text"]])
    return "<details><summary>Trail</summary>\n\n" + markdown_table([["At", "Phase", "What"], *rows]) + "\n\n</details>"
