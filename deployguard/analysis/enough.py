"""Whether a check may pass: by proof that the regression it claims to see is absent, or by samples enough to have seen it.

The promote rule of docs/statistics.md section 12: the null "worse than claimed" is rejected at 1/alpha_promote. By soak alone a check
passes when its candidate has served what the planner says it takes to see the claimed regression with 90 % power.
"""

from __future__ import annotations

import math
from functools import lru_cache

from deployguard.analysis import categories, counts, gauges, sights
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counters import ZERO
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.dispersion import in_use
from deployguard.analysis.eprocess import ONSET_SECONDS
from deployguard.analysis.gauges import GaugeRules
from deployguard.analysis.planner import POWER, Pace
from deployguard.analysis.sights import PROVEN
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence, GaugeEvidence, Process
from deployguard.model.target import CANDIDATE, STABLE


def counts_needed(evidence: CountsEvidence, rules: CountsRules) -> float:
    """Candidate requests after which a regression of the size that the check claims is seen with 90 % power."""
    mine, theirs = evidence.counted.get(CANDIDATE, ZERO), evidence.counted.get(STABLE, ZERO)
    rate = theirs.bad / theirs.total if theirs.total else 0.0
    phi, known = in_use(evidence.learnt, evidence.spread, rules.dispersion)
    return _counts_at(rules, _pace(mine.total, theirs.total, evidence.worse, rules, phi, known=known), _rounded(rate, 3))


@lru_cache(maxsize=256)
def _counts_at(rules: CountsRules, pace: Pace, rate: float) -> float:
    return needed_at(rules, pace, rate)


def needed_at(rules: CountsRules, pace: Pace, rate: float, power: float = POWER) -> float:
    """Candidate requests after which what the check claims is seen, or twice the limit where nothing is compared; `rate` is stable's."""
    if not rules.compare:
        assert rules.limit is not None
        return sights.limit_needed(rules, pace, min(2 * rules.limit, sights.MOST_RATE), power)
    return sights.counts_needed(rules, pace, rate, sights.to_rate(rules, rate, rules.claims), power) * pace.share


def categories_needed(evidence: CategoriesEvidence, rules: CategoriesRules) -> float:
    """Candidate requests after which a slowest twentieth that grew as claimed is seen with 90 % power."""
    mine, theirs = sum(evidence.counted.get(CANDIDATE, ())), sum(evidence.counted.get(STABLE, ()))
    phis, known = categories.dispersions(evidence, rules)
    return _tail_at(rules, _pace(mine, theirs, evidence.worse, rules, max(phis), known=known))


@lru_cache(maxsize=256)
def _tail_at(rules: CategoriesRules, pace: Pace) -> float:
    return tail_needed_at(rules, pace)


def tail_needed_at(rules: CategoriesRules, pace: Pace, tail: float = categories.SLOW[0], power: float = POWER) -> float:
    """Candidate requests after which it is seen that the slowest `tail` has grown as the check claims."""
    return sights.tail_needed(rules, pace, tail, min(rules.claims * tail + rules.margin, sights.MOST_RATE), power) * pace.share


def _pace(mine: float, theirs: float, process: Process | None, rules: CountsRules | CategoriesRules, phi: float, *, known: bool) -> Pace:
    """How the requests have come so far, rounded: what hardly differs is reckoned once.

    What a process has not yet placed on a late onset tells for how long it has been played.
    """
    share = mine / (mine + theirs) if mine > 0 and theirs > 0 else 0.5
    seconds = -ONSET_SECONDS * math.log(process.rest) if process is not None and process.late and 0 < process.rest < 1 else 0.0
    rate = (mine + theirs) / seconds if seconds > 0 else 0.0
    share = min(max(_rounded(share, 3), 1e-4), 1 - 1e-4)
    return Pace(share, _rounded(rate, 2), rules.interval, _rounded(phi, 2), None if known else rules.cap)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def counts_enough(evidence: CountsEvidence, rules: CountsRules) -> bool:
    """Whether the samples let this check pass, by proof or by soak."""
    if rules.proof and rules.compare:
        return counts.same_evidence(evidence, rules) >= PROVEN
    return evidence.counted.get(CANDIDATE, ZERO).total >= counts_needed(evidence, rules)


def categories_enough(evidence: CategoriesEvidence, rules: CategoriesRules) -> bool:
    """Whether the samples let this check pass: by proof, both the slowest twentieth and the slowest hundredth did not grow as claimed."""
    if rules.proof:
        return categories.same_evidence(evidence, rules) >= PROVEN
    return sum(evidence.counted.get(CANDIDATE, ())) >= categories_needed(evidence, rules)


def gauges_enough(evidence: GaugeEvidence, rules: GaugeRules) -> bool:
    """Whether the blocks let this check pass: by proof, or by as many as it takes to condemn."""
    if rules.proof and rules.compare:
        return gauges.same_evidence(evidence) >= PROVEN
    return evidence.blocks >= gauges.LEAST_BLOCKS
