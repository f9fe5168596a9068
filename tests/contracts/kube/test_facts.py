"""What deployguard takes for granted about API servers and controllers, asked of real ones."""

from __future__ import annotations

import pytest

from tests.cluster import manifests
from tests.cluster.api import Api, until

pytestmark = pytest.mark.cluster

NOBODY = "00000000-0000-4000-8000-000000000000"


def deployments(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def replicasets(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/replicasets"


def configmaps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def web(api: Api, namespace: str, name: str = "web", *, replicas: int = 0, labels: dict[str, str] | None = None) -> str:
    """The path of a Deployment that its controller has seen."""
    body = manifests.shop("Deployment", name, replicas=replicas)
    for place in (body["spec"]["selector"]["matchLabels"], body["spec"]["template"]["metadata"]["labels"]):
        place.update(labels or {})
    api.create(deployments(namespace), body)
    path = f"{deployments(namespace)}/{name}"
    until("the controller has seen it", lambda: seen(api, path))
    return path


def seen(api: Api, path: str) -> bool:
    found = api.get(path)
    return bool(found.get("status", {}).get("observedGeneration", 0) >= found["metadata"]["generation"])


def generation(api: Api, path: str) -> int:
    return int(api.get(path)["metadata"]["generation"])


@pytest.mark.parametrize("place", ["/metadata/labels/fence", "/metadata/generation"])
def test_a_failed_precondition_is_a_422_without_details(api: Api, namespace: str, place: str) -> None:
    """A JSON Patch whose `test` fails is refused with 422 and no causes, absent path or other value alike."""
    path = web(api, namespace)
    operations = [{"op": "test", "path": place, "value": 99}, {"op": "add", "path": "/metadata/annotations/a", "value": "b"}]
    said = api.patch(path, operations)
    assert (said.status, said.body["reason"]) == (422, "Invalid")
    assert not said.body.get("details", {}).get("causes")
    assert "a" not in api.get(path)["metadata"].get("annotations", {})


def test_a_patch_that_breaks_the_object_is_a_422_with_causes(api: Api, namespace: str) -> None:
    """An invalid object is refused with 422 and its causes: so the two can be told apart."""
    said = api.patch(web(api, namespace), [{"op": "replace", "path": "/spec/replicas", "value": -1}])
    assert said.status == 422
    assert said.body["details"]["causes"]


def test_labels_leave_the_generation_and_annotations_raise_it(api: Api, namespace: str) -> None:
    """A label write keeps `generation`, an annotation write raises it by one, and through /status it is stored and keeps it."""
    path = web(api, namespace)
    first = generation(api, path)
    api.merge(path, {"metadata": {"labels": {"fence": "1"}}})
    assert generation(api, path) == first
    api.merge(path, {"metadata": {"annotations": {"told": "1"}}})
    assert generation(api, path) == first + 1
    api.merge(f"{path}/status", {"metadata": {"annotations": {"seen": "1"}}})
    after = api.get(path)["metadata"]
    assert (after["generation"], after["annotations"]["seen"]) == (first + 1, "1")


def test_a_paused_deployment_makes_nothing_of_a_new_template(api: Api, namespace: str) -> None:
    """A paused Deployment whose template changed keeps its one ReplicaSet, and goes back to it unpaused with the old template."""
    path = web(api, namespace)
    until("its ReplicaSet", lambda: api.items(replicasets(namespace)))
    old = api.get(path)["spec"]["template"]
    container = {**old["spec"]["containers"][0], "image": "localhost/deployguard-shop:2"}
    api.patch(path, [{"op": "add", "path": "/spec/paused", "value": True}])
    assert api.patch(path, [{"op": "replace", "path": "/spec/template/spec/containers/0", "value": container}]).status == 200
    until("the controller has seen the new template", lambda: seen(api, path))
    (only,) = api.items(replicasets(namespace))
    back = [{"op": "replace", "path": "/spec/template", "value": old}, {"op": "remove", "path": "/spec/paused"}]
    assert api.patch(path, back).status == 200
    until("the controller has seen the old template", lambda: seen(api, path))
    assert [found["metadata"]["uid"] for found in api.items(replicasets(namespace))] == [only["metadata"]["uid"]]


def test_an_orphaned_canary_is_adopted(api: Api, namespace: str) -> None:
    """The ReplicaSet of a canary that was deleted with orphan is taken by the Deployment whose selector fits: never delete so."""
    uid = api.get(web(api, namespace))["metadata"]["uid"]
    canary = web(api, namespace, "web-canary", labels={"app": "web", "track": "canary"})
    until("two ReplicaSets", lambda: len(api.items(replicasets(namespace))) == 2)
    api.delete(canary, propagation="Orphan")

    def owners() -> list[str]:
        references = [found["metadata"].get("ownerReferences", []) for found in api.items(replicasets(namespace))]
        return [reference["uid"] for listed in references for reference in listed]

    until("both belong to the one that stayed", lambda: owners() == [uid, uid])


def test_a_replacement_without_a_resource_version_is_blind(api: Api, namespace: str) -> None:
    """PUT without resourceVersion, or with "0", overwrites what another wrote meanwhile; with a stale one it is a conflict."""
    body = api.create(configmaps(namespace), manifests.configmap("state", {"a": "1"}))
    path = f"{configmaps(namespace)}/state"
    api.merge(path, {"data": {"a": "2"}})
    assert api.ask("PUT", path, body).status == 409
    assert api.ask("PUT", path, manifests.configmap("state", {"a": "3"})).status == 200
    body["metadata"]["resourceVersion"] = "0"
    assert api.ask("PUT", path, body).status == 200
    assert api.get(path)["data"] == {"a": "1"}


def test_what_belongs_to_nobody_alive_is_collected(api: Api, namespace: str) -> None:
    """An object created with an owner that does not exist (any more) is taken, and soon collected."""
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": NOBODY, "controller": True}
    body = manifests.shop("Deployment", "web-canary", replicas=0)
    body["metadata"]["ownerReferences"] = [owner]
    api.create(deployments(namespace), body)
    until("it is collected", lambda: api.ask("GET", f"{deployments(namespace)}/web-canary").status == 404)


def test_our_entry_can_leave_the_managed_fields(api: Api, namespace: str) -> None:
    """A second patch drops the entry of a writer from managedFields and changes nothing else: no field stays owned by it."""
    path = web(api, namespace)
    api.patch(f"{path}?fieldManager=someone", [{"op": "add", "path": "/spec/minReadySeconds", "value": 2}])
    before = generation(api, path)

    def dropped() -> bool:
        found = api.get(path)["metadata"]
        rest = [entry for entry in found["managedFields"] if entry["manager"] != "someone"]
        assert len(rest) < len(found["managedFields"])
        as_read = {"op": "test", "path": "/metadata/resourceVersion", "value": found["resourceVersion"]}
        return api.patch(path, [as_read, {"op": "replace", "path": "/metadata/managedFields", "value": rest}]).status == 200

    until("no status write came between", dropped)
    after = api.get(path)
    assert "someone" not in [entry["manager"] for entry in after["metadata"]["managedFields"]]
    assert (after["spec"]["minReadySeconds"], after["metadata"]["generation"]) == (2, before)
