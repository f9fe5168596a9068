"""Yards for these tests."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster
from tests.cluster.world import ClusterWorld
from tests.e2e.kube_others.stage import Yard


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own, ready for pods; it goes afterwards, unwaited."""
    name = f"e2ec-{secrets.token_hex(4)}"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until("the default service account", lambda: api.ask("GET", account).status == 200)
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def yard(node: Cluster, api: Api, command: ClusterWorld, tmp_path: Path) -> Callable[..., Yard]:
    """A Deployment of two pods; nobody has deployed it yet."""

    def made(**more: Any) -> Yard:
        place = Yard(node, api, command, tmp_path.resolve(), **more)
        place.service()
        return place

    return made
