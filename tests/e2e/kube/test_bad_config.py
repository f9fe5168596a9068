"""Bad content of ConfigMaps and Secrets, mounted and as environment: one pod reads it, and the source keeps what it held."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster import manifests
from tests.cluster.api import Api, fresh_namespace, until
from tests.cluster.fixtures import Cluster, Service, ready
from tests.e2e.conftest import Tell
from tests.e2e.kube.shop import Shop, served
from tests.e2e.kube.test_bad_releases import judged

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
MOUNTED, FROM_MAP, FROM_SECRET = "ConfigMap/web-config", "ConfigMap/web-env", "Secret/web-secret"
SOURCES = (MOUNTED, FROM_MAP, FROM_SECRET)
RELOADED = 200.0
"""Seconds: a kubelet may take more than a minute to hand an edited ConfigMap to a pod."""


@dataclass(frozen=True)
class Case:
    """A source, its keys as they shall be, and what a person must be told of it."""

    source: str
    keys: dict[str, str]
    cause: tuple[str, ...]


CASES = {
    "a mounted ConfigMap": Case(MOUNTED, {"shop_conf": "ERROR_RATE=0.2\n"}, ("errors", "stable 0%")),
    "a ConfigMap in the environment": Case(FROM_MAP, {"rate": "0.2"}, ("errors", "stable 0%")),
    "a Secret": Case(FROM_SECRET, {"after": "1"}, ("with code 3", "ERROR told to crash by now")),
    "a missing key": Case(FROM_MAP, {"rat": "0"}, ("cannot be created", "couldn't find key rate")),
}


@pytest.fixture(scope="module")
def set_up(cluster: Cluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One shop for all of them, with a mounted ConfigMap, and a ConfigMap and a Secret in its environment."""
    if not cluster.has_node or cluster.rig is None:
        pytest.skip("pods run, and Services are reached, on a node of this machine only")
    with fresh_namespace(api) as namespace:
        service = _deployed(api, namespace)
        with served(cluster, api, service, tmp_path_factory.mktemp("shop")) as made:
            yield made


def _deployed(api: Api, namespace: str) -> Service:
    core, apps = f"/api/v1/namespaces/{namespace}", f"/apis/apps/v1/namespaces/{namespace}/deployments"
    api.create(f"{core}/configmaps", manifests.configmap("web-config", {manifests.CONFIG_FILE: "CONFIG_VERSION=1\n"}))
    api.create(f"{core}/configmaps", manifests.configmap("web-env", {"rate": "0"}))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-secret"}, "stringData": {"after": "0"}}
    api.create(f"{core}/secrets", secret)
    container = manifests.shop_container("localhost/deployguard-shop:1", {}, config=True)
    container["env"] += [
        {"name": "ERROR_RATE", "valueFrom": {"configMapKeyRef": {"name": "web-env", "key": "rate"}}},
        {"name": "CRASH_AFTER_S", "valueFrom": {"secretKeyRef": {"name": "web-secret", "key": "after"}}},
    ]
    found = api.create(f"{core}/services", manifests.service("web"))
    api.create(apps, manifests.workload("Deployment", "web", container, replicas=4, config="web-config"))
    service = Service("Deployment", "web", namespace, found["spec"]["clusterIP"], f"{apps}/web")
    until("the Deployment is ready", lambda: ready(api, service))
    return service


@pytest.mark.parametrize("name", CASES)
def test_bad_content_is_taken_back(set_up: Shop, name: str) -> None:
    """One pod more reads a copy of it; the source, the template and the stable pods are as they were, and the copy is gone."""
    case = CASES[name]
    with set_up.unharmed():
        done = set_up.run("--config", set_up.file(case.source, **case.keys), config=SOURCES)
    judged(set_up, done, 10, *case.cause)
    assert done.data["exposure_max"]["instances"] == 1
    assert not set_up.spoiled()


@pytest.mark.full
def test_an_edit_in_place_spoils_every_pod_and_a_guarded_one_spoils_one(set_up: Shop, tell: Tell) -> None:
    """The same content: given to `run --config` it spoils one pod; written into the source, as `kubectl edit` does, all of them."""
    text, began = "CONFIG_VERSION=3\nERROR_RATE=0.2\n", time.time()
    with set_up.unharmed():
        done = set_up.run("--config", set_up.file(MOUNTED, shop_conf=text), config=SOURCES)
        assert done.code == 10, done.err
        until("the canary's pod, which alone was spoiled, is gone", lambda: not set_up.spoiled())
    guarded, pods = set_up.users.bad(began), set_up.pods()
    edited = time.time()
    set_up.api.merge(f"{set_up.core}/configmaps/web-config", {"data": {manifests.CONFIG_FILE: text}})
    until("every pod is spoiled", lambda: set_up.spoiled() == set(pods), RELOADED)
    took, first = time.time() - edited, set_up.users.bad(edited)[0].at
    window = done.data["exposed_s"]
    until("as long has passed as the guarded one took", lambda: time.time() > first + window)
    bad = set_up.users.bad(first, first + window)
    tell(
        f"guarded: 1 pod beside {len(pods)} spoiled, {len(guarded)} failed answers, all over after {window:.1f} s; "
        f"edited in place: {len(pods)} of {len(pods)} pods after {took:.0f} s, {len(bad)} failed answers in as long a time, and going on"
    )
