"""What the CI system that we run on takes from a report besides the exit code: annotations, a summary page, outputs for later steps.

Each system says by the environment what it takes, so a command calls `platform` once and need not know where it runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployguard.report.headline import headline
from deployguard.report.instants import instant
from deployguard.report.markdown import report_markdown
from deployguard.report.table import plain

MOST_SUMMARY = 1_000_000
"""Bytes of a summary page: above 1024 KiB GitHub drops the whole of it."""
MOST_ANNOTATIONS = 10
"""Of one type; GitHub shows no more of one step."""
OK = ("promoted", "unchanged", "detached")
VERDICTS = {"promoted": "pass", "unchanged": "pass", "rolled_back": "fail", "refused": "refused", "superseded": "superseded"}
"""The verdict of each outcome, as one word for later steps; every other outcome is `none`: nothing was judged."""


def platform(report: Mapping[str, Any], env: Mapping[str, str], report_path: Path | None = None) -> list[str]:
    """Give the report to the CI system that `env` tells of; the lines that are for its log.

    Nothing is written outside of the files that the environment names for it. What cannot be written becomes a line: a report that
    does not reach a page must not change how a rollout ended.
    """
    lines = github_annotations(report) if env.get("GITHUB_ACTIONS") == "true" else []
    values = outputs(report, report_path)
    if path := env.get("GITHUB_OUTPUT"):
        lines += _append(path, "".join(f"{name}={value}\n" for name, value in values.items()))
    if path := env.get("GITHUB_STEP_SUMMARY"):
        lines += _append(path, summary(report, _size(path)))
    if path := env.get("DEPLOYGUARD_ANNOTATIONS"):
        lines += _append(path, json.dumps(gitlab_annotations(report, env)) + "\n", anew=True)
    if folder := env.get("DEPLOYGUARD_RESULTS"):
        for name in ("verdict", "rollback", "exit-code"):
            lines += _append(str(Path(folder) / name), values[name], anew=True)
    return lines


def outputs(report: Mapping[str, Any], report_path: Path | None = None) -> dict[str, str]:
    """Short values for later steps, each on one line: the verdict, whether a candidate was taken back, where the report lies."""
    found = {
        "verdict": VERDICTS.get(report["outcome"], "none"),
        "outcome": report["outcome"],
        "exit-code": str(report["exit_code"]),
        "rollback": "true" if report["restored"] is not None else "false",
        "rollout": report["rollout"] or "",
        "reason": report["reason"],
        "report-path": str(report_path) if report_path is not None else "",
    }
    return {name: " ".join(plain(value).split()) for name, value in found.items()}


def summary(report: Mapping[str, Any], written: int = 0) -> str:
    """The report as Markdown, short enough for a page on which `written` bytes stand already."""
    text = report_markdown(report) + "\n"
    room = MOST_SUMMARY - written
    if len(text.encode()) <= room:
        return text
    short = report_markdown({**report, "trail": []}) + "\n"
    return short if len(short.encode()) <= room else ""


def github_annotations(report: Mapping[str, Any]) -> list[str]:
    """Workflow commands: an error for a rollout that did not get in place and for each check that failed, a warning for blind ones."""
    now = instant(report["at"])
    assert now is not None
    title = f"deployguard {report['guard']}"
    if report["outcome"] in OK:
        return [_command("notice", title, headline(report, now))]
    bad = [c for c in report["checks"] if c["verdict"] == "fail"]
    blind = [c for c in report["checks"] if c["verdict"] == "blind"]
    errors = [(title, headline(report, now)), *((f"{title}: {c['name']}", c["text"]) for c in bad)]
    lines = [_command("error", *one) for one in errors[:MOST_ANNOTATIONS]]
    return lines + [_command("warning", f"{title}: {c['name']}", c["text"]) for c in blind[:MOST_ANNOTATIONS]]


def _command(kind: str, title: str, text: str) -> str:
    """One workflow command; nothing in title or text can end it or begin another."""
    return f"::{kind} title={_property(plain(title))}::{_data(plain(text))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def gitlab_annotations(report: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """GitLab's annotations report: a link on the job's page whose label says how the rollout ended."""
    now = instant(report["at"])
    assert now is not None
    job = env.get("CI_JOB_URL", "")
    label = f"{report['guard']}: {headline(report, now)}"[:255]
    link = f"{job}/artifacts/browse" if job else "https://deployguard.dev"
    return {"deployguard": [{"external_link": {"label": plain(label), "url": link}}]}


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _append(path: str, text: str, *, anew: bool = False) -> list[str]:
    try:
        with Path(path).open("w" if anew else "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return [f"could not write to {path} for the CI system: {error.strerror or error}"]
    return []
