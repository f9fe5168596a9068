"""Whether a check may pass: by proof that the regression it claims to see is absent, or by samples enough to have seen it.

The promote rule of docs/statistics.md section 12: the null "worse than claimed" is rejected at 1/alpha_promote. By soak alone a check
passes when its candidate has served what the planner says it takes to see the claimed regression with 90 % power.
"""

from __future__ import annotations

import math

from deployguard.analysis import categories, counts, gauges
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counters import ZERO
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.dispersion import in_use
from deployguard.analysis.gauges import GaugeRules
from deployguard.analysis.planner import requests_needed
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence, GaugeEvidence
from deployguard.model.reading import Counter
from deployguard.model.target import CANDIDATE, STABLE

ALPHA_PROMOTE = 0.05
PROVEN = math.log(1 / ALPHA_PROMOTE)


def counts_needed(evidence: CountsEvidence, rules: CountsRules) -> float:
    """Candidate requests after which a regression of the size that the check claims is seen with 90 % power."""
    mine, theirs = evidence.counted.get(CANDIDATE, ZERO), evidence.counted.get(STABLE, ZERO)
    rate = theirs.bad / theirs.total if theirs.total else 0.0
    return needed_at(rules, _share(mine, theirs), rate, in_use(evidence.learnt, evidence.spread, rules.dispersion)[0])


def _share(mine: Counter, theirs: Counter) -> float:
    return mine.total / (mine.total + theirs.total) if mine.total > 0 and theirs.total > 0 else 0.5


def needed_at(rules: CountsRules, share: float, rate: float, phi: float | None = None) -> float:
    """As `counts_needed`, for a planned share of traffic and stable's expected rate of bad requests."""
    share = min(max(share, 1e-4), 1 - 1e-4)
    weight = rules.weight / rules.parts
    phi = phi if phi is not None else (rules.dispersion or 1.0)
    if not rules.compare:
        assert rules.limit is not None
        twice = min(2 * rules.limit, 0.999)
        gain = twice * math.log(twice / rules.limit) + (1 - twice) * math.log((1 - twice) / (1 - rules.limit))
        return phi * 2 * math.log(1 / (rules.alpha * weight)) / gain
    p0 = min(max(rate, rules.floor, 1e-4), 0.5)
    p1 = min(rules.claims * p0 + rules.margin, 0.999)
    total = requests_needed(p0, p1, share, ratio=rules.ratio, margin=rules.margin, alpha=rules.alpha, weight=weight, dispersion=phi)
    return total * share


def categories_needed(evidence: CategoriesEvidence, rules: CategoriesRules) -> float:
    """Candidate requests after which a slowest twentieth that grew as claimed is seen with 90 % power."""
    mine, theirs = sum(evidence.counted.get(CANDIDATE, ())), sum(evidence.counted.get(STABLE, ()))
    share = _share(Counter(0.0, mine), Counter(0.0, theirs))
    p0 = categories.SLOW[0]
    total = requests_needed(
        p0,
        min(rules.claims * p0 + rules.margin, 0.999),
        min(max(share, 1e-4), 1 - 1e-4),
        ratio=rules.ratio,
        margin=rules.margin,
        alpha=rules.alpha,
        weight=rules.weight,
        dispersion=rules.dispersion or 1.0,
    )
    return total * share


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
