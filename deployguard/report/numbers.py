"""The numbers of one check as cells: the same in `why`, Markdown and the live view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from deployguard.model.evidence import VerdictWord
from deployguard.report.words import verdict_words

_RANK = {"fail": 0, "blind": 1, "undecided": 2, "pass": 3}
_KNOWN = get_args(VerdictWord)


def ranked(checks: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The checks, those that decide first, and within one verdict the one with the most evidence."""
    return sorted(checks, key=lambda c: (_RANK.get(c["verdict"], 2), -(c["evidence"] or 0.0), c["name"]))


def percent(bad: float, total: float) -> str:
    """The rate in per cent, short: `4.9%`, `0.02%`, `0%`."""
    return f"{100 * bad / total:.2g}%" if bad < total else "100%"


def count(value: float) -> str:
    """A count of requests, with thousands apart: `7,301`."""
    return f"{value:,.0f}"


def arm_cell(check: Mapping[str, Any], arm: str) -> str:
    """`candidate 4.9% (40 of 812)`, or that nothing was counted."""
    counted = check["counts"].get(arm)
    if counted is None:
        return f"{arm} -"
    if not counted["total"]:
        return f"{arm} nothing counted"
    return f"{arm} {percent(counted['bad'], counted['total'])} ({count(counted['bad'])} of {count(counted['total'])})"


def ratio_cell(check: Mapping[str, Any]) -> str:
    """`ratio 9.8 [5.2 to 18]`; without an upper end `[5.2 or more]`; a dash when nothing is known.

    There is no ratio while stable has no bad request; its interval may be known all the same.
    """
    ratio, interval = check["ratio"], check["interval"]
    if interval is not None and not interval[0] and interval[1] is None:
        interval = None
    text = "ratio" if ratio is None else f"ratio {ratio:.3g}"
    if interval is None:
        return text if ratio is not None else "-"
    low, high = interval
    return f"{text} [{low:.3g} or more]" if high is None else f"{text} [{low:.3g} to {high:.3g}]"


def evidence_cell(check: Mapping[str, Any]) -> str:
    """`evidence 328 > 100 against 1.25 x stable`: the statistic, what it takes, and the limit it is about."""
    value, needed, limit = check["evidence"], check["needed"], check["limit"]
    if value is None or needed is None:
        return f"limit {limit}" if limit else "-"
    sign = ">" if value >= needed else "<"
    return f"evidence {value:.3g} {sign} {needed:.3g}" + (f" against {limit}" if limit else "")


def verdict_cell(check: Mapping[str, Any]) -> str:
    """The verdict in one word, with its reason when that says more."""
    verdict = check["verdict"]
    word = verdict_words(verdict) if verdict in _KNOWN else str(verdict)
    return f"{word} ({check['reason'].replace('_', ' ')})" if verdict in ("fail", "blind") and check["reason"] else word
