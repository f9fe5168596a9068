"""What the tests of targets share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from deployguard.kube.client import Kube
from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster
from tests.contracts.kube.stage import Stage, staged


@pytest.fixture
def stage(node: Cluster, kube: Kube, api: Api, namespace: str) -> Iterator[Callable[..., Stage]]:
    """Put a Deployment of the shop up."""
    with ExitStack() as stack:
        yield lambda *arguments, **more: stack.enter_context(staged(kube, api, namespace, *arguments, **more))
