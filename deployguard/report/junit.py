"""The report as JUnit XML: one suite for the rollout, one case for each stage and check, so that CI systems show it beside the tests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from deployguard.report.instants import instant
from deployguard.report.text import report_text

_STAGE = re.compile(r"stage (\d+)/(\d+)")
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report_junit(report: Mapping[str, Any]) -> str:
    """The report as JUnit XML. A stage or check that failed is a failure, a blind or held one an error, one that was cut short is skipped.

    The rollout itself is the first case: a failure unless the change is in place or there was nothing to do.
    """
    suite = f"deployguard {report['guard']}"
    cases = [
        _case(suite, report["rollout"] or "run", _ended(report)),
        *_stages(suite, report),
        *(_case(suite, f"check {c['name']}", _judged(c)) for c in report["checks"]),
    ]
    counts = {kind: sum(f"<{kind} " in case for case in cases) for kind in ("failure", "error", "skipped")}
    seconds = (report["decided"] and report["exposed_s"]) or 0.0
    head = (
        f'tests="{len(cases)}" failures="{counts["failure"]}" errors="{counts["error"]}" skipped="{counts["skipped"]}" time="{seconds:.3f}"'
    )
    out = f"    <system-out>{_safe(report_text(report))}</system-out>"
    lines = [f"  <testsuite name={quoteattr(_clean(suite))} timestamp={quoteattr(report['at'])} {head}>", *cases, out, "  </testsuite>"]
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>", *lines, "</testsuites>"]) + "\n"


def _clean(text: str) -> str:
    """The text without characters that XML cannot carry."""
    return _FORBIDDEN.sub("?", text)


def _safe(text: str) -> str:
    return escape(_clean(text))


def _case(suite: str, name: str, result: tuple[str, str] | None, seconds: float | None = None) -> str:
    time = "" if seconds is None else f' time="{seconds:.3f}"'
    head = f"    <testcase classname={quoteattr(_clean(suite))} name={quoteattr(_clean(name))}{time}"
    if result is None:
        return head + "/>"
    kind, text = result
    return f"{head}><{kind} message={quoteattr(_clean(text))}/></testcase>"


def _ended(report: Mapping[str, Any]) -> tuple[str, str] | None:
    if report["exit_code"] == 0:
        return None
    return ("failure" if report["outcome"] in ("rolled_back", "refused") else "error"), f"{report['outcome']}: {report['reason']}"


def _stages(suite: str, report: Mapping[str, Any]) -> Iterator[str]:
    """A case for each stage. The trail says which one was the last that was reached; all before it have passed."""
    reached: dict[int, str] = {}
    of, left = 0, None
    for step in report["trail"]:
        found = _STAGE.match(step["text"])
        if step["phase"] == "advancing" and found:
            of = int(found[2])
            reached.setdefault(int(found[1]), step["at"])
        elif step["phase"] in ("rolling_back", "watching", "promoted") and left is None:
            left = step["at"]
    last = max(reached, default=0)
    for number in range(1, of + 1):
        name = f"stage {number}/{of}"
        if number > last:
            yield _case(suite, name, ("skipped", "the rollout did not reach this stage"))
            continue
        seconds = _between(reached.get(number), reached.get(number + 1, left))
        yield _case(suite, name, _last_stage(report) if number == last else None, seconds)


def _last_stage(report: Mapping[str, Any]) -> tuple[str, str] | None:
    """How the last stage that was reached ended."""
    cut = any(asked["verb"] in ("abort", "rollback") for asked in report["requests_by_people"])
    match report["outcome"]:
        case "promoted" | "unchanged":
            return None
        case "rolled_back":
            return "failure", report["reason"]
        case "withdrawn" if not cut and report["exit_code"] != 124:
            return "error", report["reason"]
        case "failed" if report["held"] is not None or report["exit_code"] == 11:
            return "error", report["reason"]
        case _:
            return "skipped", f"cut short: {report['reason']}"


def _between(begin: str | None, end: str | None) -> float | None:
    one, two = instant(begin), instant(end)
    return None if one is None or two is None else max(0.0, (two - one).total_seconds())


def _judged(check: Mapping[str, Any]) -> tuple[str, str] | None:
    match check["verdict"]:
        case "fail":
            return "failure", check["text"]
        case "blind":
            return "error", check["text"]
        case "undecided":
            return "skipped", "the rollout ended before this check had decided"
        case _:
            return None
