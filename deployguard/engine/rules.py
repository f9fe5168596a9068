"""From the policy's checks and the rollout's evidence to the cases that the judge hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployguard.analysis.bets import policy_grid
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.findings import Case, CountsCase, JourneyCase
from deployguard.model.evidence import CheckEvidence

if TYPE_CHECKING:
    from deployguard.model.check import BalancerCheck, ProbeCheck, ScrapeCheck
    from deployguard.model.policy import Policy
    from deployguard.model.rollout import Rollout


def is_journey(check: ScrapeCheck | BalancerCheck | ProbeCheck) -> bool:
    """Whether a check walks a journey instead of counting requests."""
    return check.source == "probe"


def counts_rules(policy: Policy, check: ScrapeCheck | BalancerCheck) -> CountsRules:
    """The numbers of one counts check; alpha is shared evenly by all counts checks of the policy."""
    counted = sum(not is_journey(c) for c in policy.checks)
    worse = check.worse_than_stable
    return CountsRules(
        compare=worse is not None,
        ratio=worse.ratio if worse else 1.0,
        margin=worse.margin if worse else 0.0,
        floor=worse.floor if worse else 0.0,
        claims=check.claims,
        limit=check.limit,
        dispersion=check.dispersion,
        late_onset=policy.protect.late_onset,
        cap=policy.protect.block_cap,
        alpha=policy.alpha,
        weight=1 / counted,
        proof=policy.pass_ == "proof",
        grid=policy_grid(check.claims, worse.ratio if worse else 1.0),
        interval=policy.interval.total_seconds(),
    )


def cases(policy: Policy, rollout: Rollout) -> tuple[Case, ...]:
    """One case per check, with its evidence so far."""
    found: list[Case] = []
    for check in policy.checks:
        evidence = rollout.evidence.get(check.name, CheckEvidence())
        if check.source == "probe":
            found.append(JourneyCase(check.name, check.required, check.veto, evidence))
        else:
            found.append(CountsCase(check.name, check.required, evidence, counts_rules(policy, check)))
    return tuple(found)
