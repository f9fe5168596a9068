"""Checks on bad and total requests: folding what was read into evidence, and saying what the evidence shows.

Everything is pure and the state small: one e-process for "worse than stable", one for each limit, one for "not worse than claimed".
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from deployguard.analysis.arms import PROMOTE_LOG_WEIGHTS, same_factors, worse_factors
from deployguard.analysis.bets import REFERENCE, Grid
from deployguard.analysis.counters import ZERO, delta, history_of, remembered, trusted
from deployguard.analysis.eprocess import log_value, play, start, tempered
from deployguard.analysis.limits import limit_factors
from deployguard.analysis.planner import requests_needed
from deployguard.model.evidence import Block, CheckEvidence, Gap, Process
from deployguard.model.reading import Answer, Counter, Counters, Missing, Window
from deployguard.model.target import CANDIDATE, STABLE

MOST_PILED = 6
MOST_SEGMENTS = 8
ALPHA_PROMOTE = 0.05


@dataclass(frozen=True, slots=True)
class CountsRules:
    """What a policy says about one counts check, in plain numbers.

    `weight` is the check's share of alpha, split evenly between the comparison and the limit when it has both.
    """

    compare: bool
    ratio: float
    margin: float
    floor: float
    claims: float
    limit: float | None
    dispersion: float
    late_onset: bool
    cap: float | None
    alpha: float
    weight: float
    proof: bool
    grid: Grid
    interval: float

    @property
    def parts(self) -> int:
        """How many signals share the check's weight."""
        return int(self.compare) + int(self.limit is not None)


def fold(
    evidence: CheckEvidence,
    answers: Mapping[str, Answer],
    arms: tuple[str, ...],
    rules: CountsRules,
    began: dt.datetime,
    now: dt.datetime,
) -> CheckEvidence:
    """The evidence after one poll of `arms`.

    Each arm that answered is counted; the two are compared only over the same interval, so the comparison waits for the one
    that is missing. An absolute limit does not wait: it needs no control.
    """
    gaps, readings = _gaps(evidence, answers, arms, now)
    deltas = {arm: delta(evidence, arm, reading, began) for arm, reading in readings.items()}
    moved = {arm: d for arm, d in deltas.items() if d is not None}
    if not moved:
        return msgspec.structs.replace(evidence, gaps=gaps)
    readings = {arm: readings[arm] for arm in moved}
    at = {arm: r.at if isinstance(r, Counters) else r.end for arm, r in readings.items()}
    aligned = len(moved) == len(arms)
    seconds = (min(at.values()) - evidence.through).total_seconds() if evidence.through else rules.interval
    changed = CANDIDATE in readings and _crew(readings[CANDIDATE]) != set(evidence.last.get(CANDIDATE, {}))
    history = evidence.history
    if STABLE in readings and STABLE not in evidence.read_at:
        history = history_of(readings[STABLE])
    kept = {} if aligned else evidence.last
    after = msgspec.structs.replace(
        evidence,
        through=min(at.values()) if aligned else evidence.through,
        read_at={**evidence.read_at, **at},
        last={**kept, **{arm: remembered(evidence, arm, reading) for arm, reading in readings.items()}},
        gaps=gaps,
        history=history,
    )
    if CANDIDATE not in arms:
        # Before the exposure: what stable does now is history for the bets, and tells whether the limit was broken before.
        limit = _limits(evidence, moved, rules, max(seconds, 0.0)) if rules.limit is not None else {}
        return msgspec.structs.replace(after, history=_plus(history, moved[STABLE]), limit=limit)
    return _count(after, moved, rules, max(seconds, 0.0), now, changed=changed, aligned=aligned)


def _gaps(
    evidence: CheckEvidence, answers: Mapping[str, Answer], arms: tuple[str, ...], now: dt.datetime
) -> tuple[dict[str, Gap], dict[str, Counters | Window]]:
    gaps: dict[str, Gap] = {}
    readings: dict[str, Counters | Window] = {}
    for arm in arms:
        answer = answers.get(arm) or Missing("not_read")
        if isinstance(answer, (Counters, Window)):
            readings[arm] = answer
            continue
        reason, detail = (answer.reason, answer.detail) if isinstance(answer, Missing) else ("error", "not a reading of counts")
        since = evidence.gaps[arm].since if arm in evidence.gaps else now
        gaps[arm] = Gap(since, reason, detail)
    return gaps, readings


def _crew(reading: Counters | Window) -> set[str]:
    return {*reading.by_instance, *reading.unread} if isinstance(reading, Counters) else set()


def _plus(a: Counter, b: Counter) -> Counter:
    return Counter(a.bad + b.bad, a.total + b.total)


def _count(
    evidence: CheckEvidence,
    moved: Mapping[str, Counter],
    rules: CountsRules,
    seconds: float,
    now: dt.datetime,
    *,
    changed: bool,
    aligned: bool,
) -> CheckEvidence:
    """The evidence after the deltas of this poll have been counted, and played if both arms have been counted up to the same instant."""
    mine, theirs = moved.get(CANDIDATE, ZERO), moved.get(STABLE, ZERO)
    pile = Block() if changed else evidence.pile
    pile = Block(pile.n1 + mine.total, pile.e1 + mine.bad, pile.n0 + theirs.total, pile.e0 + theirs.bad)
    piled = 1 if changed else evidence.piled + 1
    counted = {**evidence.counted, **{arm: _plus(evidence.counted.get(arm, ZERO), d) for arm, d in moved.items()}}
    evidence = msgspec.structs.replace(
        evidence,
        counted=counted,
        first_bad=evidence.first_bad or (now if mine.bad > 0 else None),
        pile=pile,
        piled=piled,
        limit=_limits(evidence, moved, rules, seconds) if rules.limit is not None else {},
        floor=_floor(evidence, mine, rules, seconds) if CANDIDATE in moved else evidence.floor,
    )
    if not aligned:
        return evidence
    if pile.n1 >= 1 and pile.n0 >= 1:
        # The bets know the past alone: what lies in this pile is taken out of it.
        stable = counted.get(STABLE, ZERO)
        seen = Counter(max(stable.bad - pile.e0, 0.0), max(stable.total - pile.n0, 0.0))
        return _played(evidence, pile, _plus(trusted(evidence.history, seen), seen), rules, seconds)
    if piled >= MOST_PILED:
        return msgspec.structs.replace(evidence, pile=Block(), piled=0)
    return evidence


def _limits(evidence: CheckEvidence, moved: Mapping[str, Counter], rules: CountsRules, seconds: float) -> dict[str, Process]:
    assert rules.limit is not None
    return {
        **evidence.limit,
        **{arm: _against(evidence.limit.get(arm), d, rules.limit, _plain(rules, arm), seconds) for arm, d in moved.items()},
    }


def _plain(rules: CountsRules, arm: str) -> CountsRules:
    """The rules for an arm: stable's evidence only ever exonerates, so nothing slows it down."""
    return rules if arm == CANDIDATE else replace(rules, cap=None, dispersion=1.0)


def _floor(evidence: CheckEvidence, mine: Counter, rules: CountsRules, seconds: float) -> Process | None:
    if not rules.compare or rules.floor <= 0:
        return None
    return _against(evidence.floor, mine, rules.floor, rules, seconds)


def _against(process: Process | None, d: Counter, limit: float, rules: CountsRules, seconds: float) -> Process:
    process = process or start(len(REFERENCE.psi), late_onset=rules.late_onset)
    factors = [tempered(f, rules.dispersion, rules.cap) for f in limit_factors(d.total, d.bad, limit, REFERENCE)]
    return play(process, factors, REFERENCE.log_weight, seconds)


def _played(evidence: CheckEvidence, block: Block, past: Counter, rules: CountsRules, seconds: float) -> CheckEvidence:
    worse, same = evidence.worse, evidence.same
    if rules.compare:
        worse = worse or start(len(rules.grid.psi), late_onset=rules.late_onset)
        factors = [tempered(f, rules.dispersion, rules.cap) for f in worse_factors(block, past, rules.grid, rules.ratio, rules.margin)]
        worse = play(worse, factors, rules.grid.log_weight, seconds)
        same = same or start(len(PROMOTE_LOG_WEIGHTS), late_onset=False)
        factors = [tempered(f, rules.dispersion, None) for f in same_factors(block, past, rules.claims, rules.margin)]
        same = play(same, factors, PROMOTE_LOG_WEIGHTS, seconds)
    return msgspec.structs.replace(
        evidence, worse=worse, same=same, pile=Block(), piled=0, blocks=evidence.blocks + 1, segments=_segments(evidence.segments, block)
    )


def _segments(segments: tuple[Block, ...], block: Block) -> tuple[Block, ...]:
    """Blocks pooled while the share of traffic stays within a fifth of what it was: what the interval is computed from."""
    if segments:
        last = segments[-1]
        before, now = last.n1 / (last.n1 + last.n0), block.n1 / (block.n1 + block.n0)
        if len(segments) >= MOST_SEGMENTS or abs(now - before) <= 0.5 * before:
            pooled = Block(last.n1 + block.n1, last.e1 + block.e1, last.n0 + block.n0, last.e0 + block.e0)
            return (*segments[:-1], pooled)
    return (*segments, block)


def worse_evidence(evidence: CheckEvidence, rules: CountsRules) -> float:
    """log E that the candidate is worse than tolerated and above the floor; 0 before anything was counted."""
    if evidence.worse is None:
        return 0.0
    value = log_value(evidence.worse, rules.grid.log_weight)
    if evidence.floor is not None:
        value = min(value, log_value(evidence.floor, REFERENCE.log_weight))
    return value


def limit_evidence(evidence: CheckEvidence, arm: str) -> float:
    """log E that `arm` is above the absolute limit; 0 before anything was counted."""
    process = evidence.limit.get(arm)
    return log_value(process, REFERENCE.log_weight) if process else 0.0


def needed(evidence: CheckEvidence, rules: CountsRules) -> float:
    """Candidate requests after which a regression of the size that the check claims is seen with 90 % power."""
    candidate, stable = evidence.counted.get(CANDIDATE, ZERO), evidence.counted.get(STABLE, ZERO)
    share = candidate.total / (candidate.total + stable.total) if candidate.total > 0 and stable.total > 0 else 0.5
    return needed_at(rules, share, stable.bad / stable.total if stable.total else 0.0)


def needed_at(rules: CountsRules, share: float, rate: float) -> float:
    """As `needed`, for a planned share of traffic and stable's expected rate of bad requests."""
    share = min(max(share, 1e-4), 1 - 1e-4)
    weight = rules.weight / rules.parts
    if not rules.compare:
        assert rules.limit is not None
        twice = min(2 * rules.limit, 0.999)
        gain = twice * math.log(twice / rules.limit) + (1 - twice) * math.log((1 - twice) / (1 - rules.limit))
        return rules.dispersion * 2 * math.log(1 / (rules.alpha * weight)) / gain
    p0 = min(max(rate, rules.floor, 1e-4), 0.5)
    p1 = min(rules.claims * p0 + rules.margin, 0.999)
    total = requests_needed(
        p0, p1, share, ratio=rules.ratio, margin=rules.margin, alpha=rules.alpha, weight=weight, dispersion=rules.dispersion
    )
    return total * share


def enough(evidence: CheckEvidence, rules: CountsRules) -> bool:
    """Whether the samples let this check pass, by proof or by soak."""
    if rules.proof and rules.compare:
        return evidence.same is not None and evidence.same.best >= math.log(1 / ALPHA_PROMOTE)
    return evidence.counted.get(CANDIDATE, ZERO).total >= needed(evidence, rules)
