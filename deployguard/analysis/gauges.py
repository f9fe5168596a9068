"""Checks on gauges: CPU, memory, queue depth, exported quantiles (docs/statistics.md, section 9).

Samples of a gauge hang together over time, so what counts are block means, of equally many instances of each arm chosen before the
block begins: a single instance against the mean of many is not a fair coin for skewed gauges. A lasting difference between
machines above the tolerance cannot be told from a regression.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from deployguard.analysis.eprocess import log_value
from deployguard.analysis.gaps import heard
from deployguard.analysis.signs import WEIGHTS, signed
from deployguard.model.evidence import GaugeEvidence, Process, Sampled
from deployguard.model.reading import Answer, Gauges
from deployguard.model.target import CANDIDATE, STABLE

BLOCK = dt.timedelta(seconds=15)
"""The shortest block: means of shorter ones still hang together."""
LEAST_BLOCKS = 8
"""So many blocks in a row can condemn, so fewer cannot have shown health either."""


@dataclass(frozen=True, slots=True, eq=False)
class GaugeRules:
    """What a policy says about one gauge. `lower`: small values are the bad ones. `limit` is in the gauge's own unit."""

    compare: bool
    ratio: float
    claims: float
    limit: float | None
    lower: bool
    alpha: float
    weight: float
    proof: bool
    warmup: dt.timedelta

    @property
    def parts(self) -> int:
        """How many signals share the check's weight."""
        return int(self.compare) + int(self.limit is not None)

    def worse(self, mine: float, theirs: float, ratio: float) -> bool:
        """Whether `mine` is more than `ratio` times worse than `theirs`."""
        return mine * ratio < theirs if self.lower else mine > ratio * theirs

    def beyond(self, value: float) -> bool:
        """Whether a value is beyond the limit."""
        assert self.limit is not None
        return value < self.limit if self.lower else value > self.limit


def fold(
    evidence: GaugeEvidence, answers: Mapping[str, Answer], arms: tuple[str, ...], rules: GaugeRules, now: dt.datetime
) -> GaugeEvidence:
    """The evidence after one poll of `arms`; a block that has lasted long enough is compared, and the next begins."""
    gaps, readings = heard(evidence, answers, arms, now, Gauges)
    if not readings:
        return msgspec.structs.replace(evidence, gaps=gaps)
    at = {arm: r.at for arm, r in readings.items()}
    warm = {arm: _warm(r, rules.warmup) for arm, r in readings.items()}
    through = min(at.values()) if len(readings) == len(arms) else evidence.through
    evidence = msgspec.structs.replace(evidence, through=through, read_at={**evidence.read_at, **at}, gaps=gaps)
    if evidence.began is not None and now - evidence.began >= BLOCK:
        evidence = _closed(evidence, rules)
    # A block without one of the arms cannot be compared and would only cost its time: it begins when all are past their warm-up, and
    # anew when one joins. When that is depends on no value, so nothing is chosen by it.
    complete = all(warm.values()) and (rules.limit is not None or len(readings) == len(arms))
    if complete and (evidence.began is None or not warm.keys() <= evidence.chosen.keys()):
        evidence = msgspec.structs.replace(evidence, began=now, chosen=_chosen(warm), sampled={})
    sampled = {arm: _sampled(evidence.sampled.get(arm, {}), evidence.chosen.get(arm, ()), values) for arm, values in warm.items()}
    return msgspec.structs.replace(
        evidence,
        sampled={**evidence.sampled, **sampled},
        totals={**evidence.totals, **{arm: _more(evidence.totals.get(arm), values) for arm, values in warm.items()}},
    )


def _warm(reading: Gauges, warmup: dt.timedelta) -> dict[str, float]:
    """The values of instances that are past their warm-up."""
    return {uid: v for uid, v in reading.by_instance.items() if uid not in reading.born or reading.at - reading.born[uid] >= warmup}


def _chosen(warm: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[str, ...]]:
    """Equally many instances of each arm; all of the one that is read alone."""
    count = min(len(values) for values in warm.values())
    return {arm: tuple(sorted(values))[:count] for arm, values in warm.items()}


def _sampled(sampled: Mapping[str, Sampled], chosen: tuple[str, ...], values: Mapping[str, float]) -> dict[str, Sampled]:
    found = dict(sampled)
    for uid in chosen:
        if uid in values:
            found[uid] = _one(found.get(uid), values[uid])
    return found


def _one(sampled: Sampled | None, value: float) -> Sampled:
    return Sampled(sampled.total + value, sampled.samples + 1) if sampled else Sampled(value, 1)


def _more(sampled: Sampled | None, values: Mapping[str, float]) -> Sampled:
    before = sampled or Sampled()
    return Sampled(before.total + sum(values.values()), before.samples + len(values))


def _closed(evidence: GaugeEvidence, rules: GaugeRules) -> GaugeEvidence:
    """The evidence after the block: its means compared where both arms have samples of every instance that was chosen."""
    means = {
        arm: sum(s.total / s.samples for s in sampled.values()) / len(sampled)
        for arm, sampled in evidence.sampled.items()
        if sampled and len(sampled) == len(evidence.chosen.get(arm, ()))
    }
    evidence = msgspec.structs.replace(evidence, began=None, chosen={}, sampled={}, means={**evidence.means, **means})
    if rules.limit is not None:
        limit = {arm: signed(evidence.limit.get(arm), worse=rules.beyond(mean)) for arm, mean in means.items()}
        evidence = msgspec.structs.replace(evidence, limit={**evidence.limit, **limit})
    if len(means) < 2:
        return evidence
    mine, theirs = means[CANDIDATE], means[STABLE]
    worse, same = evidence.worse, evidence.same
    above = rules.worse(mine, theirs, rules.ratio)
    if rules.compare:
        worse = signed(worse, worse=above)
        same = signed(same, worse=not rules.worse(mine, theirs, rules.claims))
    return msgspec.structs.replace(evidence, worse=worse, same=same, blocks=evidence.blocks + 1, above=evidence.above + above)


def _value(process: Process | None) -> float:
    return log_value(process, WEIGHTS) if process else 0.0


def worse_evidence(evidence: GaugeEvidence) -> float:
    """log E that the candidate's gauge is worse than tolerated; 0 before a block was compared."""
    return _value(evidence.worse)


def limit_evidence(evidence: GaugeEvidence, arm: str) -> float:
    """log E that `arm` is beyond the limit more often than not; 0 before a block was complete."""
    return _value(evidence.limit.get(arm))


def same_evidence(evidence: GaugeEvidence) -> float:
    """The largest log E ever reached against "worse than claimed in half of the blocks or more"."""
    return evidence.same.best if evidence.same else 0.0
