"""A yard for each test: a Deployment of the shop in a namespace of its own, with a folder of strings to pull."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deployguard.kube.client import Kube
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, ready
from tests.cluster.world import ClusterWorld
from tests.e2e.kube_chaos.yard import Yard, deployed

Make = Callable[..., Yard]


@pytest.fixture
def yard(node: Cluster, api: Api, kube: Kube, namespace: str, command: ClusterWorld, tmp_path: Path) -> Make:
    """Open a yard with as many pods, all Ready: `yard(2)`."""
    if node.rig is None:
        pytest.skip("the pods read a folder of this machine")

    def made(replicas: int = 2, **more: object) -> Yard:
        strings = tmp_path / "strings"
        strings.mkdir()
        strings.chmod(0o755)
        (strings / "quiet").write_text("")
        service = deployed(api, namespace, replicas, strings, **more)
        until("the Deployment is ready", lambda: ready(api, service))
        found = Yard(api, kube, service, command, strings)
        found.elsewhere()
        return found

    return made
