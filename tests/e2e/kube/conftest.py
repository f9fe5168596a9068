"""Shops in the cluster for the end-to-end tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster
from tests.e2e.kube.shop import Open, Shop, opened


@contextmanager
def fresh_namespace(api: Api) -> Iterator[str]:
    """A namespace of its own, ready for pods; it goes afterwards, unwaited."""
    name = f"e2ea-{secrets.token_hex(4)}"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until("the service account", lambda: api.ask("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default").status == 200)
    try:
        yield name
    finally:
        api.delete(f"/api/v1/namespaces/{name}")


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
