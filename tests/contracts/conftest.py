"""What several contract suites of metrics pages stand on; each is ended after its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployguard.signals.scrape import ScrapePool
from tests.contracts.pages import Servers


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Servers of metrics pages on free ports."""
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture
def pool() -> Iterator[ScrapePool]:
    """A pool that waits long, so that a busy machine fails no read."""
    pool = ScrapePool(timeout=20.0)
    yield pool
    pool.close()
