"""Checks on bad and total requests: folding what was read into evidence.

Everything is pure and the state small: one e-process for "worse than stable", one for each limit, one for "not worse than claimed". What
the evidence says is in `enough` and `cases`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from deployguard.analysis.arms import PROMOTE_WEIGHTS, same_factors, worse_factors
from deployguard.analysis.bets import Grid
from deployguard.analysis.counters import ZERO, history_of, increments, kept, plus, same_crew, summed
from deployguard.analysis.dispersion import in_use, spread_after
from deployguard.analysis.eprocess import accuses, log_value, play, start, tempered
from deployguard.analysis.gaps import elapsed, heard
from deployguard.analysis.limits import against, evidence_of, watched
from deployguard.analysis.share import split_after
from deployguard.analysis.strata import PATIENCE, Ripe, piled, pooled, proved, proving
from deployguard.model.evidence import CountsEvidence, Limited, Process, Spread, Stratum
from deployguard.model.reading import Answer, Counter, Counters, Window
from deployguard.model.target import CANDIDATE, STABLE

_FRESH = Stratum()
Noise = tuple[float, float | None]
"""The dispersion that factors are tempered by, and the cap per block."""
_UNTOUCHED: Noise = (1.0, None)


@dataclass(frozen=True, slots=True, eq=False)
class CountsRules:
    """What a policy says about one counts check, in plain numbers.

    `weight` is the check's share of alpha, split evenly between the comparison and the limit when it has both. `dispersion` None: it is
    measured, and `cap` bounds what one block may multiply the evidence by until it has been.
    """

    compare: bool
    ratio: float
    margin: float
    floor: float
    claims: float
    limit: float | None
    dispersion: float | None
    late_onset: bool
    cap: float | None
    alpha: float
    weight: float
    proof: bool
    grid: Grid
    interval: float
    traffic_share: float | None = None

    @property
    def parts(self) -> int:
        """How many signals share the check's weight."""
        return int(self.compare) + int(self.limit is not None)


def fold(
    evidence: CountsEvidence,
    answers: Mapping[str, Answer],
    arms: tuple[str, ...],
    rules: CountsRules,
    began: dt.datetime,
    now: dt.datetime,
    given: float = 0.0,
) -> CountsEvidence:
    """The evidence after one poll of `arms`; `given` is the share of the instances, and so of the traffic, that the candidate has.

    Each arm that answered is counted; the two are compared only over the same interval, so the comparison waits for the one
    that is missing. An absolute limit does not wait: it needs no control.
    """
    gaps, came = heard(evidence, answers, arms, now, Counters, Window)
    readings = cast("dict[str, Counters | Window]", came)
    parts = {arm: found for arm, r in readings.items() if (found := _moved(evidence, arm, r, began)) is not None}
    if not parts:
        return msgspec.structs.replace(evidence, gaps=gaps)
    readings = {arm: readings[arm] for arm in parts}
    moved = {arm: summed(found) for arm, found in parts.items()}
    split = _by_stratum(evidence, readings, began) if evidence.parts or _stratified(readings) else {"": moved}
    at = {arm: r.at if isinstance(r, Counters) else r.end for arm, r in readings.items()}
    aligned = len(moved) == len(arms)
    through = min(at.values())
    seconds = elapsed(evidence, max(at.values()), rules.interval)
    strata = evidence.strata
    if STABLE in readings and STABLE not in evidence.read_at:
        strata = _known(strata, readings[STABLE])
    last, inside = _remembered(evidence, readings, aligned=aligned)
    candidate = readings.get(CANDIDATE)
    changed = isinstance(candidate, Counters) and not same_crew(candidate, evidence.last.get(CANDIDATE, {}))
    spread = spread_after(evidence.spread, parts[STABLE], moved[STABLE]) if STABLE in moved else evidence.spread
    evidence = msgspec.structs.replace(
        evidence,
        through=through if aligned else evidence.through,
        read_at=at if aligned else {**evidence.read_at, **at},
        last=last,
        parts=inside,
        gaps=gaps,
        strata=strata,
    )
    if CANDIDATE not in arms:
        return _before_exposure(evidence, moved[STABLE], split, rules, seconds, spread)
    if rules.traffic_share is not None and aligned and 0 < given < 1:
        mine, theirs = moved[CANDIDATE].total, moved[STABLE].total
        evidence = msgspec.structs.replace(evidence, split=split_after(evidence.split, mine, theirs, given, rules.traffic_share))
    return _counted(evidence, moved, split, rules, seconds, now, spread, changed=changed, aligned=aligned)


def _moved(evidence: CountsEvidence, arm: str, reading: Counters | Window, began: dt.datetime) -> list[Counter] | None:
    """What each instance of `arm` added; None for a window that does not continue where the last one ended."""
    if isinstance(reading, Counters):
        return increments(evidence.last, arm, reading.by_instance, reading.born, began)
    last = evidence.read_at.get(arm)
    if last is not None and reading.start != last:
        return None
    total = max(reading.total, 0.0)
    return [Counter(min(max(reading.bad, 0.0), total), total)]


def _stratified(readings: Mapping[str, Counters | Window]) -> bool:
    return any(isinstance(r, Counters) and r.strata for r in readings.values())


def _by_stratum(evidence: CountsEvidence, readings: Mapping[str, Counters | Window], began: dt.datetime) -> dict[str, dict[str, Counter]]:
    """What each arm added, by stratum."""
    split: dict[str, dict[str, Counter]] = {}
    for arm, reading in readings.items():
        if isinstance(reading, Window):
            continue
        for name, by_instance in reading.strata.items():
            inside = increments(evidence.parts.get(name, {}), arm, by_instance, reading.born, began)
            split.setdefault(name, {})[arm] = summed(inside)
    return split


def _known(strata: Mapping[str, Stratum], reading: Counters | Window) -> dict[str, Stratum]:
    """The strata with what stable had counted at its first reading as history, unless one was learnt before."""
    if isinstance(reading, Window):
        split: dict[str, list[Counter]] = {"": [Counter(reading.bad, reading.total)]}
    else:
        split = {name: list(values.values()) for name, values in (reading.strata or {"": reading.by_instance}).items()}
    return {name: strata.get(name) or Stratum(history_of(values)) for name, values in split.items()}


def _remembered(
    evidence: CountsEvidence, readings: Mapping[str, Counters | Window], *, aligned: bool
) -> tuple[dict[str, dict[str, Counter]], dict[str, dict[str, dict[str, Counter]]]]:
    """The counters that the next deltas start from, of all requests and by stratum."""
    last: dict[str, dict[str, Counter]] = {} if aligned else dict(evidence.last)
    parts: dict[str, dict[str, dict[str, Counter]]] = {} if aligned else {name: dict(by) for name, by in evidence.parts.items()}
    for arm, reading in readings.items():
        if isinstance(reading, Window):
            last[arm] = {}
            continue
        last[arm] = kept(evidence.last.get(arm, {}), reading.by_instance, reading.unread)
        for name, by_instance in reading.strata.items():
            old = evidence.parts.get(name, {}).get(arm, {})
            parts.setdefault(name, {})[arm] = kept(old, by_instance, reading.unread)
    return last, parts


def _before_exposure(
    evidence: CountsEvidence, moved: Counter, split: Mapping[str, Mapping[str, Counter]], rules: CountsRules, seconds: float, spread: Spread
) -> CountsEvidence:
    """What stable does now is history for the bets, and tells whether the limit was broken before."""
    strata = dict(evidence.strata)
    for name, inside in split.items():
        stratum = strata.get(name, _FRESH)
        strata[name] = msgspec.structs.replace(stratum, history=plus(stratum.history, inside[STABLE]))
    limit = _limits(evidence.limit, {STABLE: moved}, rules, seconds, _UNTOUCHED) if rules.limit is not None else evidence.limit
    return msgspec.structs.replace(evidence, strata=strata, limit=limit, spread=spread)


def _counted(
    evidence: CountsEvidence,
    moved: Mapping[str, Counter],
    split: Mapping[str, Mapping[str, Counter]],
    rules: CountsRules,
    seconds: float,
    now: dt.datetime,
    spread: Spread,
    *,
    changed: bool,
    aligned: bool,
) -> CountsEvidence:
    """The evidence after the deltas of this poll have been counted, and played if both arms have been counted up to the same instant.

    What this poll says of the dispersion, `spread`, tempers the polls after it: tempering must not look into what it tempers.
    """
    mine = moved.get(CANDIDATE, ZERO)
    counted = {arm: plus(evidence.counted.get(arm, ZERO), m) for arm, m in moved.items()}
    strata, waited = dict(evidence.strata), seconds
    ripe: list[Ripe] = []
    for name, inside in split.items():
        stratum = strata.get(name, _FRESH)
        waited = max(waited, stratum.piled + seconds)
        strata[name], more = piled(
            stratum, inside.get(CANDIDATE, ZERO), inside.get(STABLE, ZERO), seconds, changed=changed, aligned=aligned
        )
        ripe += more
    worse, same, proven, segments = evidence.worse, evidence.same, evidence.proven + seconds, evidence.segments
    noise = _noise(evidence, rules)
    if ripe and rules.compare:
        worse = _worse(worse, ripe, rules, waited, noise)
    if rules.compare and aligned and proven >= PATIENCE:
        same, strata, proven = _same(same, strata, rules, noise[0]), _all(strata), 0.0
    for block, _ in ripe:
        segments = pooled(segments, block)
    return msgspec.structs.replace(
        evidence,
        counted={**evidence.counted, **counted},
        first_bad=evidence.first_bad or (now if mine.bad > 0 else None),
        strata=strata,
        limit=_limits(evidence.limit, moved, rules, seconds, noise) if rules.limit is not None else evidence.limit,
        floor=_floor(evidence.floor, worse, mine, rules, seconds, noise) if CANDIDATE in moved else evidence.floor,
        worse=worse,
        same=same,
        proven=proven,
        spread=spread,
        blocks=evidence.blocks + bool(ripe),
        segments=segments,
    )


def _noise(evidence: CountsEvidence, rules: CountsRules) -> Noise:
    """The dispersion to temper by, and the cap per block while it is not known."""
    phi, known = in_use(evidence.learnt, evidence.spread, rules.dispersion)
    return phi, None if known else rules.cap


def _worse(process: Process | None, ripe: list[Ripe], rules: CountsRules, seconds: float, noise: Noise) -> Process:
    process = process or start(len(rules.grid.psi), late_onset=rules.late_onset)
    factors = worse_factors(*ripe[0], rules.grid, rules.ratio, rules.margin)
    for more in ripe[1:]:
        factors = [a + b for a, b in zip(factors, worse_factors(*more, rules.grid, rules.ratio, rules.margin), strict=True)]
    return play(process, tempered(factors, *noise), rules.grid.weight, seconds)


def _same(process: Process | None, strata: Mapping[str, Stratum], rules: CountsRules, phi: float) -> Process:
    """The promote rule's process after what waited for it."""
    process = process or start(len(PROMOTE_WEIGHTS), late_onset=False)
    waiting = [ripe for stratum in strata.values() if (ripe := proving(stratum))]
    if not waiting:
        return process
    found = [same_factors(*ripe, rules.claims, rules.margin) for ripe in waiting]
    return play(process, tempered([sum(f) for f in zip(*found, strict=True)], phi, None), PROMOTE_WEIGHTS, 0.0)


def _all(strata: Mapping[str, Stratum]) -> dict[str, Stratum]:
    return {name: proved(stratum) for name, stratum in strata.items()}


def _limits(
    before: Mapping[str, Limited], moved: Mapping[str, Counter], rules: CountsRules, seconds: float, noise: Noise
) -> dict[str, Limited]:
    """The limit's processes. Stable's evidence only ever exonerates, so nothing slows it down."""
    assert rules.limit is not None
    found = dict(before)
    for arm, m in moved.items():
        phi, cap = noise if arm == CANDIDATE else _UNTOUCHED
        found[arm] = against(found.get(arm) or watched(late_onset=rules.late_onset), m.total, m.bad, rules.limit, seconds, phi, cap)
    return found


def _floor(
    before: Limited | None, worse: Process | None, mine: Counter, rules: CountsRules, seconds: float, noise: Noise
) -> Limited | None:
    """The floor's process, brought up to date only while the comparison speaks against the candidate: the smaller of the two counts."""
    if not rules.compare or rules.floor <= 0:
        return None
    before = before or watched(late_onset=rules.late_onset)
    urgent = worse is not None and accuses(worse)
    return against(before, mine.total, mine.bad, rules.floor, seconds, *noise, urgent=urgent)


def worse_evidence(evidence: CountsEvidence, rules: CountsRules) -> float:
    """log E that the candidate is worse than tolerated and above the floor; 0 before anything was counted."""
    if evidence.worse is None:
        return 0.0
    value = log_value(evidence.worse, rules.grid.weight)
    return value if evidence.floor is None else min(value, evidence_of(evidence.floor))


def limit_evidence(evidence: CountsEvidence, arm: str) -> float:
    """log E that `arm` is above the absolute limit; 0 before anything was counted."""
    return evidence_of(evidence.limit.get(arm))


def same_evidence(evidence: CountsEvidence, rules: CountsRules) -> float:
    """The largest log E ever reached against "worse than claimed", what still waits to be played included."""
    if not rules.compare:
        return 0.0
    return _same(evidence.same, evidence.strata, rules, _noise(evidence, rules)[0]).best
