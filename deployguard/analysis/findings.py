"""What one check says now, in numbers and in one sentence."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

from deployguard.analysis import counts, journeys
from deployguard.analysis.counters import ZERO, trusted
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.interval import ratio_interval
from deployguard.model.evidence import CheckEvidence, Finding, VerdictWord
from deployguard.model.reading import Counter
from deployguard.model.target import CANDIDATE, STABLE
from deployguard.model.units import format_share


@dataclass(frozen=True, slots=True)
class CountsCase:
    """A counts check before the judge."""

    name: str
    required: bool
    evidence: CheckEvidence
    rules: CountsRules


@dataclass(frozen=True, slots=True)
class JourneyCase:
    """A probe check before the judge."""

    name: str
    required: bool
    veto: bool
    evidence: CheckEvidence


Case = CountsCase | JourneyCase


def rate(counter: Counter) -> float | None:
    """Bad over total; None when nothing was counted."""
    return counter.bad / counter.total if counter.total > 0 else None


def _share(counter: Counter) -> str:
    value = rate(counter)
    return "no requests" if value is None else f"{format_share(round(value, 5))} ({counter.bad:.0f} of {counter.total:.0f})"


def counts_finding(case: CountsCase, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:
    """The finding of a counts check; with `interval`, the ratio's interval is computed, which costs milliseconds."""
    evidence, rules = case.evidence, case.rules
    mine, theirs = evidence.counted.get(CANDIDATE, ZERO), evidence.counted.get(STABLE, ZERO)
    ratio = _ratio(evidence)
    low = high = None
    if interval and evidence.segments:
        low, high = ratio_interval(evidence.segments, trusted(evidence.history, theirs), rules.alpha)
        high = None if math.isinf(high) else high
    value, limit = _strongest(case)
    text = f"{case.name}: candidate {_share(mine)}, stable {_share(theirs)}"
    if ratio is not None or low is not None:
        text += f", ratio {_number(ratio)}"
    if low is not None:
        text += f" [{_number(low)} to {_number(high)}]"
    return Finding(
        check=case.name,
        verdict=verdict,
        reason=reason,
        text=text,
        counts={CANDIDATE: mine, STABLE: theirs},
        ratio=ratio,
        low=low,
        high=high,
        value=math.exp(min(value, 690.0)),
        needed=rules.parts / (rules.alpha * rules.weight),
        limit=limit,
    )


def _ratio(evidence: CheckEvidence) -> float | None:
    """The ratio of the rates over the requests that were compared; None without them, or while stable failed none of its own."""
    n1, e1, n0, e0 = (sum(getattr(s, field) for s in evidence.segments) for field in ("n1", "e1", "n0", "e0"))
    return (e1 / n1) / (e0 / n0) if n1 and e0 else None


def _number(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.3g}"


def _strongest(case: CountsCase) -> tuple[float, str]:
    """The larger log evidence of the comparison and the limit, and the words for what it is against."""
    rules = case.rules
    worse = f"{rules.ratio:g} x stable + {format_share(rules.margin)}"
    if rules.floor:
        worse += f", floor {format_share(rules.floor)}"
    if rules.limit is None:
        return counts.worse_evidence(case.evidence, rules), worse
    limit = counts.limit_evidence(case.evidence, CANDIDATE)
    if rules.compare and counts.worse_evidence(case.evidence, rules) >= limit:
        return counts.worse_evidence(case.evidence, rules), worse
    return limit, f"limit {format_share(rules.limit)}"


def journey_finding(case: JourneyCase, verdict: VerdictWord, reason: str) -> Finding:
    """The finding of a probe check."""
    parts = []
    for path in (CANDIDATE, STABLE):
        streak = case.evidence.walks.get(path)
        if streak is None or not streak.walks:
            parts.append(f"{path} not walked")
        elif streak.red:
            parts.append(f"{path} red {streak.red} times in a row at `{streak.step}`: {streak.detail}")
        else:
            parts.append(f"{path} green ({streak.walks} walks, {streak.failed} red)")
    walked = {path: Counter(float(s.failed), float(s.walks)) for path, s in case.evidence.walks.items()}
    return Finding(
        check=case.name,
        verdict=verdict,
        reason=reason,
        text=f"{case.name}: {'; '.join(parts)}",
        counts=walked,
        limit=f"{journeys.RED_WALKS} red walks in a row",
    )


def finding(case: Case, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:
    """What `case` says, as `verdict` for `reason`."""
    if isinstance(case, CountsCase):
        return counts_finding(case, verdict, reason, interval=interval)
    return journey_finding(case, verdict, reason)


def silent(case: Case, since: dt.datetime, now: dt.datetime, patience: dt.timedelta) -> str:
    """Why a check cannot see: the words of its gaps when they have lasted for `patience`; empty when it sees."""
    if not case.evidence.gaps:
        return ""
    last = max(since, case.evidence.through) if case.evidence.through else since
    if now - last < patience:
        return ""
    return ", ".join(f"{arm}: {gap.reason}{' ' + gap.detail if gap.detail else ''}" for arm, gap in sorted(case.evidence.gaps.items()))
