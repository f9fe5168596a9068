"""Shops in the cluster for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.api import Api, fresh_namespace
from tests.cluster.fixtures import Cluster
from tests.e2e.kube.shop import Open, Shop, opened


@pytest.fixture
def shop(node: Cluster, api: Api, tmp_path: Path) -> Iterator[Open]:
    """Open a shop in a namespace of its own."""
    if node.rig is None:
        pytest.skip("the addresses of Services of a cluster elsewhere are not reached from here")
    with ExitStack() as stack:
        name = stack.enter_context(fresh_namespace(api))
        yield lambda *arguments, **more: stack.enter_context(opened(node, api, name, tmp_path, *arguments, **more))


@pytest.fixture(scope="module")
def stable_shop(cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One shop for a whole file of bad changes: none of them may leave a trace that the next one meets."""
    if not cluster.has_node or cluster.rig is None:
        pytest.skip("pods run, and Services are reached, on a node of this machine only")
    with fresh_namespace(api) as name, opened(cluster, api, name, tmp_path_factory.mktemp("shop"), env={"VERSION": "1"}) as made:
        yield made
