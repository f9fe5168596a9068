"""The findings of a rollout as JSON, each with its interval: a check that has none yet gets it here, once, instead of at every tick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deployguard.analysis.cases.words import bounds
from deployguard.model.evidence import CheckEvidence, Evidence, Finding
from deployguard.model.rollout import Promoted, Rollout, Watching
from deployguard.report.instants import iso
from deployguard.report.stages import alpha_of


def checks_json(rollout: Rollout) -> list[dict[str, Any]]:
    """The findings of the FAIL when there was one, else the latest ones.

    A candidate became stable because every check passed; while it is watched the checks can only still fail or be blind.
    """
    findings = rollout.latched.findings if rollout.latched is not None else rollout.findings
    checks = [check_json(finding, rollout.evidence.get(finding.check), alpha_of(rollout)) for finding in findings]
    if isinstance(rollout.phase, (Watching, Promoted)):
        passed = {"verdict": "pass", "reason": "soaked"}
        checks = [{**check, **passed} if check["verdict"] == "undecided" else check for check in checks]
    return checks


def check_json(finding: Finding, evidence: Evidence | None, alpha: float) -> dict[str, Any]:
    """One finding. `interval` is null when nothing is known of the ratio; its upper end is null when it is open."""
    low, high = finding.low, finding.high
    if low is None:
        low, high = bounds(evidence, alpha, finding.phi or 1.0)
    return {
        "name": finding.check,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "counts": {arm: {"bad": c.bad, "total": c.total} for arm, c in sorted(finding.counts.items())},
        "ratio": _finite(finding.ratio),
        "interval": None if low is None else [_finite(low), _finite(high)],
        "evidence": _finite(finding.value),
        "needed": _finite(finding.needed),
        "limit": finding.limit,
        "dispersion": finding.phi,
        "text": finding.text,
        "silent": silent_json(evidence),
    }


def recorded_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """One finding as the ledger recorded it."""
    low = found.get("low")
    return {
        "name": str(found.get("check", "")),
        "verdict": str(found.get("verdict", "undecided")),
        "reason": str(found.get("reason", "")),
        "counts": {arm: {"bad": pair[0], "total": pair[1]} for arm, pair in sorted(dict(found.get("counts") or {}).items())},
        "ratio": found.get("ratio"),
        "interval": None if low is None else [low, found.get("high")],
        "evidence": found.get("value"),
        "needed": found.get("needed"),
        "limit": str(found.get("limit", "")),
        "dispersion": found.get("phi"),
        "text": str(found.get("text", "")),
        "silent": {},
    }


def silent_json(evidence: CheckEvidence | None) -> dict[str, dict[str, Any]]:
    """The arms whose signal is not there: since when, and why."""
    gaps = evidence.gaps if evidence is not None else {}
    return {arm: {"since": iso(gap.since), "reason": gap.reason, "detail": gap.detail} for arm, gap in sorted(gaps.items())}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
