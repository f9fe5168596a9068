"""From the checks of a policy to where their numbers come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from deployguard.errors import UserError
from deployguard.model.check import BalancerCheck, LogsCheck, ProbeCheck, PrometheusCheck, ScrapeCheck
from deployguard.ports import Source
from deployguard.signals.probe import ProbePool, ProbeSource
from deployguard.signals.scrape import ScrapePool, ScrapeSource

if TYPE_CHECKING:
    from deployguard.model.check import Check
    from deployguard.model.policy import Policy
    from deployguard.signals.logs import Logs

LONGEST = 5.0
"""Seconds for the pages of all instances, at the slowest polls."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How a workload's numbers are reached. `balancer` is None where there is none; `namespace` that of its pods, if any."""

    pool: ScrapePool
    probes: ProbePool
    logs: Callable[[LogsCheck], Logs]
    balancer: Callable[[BalancerCheck], Source] | None = None
    namespace: str = ""


def page_timeout(policy: Policy) -> float:
    """Seconds within which the pages of all instances must be there: most of a poll."""
    return min(0.8 * policy.interval.total_seconds(), LONGEST)


def patience_of(policy: Policy) -> float:
    """Seconds that one reading may take: a little more than the slowest source allows itself."""
    return max([LONGEST, *(check.timeout.total_seconds() + 1 for check in policy.checks if check.source == "prometheus")])


def sources_of(policy: Policy, ways: Ways) -> dict[str, Source]:
    """The source of each check, by its name. Raises `UserError` for a check that this workload cannot answer."""
    return {check.name: _source(check, ways) for check in policy.checks}


def _source(check: Check, ways: Ways) -> Source:
    match check:
        case ScrapeCheck():
            return ScrapeSource(check, ways.pool)
        case ProbeCheck():
            return ProbeSource(check, ways.probes)
        case LogsCheck():
            from deployguard.signals.logs import LogsSource

            return LogsSource(check, ways.logs(check))
        case PrometheusCheck():
            from deployguard.signals.prometheus import PrometheusSource

            return PrometheusSource(check, namespace=ways.namespace)
        case BalancerCheck():
            if ways.balancer is None:
                raise UserError(
                    f"the check `{check.name}` counts requests on a local balancer, and the workload has none",
                    hint="use `source: scrape`, `prometheus`, `logs` or `probe` for a workload of a cluster",
                )
            return ways.balancer(check)
    assert_never(check)
