"""What versions are made of is kept in the cluster, immutable, verified, and collected when nothing names it."""

from __future__ import annotations

import base64

import pytest

from deployguard.errors import UserError, WorldError
from deployguard.kube.client import Kube
from deployguard.model.version import NOTHING, Version
from deployguard.targets.kubernetes import content as module
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.marks import WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent
from deployguard.targets.kubernetes.template import digest
from tests.cluster import manifests
from tests.cluster.api import Api

pytestmark = pytest.mark.cluster
SETTINGS, KEYS = ConfigRef("ConfigMap", "settings"), ConfigRef("Secret", "keys")
PASSWORD = base64.b64encode(b"correct horse battery staple").decode()


def contents(kube: Kube, namespace: str) -> Contents:
    """What a process that knows nothing yet sees."""
    return Contents(kube, WorkloadRef("Deployment", namespace, "web"))


def names(api: Api, namespace: str, kind: str = "configmaps") -> set[str]:
    return {o["metadata"]["name"] for o in api.items(f"/api/v1/namespaces/{namespace}/{kind}") if marks.CONTENT in marks.labels(o)}


@pytest.fixture
def workload(api: Api, namespace: str) -> str:
    """A workload without pods; its namespace."""
    api.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", manifests.shop("Deployment", "web", replicas=0))
    return namespace


def test_a_template_is_kept_as_the_server_stores_it(kube: Kube, api: Api, workload: str) -> None:
    """A template as people write it, and the stored one with every default, are one digest, and another process reads it back."""
    written = manifests.shop("Deployment", "web")["spec"]["template"]
    stored = api.get(f"/apis/apps/v1/namespaces/{workload}/deployments/web")["spec"]["template"]
    assert digest(written) != digest(stored)
    kept = {contents(kube, workload).admit_template(template) for template in (written, stored)}
    assert kept == {digest(stored)}
    assert digest(contents(kube, workload).template(*kept)) == digest(stored)
    assert len(names(api, workload)) == 1


def test_a_template_that_the_server_does_not_take_is_an_error_of_the_user(kube: Kube, api: Api, workload: str) -> None:
    """The server's own words name the field, and nothing is kept."""
    template = manifests.shop("Deployment", "web")["spec"]["template"]
    template["spec"]["containers"][0]["resources"] = {"limits": {"memory": "much"}}
    with pytest.raises((UserError, WorldError), match=r"much|quantities"):
        contents(kube, workload).admit_template(template)
    template["spec"]["containers"][0] = {"name": "shop"}
    with pytest.raises(UserError, match=r"containers\[0\].image"):
        contents(kube, workload).admit_template(template)
    assert names(api, workload) == set()


def test_a_configuration_is_kept_as_immutable_copies(kube: Kube, api: Api, workload: str) -> None:
    """Equal content is one digest whoever admits it; copies cannot be edited, and another process reads pairs and content back."""
    one = {
        SETTINGS: ConfigContent(data={"a": "1"}, binary={"b": "AAE="}),
        KEYS: ConfigContent(binary={"password": PASSWORD}, type="Opaque"),
    }
    digest_ = contents(kube, workload).admit_config(one)
    assert contents(kube, workload).admit_config(dict(reversed(one.items()))) == digest_
    found = contents(kube, workload).config(digest_)
    assert {ref: copy.content for ref, copy in found.items()} == one
    copy = api.get(f"/api/v1/namespaces/{workload}/configmaps/{found[SETTINGS].name}")
    assert (copy["data"], copy["binaryData"], copy["immutable"]) == ({"a": "1"}, {"b": "AAE="}, True)
    secret = api.get(f"/api/v1/namespaces/{workload}/secrets/{found[KEYS].name}")
    assert (secret["data"], secret["immutable"]) == ({"password": PASSWORD}, True)
    assert contents(kube, workload).admit_config({}) == NOTHING
    assert contents(kube, workload).config(NOTHING) == {}


def test_digests_of_secrets_are_keyed_and_their_values_appear_nowhere(kube: Kube, api: Api, workload: str, namespace: str) -> None:
    """Neither a plain digest of the content nor a value stands in the index, in names or in labels."""
    content = ConfigContent(binary={"password": PASSWORD}, type="Opaque")
    mine = contents(kube, workload)
    mine.admit_config({KEYS: content})
    key = mine.digest_of(KEYS, content)
    assert key.startswith("hmac-sha256:")
    assert mine.digest_of(ConfigRef("ConfigMap", "keys"), content).split(":")[1] != key.split(":")[1]
    everything = str(api.items(f"/api/v1/namespaces/{workload}/configmaps"))
    assert PASSWORD not in everything
    assert "correct horse" not in everything + repr(content)


def test_what_is_not_what_its_name_says_is_an_error(kube: Kube, api: Api, workload: str) -> None:
    """A copy that somebody made anew with other content is found out when it is read; so is one that is gone."""
    digest_ = contents(kube, workload).admit_config({SETTINGS: ConfigContent(data={"a": "1"})})
    name = contents(kube, workload).pins(digest_)[SETTINGS]
    path = f"/api/v1/namespaces/{workload}/configmaps"
    whole = api.get(f"{path}/{name}")
    api.delete(f"{path}/{name}")
    with pytest.raises(WorldError, match="is gone"):
        contents(kube, workload).config(digest_)
    api.create(path, {**whole, "metadata": {"name": name}, "data": {"a": "2"}})
    with pytest.raises(WorldError, match="digest mismatch"):
        contents(kube, workload).config(digest_)
    with pytest.raises(WorldError, match="not the content that its name says"):
        contents(kube, workload).admit_config({SETTINGS: ConfigContent(data={"a": "1"})})


def test_what_no_kept_version_names_is_collected(kube: Kube, api: Api, workload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates, indexes, copies and copies of Secrets go when nothing names them; what another workload reads, or came lately, stays."""
    mine, other = contents(kube, workload), Contents(kube, WorkloadRef("Deployment", workload, "other"))
    first = {SETTINGS: ConfigContent(data={"a": "1"}), KEYS: ConfigContent(binary={"password": PASSWORD}, type="Opaque")}
    second = {SETTINGS: ConfigContent(data={"a": "2"}), KEYS: ConfigContent(binary={"password": "bmV3"}, type="Opaque")}
    shared = {SETTINGS: ConfigContent(data={"a": "3"})}
    template = manifests.shop("Deployment", "web")["spec"]["template"]
    kept = Version(mine.admit_template(template), mine.admit_config(second))
    template["spec"]["containers"][0]["image"] = "localhost/other:1"
    gone = Version(mine.admit_template(template), mine.admit_config(first))
    mine.admit_config(shared)
    other.admit_config(shared)
    assert mine.collect([kept]) == []
    monkeypatch.setattr(module, "GRACE", -60.0)
    collected = set(mine.collect([kept]))
    assert marks.release_name("web", gone.release) in collected
    assert len(collected) == 5
    fresh = contents(kube, workload)
    assert {ref: copy.content for ref, copy in fresh.config(kept.config).items()} == second
    assert fresh.template(kept.release)
    assert set(other.config(other.admit_config(shared))) == {SETTINGS}
    assert len(names(api, workload, "secrets")) == 1
    with pytest.raises(WorldError, match="is not kept"):
        fresh.template(gone.release)
