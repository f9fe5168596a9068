"""What can be known of the traffic before a rollout: measured on the workload, recorded by the last rollouts, or told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from deployguard.analysis.dispersion import ENOUGH
from deployguard.analysis.planner import POWER
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence, Evidence
from deployguard.report.instants import spell
from deployguard.report.sight import Expected

if TYPE_CHECKING:
    from deployguard.model.policy import Policy
    from deployguard.model.target import TargetView
    from deployguard.wiring.workload import Workload

MEASURED = 3.0
"""Seconds between the two looks at what has been counted."""
TELLING = 1000
"""Requests from which on their share of bad ones says something of a rate."""


def expected(
    workload: Workload,
    policy: Policy,
    evidence: Mapping[str, Evidence],
    *,
    traffic: float | None = None,
    error_rate: float | None = None,
    power: float = POWER,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Expected, dict[str, str]]:
    """What to expect, and in words where the traffic and the rates come from; `evidence` is what the last rollouts taught (`learnt`).

    What is told goes before what is recorded, and that before what the balancer counts. `say` is told before something takes time.
    """
    sources: dict[str, str] = {}
    if traffic is None:
        say(f"measuring the traffic of {workload.word} for {spell(MEASURED)} ...")
        traffic = workload.traffic(policy, MEASURED)
        if traffic is not None:
            sources["traffic"] = f"measured over {spell(MEASURED)}"
    noise = {name: found for name, one in evidence.items() if (found := _noise(one)) is not None}
    if error_rate is not None:
        return Expected(traffic, error_rate, {}, noise, power), sources
    rates = {name: rate for name, one in evidence.items() if (rate := _rate(one)) is not None}
    counted = _counted(workload.observe())
    if rates:
        sources["rates"] = "recorded in the last rollouts"
    elif counted is not None:
        sources["rates"] = "counted by the balancer"
    return Expected(traffic, counted, rates, noise, power), sources


def _counted(view: TargetView) -> float | None:
    """The share of bad requests of everything that the balancer has counted; None when that is too little to tell."""
    total = sum(s.requests for s in view.served.values())
    return sum(s.failed for s in view.served.values()) / total if total >= TELLING else None


def _rate(evidence: Evidence) -> float | None:
    """Stable's recorded share of bad requests; None when too few were recorded."""
    if not isinstance(evidence, CountsEvidence):
        return None
    bad = sum(s.history.bad for s in evidence.strata.values())
    total = sum(s.history.total for s in evidence.strata.values())
    return bad / total if total >= TELLING else None


def _noise(evidence: Evidence) -> tuple[float, bool] | None:
    """The dispersion, and whether it has been measured."""
    if isinstance(evidence, CountsEvidence):
        return evidence.learnt.phi, evidence.learnt.bad >= ENOUGH
    if isinstance(evidence, CategoriesEvidence) and evidence.learnt:
        return max(one.phi for one in evidence.learnt), any(one.bad >= ENOUGH for one in evidence.learnt)
    return None
