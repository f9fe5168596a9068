"""From the policy's checks and the rollout's evidence to the cases that the judge hears."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deployguard.analysis import categories, counts, gauges, journeys, tilts
from deployguard.analysis.bets import REFERENCE, policy_grid
from deployguard.analysis.cases.base import Case
from deployguard.analysis.cases.categories import CategoriesCase
from deployguard.analysis.cases.counts import CountsCase
from deployguard.analysis.cases.events import EventsCase
from deployguard.analysis.cases.gauges import GaugeCase
from deployguard.analysis.cases.journeys import JourneyCase
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.gauges import GaugeRules
from deployguard.model.evidence import (
    CategoriesEvidence,
    CountsEvidence,
    EventsEvidence,
    Evidence,
    GaugeEvidence,
    JourneyEvidence,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployguard.model.check import Check, Numbers, SeriesCheck
    from deployguard.model.policy import Policy
    from deployguard.model.reading import Answer
    from deployguard.model.rollout import Rollout

RESTARTS = "health.restarts"
"""The name of the check that is asked of every workload; no check of a policy can have it."""
RESTARTS_WEIGHT = 0.1
"""Its share of alpha beside the policy's own checks."""
Rules = CountsRules | CategoriesRules | GaugeRules


class _Same:
    """A policy compared by identity: the rules of one policy object are made once."""

    __slots__ = ("policy",)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __hash__(self) -> int:
        return id(self.policy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.policy is self.policy


def rules_of(policy: Policy, check: Numbers) -> Rules:
    """The numbers of one check; alpha is shared evenly by all checks that are judged by numbers."""
    return _all_rules(_Same(policy))[check.name]


@lru_cache(maxsize=64)
def _all_rules(same: _Same) -> Mapping[str, Rules]:
    policy = same.policy
    return {check.name: _rules(policy, check) for check in policy.checks if check.source != "probe"}


def _rules(policy: Policy, check: Numbers) -> Rules:
    if check.kind == "counts":
        return counts_rules(policy, check)
    assert check.source in ("scrape", "prometheus")
    return _gauge_rules(policy, check) if check.kind == "gauge" else _categories_rules(policy, check)


def weight_of(policy: Policy) -> float:
    """The share of alpha of each check that is judged by numbers."""
    return (1 - RESTARTS_WEIGHT) / sum(check.source != "probe" for check in policy.checks)


def counts_rules(policy: Policy, check: Numbers) -> CountsRules:
    """The numbers of a check on counts."""
    worse = check.worse_than_stable
    return CountsRules(
        compare=worse is not None,
        ratio=worse.ratio if worse else 1.0,
        margin=worse.margin if worse else 0.0,
        floor=worse.floor if worse else 0.0,
        claims=check.claims,
        limit=check.limit,
        dispersion=check.phi,
        late_onset=policy.protect.late_onset,
        cap=policy.protect.block_cap,
        alpha=policy.alpha,
        weight=weight_of(policy),
        proof=policy.pass_ == "proof",
        grid=policy_grid(_least_bet(check.claims), worse.ratio if worse else 1.0),
        interval=policy.interval.total_seconds(),
        traffic_share=policy.protect.traffic_share,
    )


def _least_bet(claims: float) -> float:
    """The smallest lift to bet on: three quarters of the claim. A regression near the claim is seen sooner, and one below it too."""
    return min(claims, max(1.5, 0.75 * claims))


def _categories_rules(policy: Policy, check: SeriesCheck) -> CategoriesRules:
    worse = check.worse_than_stable
    assert worse is not None
    return CategoriesRules(
        ratio=worse.ratio,
        margin=worse.margin,
        claims=check.claims,
        dispersion=check.phi,
        late_onset=policy.protect.late_onset,
        cap=policy.protect.block_cap,
        alpha=policy.alpha,
        weight=weight_of(policy),
        proof=policy.pass_ == "proof",
        grid=tilts.SHIPPED,
        interval=policy.interval.total_seconds(),
        warmup=policy.warmup if check.histogram else dt.timedelta(0),  # wrong answers count from the first request
    )


def _gauge_rules(policy: Policy, check: SeriesCheck) -> GaugeRules:
    worse = check.worse_than_stable
    return GaugeRules(
        compare=worse is not None,
        ratio=worse.ratio if worse else 1.0,
        claims=check.claims,
        limit=check.bound,
        lower=check.worse_when == "lower",
        alpha=policy.alpha,
        weight=weight_of(policy),
        proof=policy.pass_ == "proof",
        warmup=policy.warmup,
    )


_STARTS: Mapping[str, Evidence] = {
    "counts": CountsEvidence(),
    "categories": CategoriesEvidence(),
    "gauge": GaugeEvidence(),
    "journey": JourneyEvidence(),
}


def evidence_of(rollout: Rollout, check: Check) -> Evidence:
    """What the rollout knows for a check; evidence that has learnt nothing when it knows nothing, or something of another kind."""
    fresh = _STARTS[check.kind]
    found = rollout.evidence.get(check.name, fresh)
    return found if type(found) is type(fresh) else fresh


def folded_check(
    policy: Policy,
    rollout: Rollout,
    check: Check,
    answers: Mapping[str, Answer],
    paths: tuple[str, ...],
    given: float,
    now: dt.datetime,
) -> Evidence:
    """The evidence of one check after what was read of it; `given` is the candidate's share of the ready instances."""
    evidence = evidence_of(rollout, check)
    if isinstance(evidence, JourneyEvidence):
        return journeys.fold(evidence, answers, paths, now)
    assert check.source != "probe"
    rules: Any = rules_of(policy, check)
    if isinstance(evidence, CountsEvidence):
        return counts.fold(evidence, answers, paths, rules, rollout.started, now, given)
    if isinstance(evidence, CategoriesEvidence):
        return categories.fold(evidence, answers, paths, rules, rollout.started, now)
    assert isinstance(evidence, GaugeEvidence)
    return gauges.fold(evidence, answers, paths, rules, now)


def cases(policy: Policy, rollout: Rollout) -> tuple[Case, ...]:
    """One case per check with its evidence so far, and the workload's restarts once there were any."""
    found: list[Case] = [_case(policy, rollout, check) for check in policy.checks]
    judged = any(check.source != "probe" for check in policy.checks)
    restarts = rollout.evidence.get(RESTARTS)
    if isinstance(restarts, EventsEvidence) and any(h.events for h in restarts.counted.values()):
        found.append(EventsCase(RESTARTS, False, restarts, REFERENCE, policy.alpha, RESTARTS_WEIGHT if judged else 1.0))
    return tuple(found)


def _case(policy: Policy, rollout: Rollout, check: Check) -> Case:
    evidence = evidence_of(rollout, check)
    if check.source == "probe":
        assert isinstance(evidence, JourneyEvidence)
        return JourneyCase(check.name, check.required, check.veto, evidence)
    rules: Any = rules_of(policy, check)
    if isinstance(evidence, CountsEvidence):
        return CountsCase(check.name, check.required, evidence, rules)
    if isinstance(evidence, CategoriesEvidence):
        return CategoriesCase(check.name, check.required, evidence, rules)
    assert isinstance(evidence, GaugeEvidence)
    return GaugeCase(check.name, check.required, evidence, rules)
