"""The report as JUnit XML: one suite for the rollout, one case for each check, so that CI systems show it beside the tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from deployguard.report.text import report_text

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report_junit(report: Mapping[str, Any]) -> str:
    """The report as JUnit XML. A check that failed is a failure, a blind one an error, one that was cut short is skipped.

    The rollout itself is the first case: a failure unless the change is in place or there was nothing to do.
    """
    suite = f"deployguard {report['guard']}"
    cases = [_case(suite, report["rollout"] or "run", _ended(report)), *(_case(suite, c["name"], _judged(c)) for c in report["checks"])]
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


def _case(suite: str, name: str, result: tuple[str, str] | None) -> str:
    head = f"    <testcase classname={quoteattr(_clean(suite))} name={quoteattr(_clean(name))}"
    if result is None:
        return head + "/>"
    kind, text = result
    return f"{head}><{kind} message={quoteattr(_clean(text))}/></testcase>"


def _ended(report: Mapping[str, Any]) -> tuple[str, str] | None:
    if report["exit_code"] == 0:
        return None
    return ("failure" if report["outcome"] in ("rolled_back", "refused") else "error"), f"{report['outcome']}: {report['reason']}"


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
