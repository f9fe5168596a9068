"""After a promotion the user's own tools go on as if they had rolled it out themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.kube_others import stage
from tests.e2e.kube_others.stage import QUICK, Yard

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
TOOLS = [
    pytest.param("helm_upgrade"),
    pytest.param("apply", marks=pytest.mark.full),
    pytest.param("server_side", marks=pytest.mark.full),
]
SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web-config"}}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_same_content_again_changes_nothing_and_the_next_version_meets_no_conflict(
    yard: Callable[..., Yard], request: pytest.FixtureRequest, tool: str
) -> None:
    """Release and configuration are promoted; the tool says the same: the pods stay. Its next version rolls out, and is gone back to."""
    place = yard(replicas=1, config="web-config")
    write = stage.helm_upgrade(request.getfixturevalue("helm")) if tool == "helm_upgrade" else getattr(stage, tool)
    place.source("CONFIG_VERSION=a\n")
    write(place, 1)
    place.settled()
    settings = {**SETTINGS, "data": {"shop.conf": "CONFIG_VERSION=b\n"}}
    wanted = place.file(place.manifest(2), settings)
    guard = place.guard(QUICK, config=("web-config",))
    done = place.command.run(guard, "--manifest", wanted)
    assert done.code == 0, done.err
    assert (place.image(), place.held(), place.ours(), place.canaries()) == ("2", "CONFIG_VERSION=b\n", [], [])
    pods, generation, template = place.pods(), place.workload()["metadata"]["generation"], place.workload()["spec"]["template"]
    write(place, 2)
    place.source("CONFIG_VERSION=b\n")
    place.settled()
    assert (place.pods(), place.workload()["spec"]["template"]) == (pods, template)
    assert place.workload()["metadata"]["generation"] - generation <= 1
    again = place.command.run(guard, "--manifest", wanted)
    assert (again.code, again.data["outcome"]) == (0, "unchanged"), again.err
    write(place, 3)
    place.settled()
    pods = place.pods()
    assert set(pods.values()) == {"3"}
    bad = place.command.run(guard, "--set", "env.CRASH_AT_START=1")
    assert bad.code == 10, bad.err
    assert bad.data["stable"]["name"].startswith("deployguard-shop:3"), bad.data["stable"]
    assert (place.image(), place.pods(), place.canaries()) == ("3", pods, [])
