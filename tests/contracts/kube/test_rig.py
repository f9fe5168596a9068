"""The cluster of the tests outlives its parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, Service, ready

pytestmark = [pytest.mark.cluster, pytest.mark.alone]


def test_killed_parts_come_back_and_containers_never_left(node: Cluster, api: Api, deploy: Callable[..., Service]) -> None:
    """With API server, kubelet and containerd killed at once, `up` starts them again, and the same containers still run."""
    if node.rig is None:
        pytest.skip("the cluster is not ours to break")
    service = deploy("web", 2)
    pods = f"/api/v1/namespaces/{service.namespace}/pods"
    before = sorted(status["containerID"] for pod in api.items(pods) for status in pod["status"]["containerStatuses"])
    for name in ("apiserver", "kubelet", "containerd"):
        process = node.rig.processes.find(name)
        assert process is not None
        process.kill()
        process.wait(10)
    assert not node.rig.healthy()
    assert node.rig.up() == ""
    until("all pods are ready", lambda: ready(api, service))
    assert sorted(status["containerID"] for pod in api.items(pods) for status in pod["status"]["containerStatuses"]) == before
