"""The first line of `why`: what happened, to which version, when, and how soon."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from deployguard.report.instants import age, instant, spell, time_of_day


def headline(report: Mapping[str, Any], now: dt.datetime) -> str:
    """`ROLLED BACK to v1 (stable since 3d) at 14:03:22 UTC, 8 s after the first bad sample`, and its like for every phase."""
    phase = report["phase"]
    if phase in ("verifying", "rolled_back"):
        return _back(report, now)
    change = f"{_name(report, 'stable')} -> {_name(report, 'candidate')}"
    if phase == "rolling_back":
        return f"ROLLING BACK to {_stable(report, now)} since {_clock(report['decided'], now)}{_delay(report)}" + _why(report)
    if phase in ("watching", "promoted"):
        return f"PROMOTED {_name(report, 'candidate')} at {_clock(report['decided'], now)}: {report['reason']}"
    if phase == "holding" and report["held"] is not None:
        held = report["held"]
        return f"HELD ({held['why'].replace('_', ' ')}) since {_clock(held['since'], now)}: {change}: {held['text']}"
    if phase is None:
        return f"{report['outcome'].upper().replace('_', ' ')}: {report['reason']}"
    return f"{report['state']}: {change}"


def _back(report: Mapping[str, Any], now: dt.datetime) -> str:
    stable, why = _stable(report, now), _why(report)
    if report["kind"] == "return":
        return f"ROLLED BACK to {_stable(report, now)} at {_clock(report['restored'], now)}{why}"
    if report["decided"] is None:
        return f"TAKEN BACK before anything was exposed{why}"
    at = _clock(report["decided"], now)
    if report["outcome"] in ("withdrawn", "interrupted"):
        return f"TAKEN BACK to {stable} at {at}, without a verdict{why}"
    return f"ROLLED BACK to {stable} at {at}{_delay(report)}{why}"


def _why(report: Mapping[str, Any]) -> str:
    """The reason, unless a check failed: then its line below says it, with every number."""
    return "" if any(check["verdict"] == "fail" for check in report["checks"]) else f": {report['reason']}"


def _delay(report: Mapping[str, Any]) -> str:
    seconds = report["detection_s"]
    return "" if seconds is None else f", {spell(seconds)} after the first bad sample"


def _stable(report: Mapping[str, Any], now: dt.datetime) -> str:
    name, since = _name(report, "stable"), instant(report["stable_since"])
    if report["back_to"] and report["back_to"]["digest"] != report["stable"]["digest"]:
        return f"{report['back_to']['name']} (an older stable version, because {name} was not taken)"
    if report["stable_adopted"]:
        return f"{name} (found running, never seen healthy for a whole soak)"
    return f"{name} (stable since {age(now - since)})" if since is not None else name


def _name(report: Mapping[str, Any], arm: str) -> str:
    version = report[arm]
    return str(version["name"]) if version else "<unknown>"


def _clock(text: str | None, now: dt.datetime) -> str:
    at = instant(text)
    return time_of_day(at, now) if at is not None else "an unknown time"
