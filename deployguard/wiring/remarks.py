"""What metrics pages and monitoring systems say of a policy's checks, before a rollout needs them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from deployguard.model.check import PrometheusCheck, ScrapeCheck, SeriesCheck
from deployguard.signals.scrape import ScrapePool, ScrapeSource

if TYPE_CHECKING:
    from deployguard.model.policy import Policy
    from deployguard.model.target import Instance
    from deployguard.signals.places import Proxy
    from deployguard.signals.prometheus import PrometheusSource

TIMEOUT = 2.0
"""Seconds for the pages of all instances."""


def remarks(
    policy: Policy, instances: tuple[Instance, ...], now: dt.datetime, proxy: Proxy | None = None, namespace: str = ""
) -> list[dict[str, str]]:
    """For each check on series what a person should know, as `{"check": name, "text": ...}`; each instance is asked once for each path.

    `proxy` reaches instances that are not reached straight, `namespace` is theirs.
    """
    ready = tuple(one for one in instances if one.ready)
    if not ready:
        return []
    pool = ScrapePool(TIMEOUT, proxy)
    sources = {check.name: _source(check, pool, namespace) for check in policy.checks if isinstance(check, SeriesCheck)}
    try:
        return [{"check": name, "text": text} for name, source in sources.items() for text in source.remarks(ready, now)]
    finally:
        for source in sources.values():
            source.close()


def _source(check: SeriesCheck, pool: ScrapePool, namespace: str) -> ScrapeSource | PrometheusSource:
    if isinstance(check, ScrapeCheck):
        return ScrapeSource(check, pool)
    from deployguard.signals.prometheus import PrometheusSource

    assert isinstance(check, PrometheusCheck)
    return PrometheusSource(check, namespace=namespace)
