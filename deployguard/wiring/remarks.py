"""What the metrics pages of a running fleet say of a policy's checks, before a rollout needs them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from deployguard.signals.scrape import ScrapePool, ScrapeSource

if TYPE_CHECKING:
    from deployguard.model.policy import Policy
    from deployguard.model.target import Instance
    from deployguard.signals.places import Proxy

TIMEOUT = 2.0
"""Seconds for the pages of all instances."""


def remarks(policy: Policy, instances: tuple[Instance, ...], now: dt.datetime, proxy: Proxy | None = None) -> list[dict[str, str]]:
    """For each scrape check what a person should know, as `{"check": name, "text": ...}`; each instance is asked once for each path.

    `proxy` reaches instances that are not reached straight.
    """
    ready = tuple(one for one in instances if one.ready)
    pool = ScrapePool(TIMEOUT, proxy)
    sources = {check.name: ScrapeSource(check, pool) for check in policy.checks if check.source == "scrape"}
    try:
        return [{"check": name, "text": text} for name, source in sources.items() for text in source.remarks(ready, now)] if ready else []
    finally:
        pool.close()
