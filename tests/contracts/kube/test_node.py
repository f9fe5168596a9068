"""The node of the tests is a real one: containers run, die and are killed, and Services carry users to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import manifests
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Service, deployed
from tests.cluster.images import SHOP
from tests.cluster.load import Load

pytestmark = pytest.mark.cluster


def container(api: Api, namespace: str, name: str) -> dict[str, Any]:
    """The status of the one container of the one pod of an app, as far as there is any."""
    pods = api.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{name}")
    statuses = pods[0]["status"].get("containerStatuses", []) if pods else []
    return statuses[0] if statuses else {}


def test_users_reach_every_version_and_nobody_is_lost_in_an_update(
    api: Api, deploy: Callable[..., Service], load: Callable[..., Load]
) -> None:
    """A native rolling update of the shop under load ends with every user answered, first by version 1 and at last by version 2."""
    service = deploy("web", 2, env={"VERSION": "1"})
    users = load(service, 20)
    until("version 1 answers", lambda: users.of_version("1"))
    container = manifests.shop_container(f"{SHOP}:2", {"VERSION": "2"})
    api.merge(service.path, {"spec": {"template": {"spec": {"containers": [container]}}}})
    until("version 2 answers", lambda: len(users.of_version("2")) > 20)
    users.stop()
    assert not users.bad(), users.summary()


def test_the_shop_fails_as_its_mounted_file_says(api: Api, deploy: Callable[..., Service], load: Callable[..., Load]) -> None:
    """The file of a ConfigMap is read: with ERROR_RATE=1 every user gets an error."""
    users = load(deploy("web", config={"ERROR_RATE": 1, "CONFIG_VERSION": "b"}), 20)
    until("ten answers", lambda: len(users.answers) >= 10)
    assert {answer.status for answer in users.answers} == {500}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("more", "reason", "code"),
    [
        ({"env": {"CRASH_AT_START": "true"}}, "Error", 1),
        ({"env": {"CRASH_AFTER_S": 1}}, "Error", 3),
        ({"env": {"MEMORY_MB": 200}, "limits": {"memory": "64Mi"}}, "OOMKilled", 137),
    ],
)
def test_containers_die_as_they_are_told(api: Api, namespace: str, more: dict[str, Any], reason: str, code: int) -> None:
    """A crash at start, a crash later and a kill for memory are seen in the pod's status with the kernel's own reasons."""
    deployed(api, namespace, "web", wait=False, **more)
    until("it was restarted", lambda: container(api, namespace, "web").get("restartCount", 0) > 0)
    died = until("its death is told", lambda: container(api, namespace, "web")["lastState"].get("terminated"))
    assert (died["reason"], died["exitCode"]) == (reason, code)
