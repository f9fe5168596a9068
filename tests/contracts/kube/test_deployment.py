"""A Deployment does what it is told: canaries beside it, promotion by its own rolling update, and the way back."""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec
import pytest

from deployguard.errors import StaleView
from deployguard.model.version import Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent
from tests.cluster.api import until
from tests.cluster.fixtures import ready
from tests.cluster.manifests import CONFIG_FILE
from tests.contracts.kube.stage import Stage, Watched, conf, runs

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]


def test_a_look_shows_what_runs_and_nothing_that_was_told(stage: Set) -> None:
    """Before anything is told, every pod is an instance of the version found running, reached through the API server."""
    yard = stage(2)
    stable = yard.stable()
    view = yard.target().observe()
    assert (view.fence, view.told, view.wanted, view.adopted, view.source, view.surge) == (0, None, 2, stable, stable, True)
    assert [(i.assigned, i.loaded, i.ready, i.exits, i.refused, i.waiting) for i in view.instances] == [
        (stable, stable, True, 0, "", "")
    ] * 2
    assert {i.address for i in view.instances} == {f"kube://{yard.namespace}/{name}:8080" for name in yard.pods()}
    assert (view.pending, view.superseded, view.source_changed, view.retreated) == (False, "", "", None)


def test_a_candidate_is_exposed_grows_and_goes_and_stable_never_notices(stage: Set) -> None:
    """One canary, then two, then none: the pods of the workload keep their uids and restart counts, and its spec never changes."""
    yard = stage(2)
    before, spec, stable = yard.pods(), yard.workload()["spec"], yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    assert candidate != stable
    view = yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    (first,) = view.running(candidate)
    assert (view.wanted, len(view.instances), view.fence) == (2, 3, 1)
    view = yard.drive(yard.wish(stable, candidate, 2), runs(candidate, 2))
    assert first.uid in {i.uid for i in view.instances}
    view = yard.drive(yard.wish(stable), runs(candidate, 0))
    assert runs(stable, 2)(view)
    assert yard.canaries() == []
    assert (yard.pods(), yard.workload()["spec"]) == (before, spec)


def test_a_promotion_is_a_rolling_update_at_its_own_pace_and_ends_without_a_canary(stage: Set) -> None:
    """The workload runs the candidate under the user's names, watched batch by batch; then the user's own pace is back."""
    yard = stage(2)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    full = yard.wish(stable, candidate, 2, full=True, pace=3)
    yard.tell(full)
    assert yard.workload()["spec"]["minReadySeconds"] == 3
    assert len(yard.canaries()) == 1
    view = yard.drive(full, runs(candidate, 2))
    assert (yard.canaries(), view.adopted, len(view.instances)) == ([], candidate, 2)
    yard.drive(yard.wish(candidate), runs(candidate, 2))
    assert "minReadySeconds" not in yard.workload()["spec"]
    managers = {e["manager"] for e in yard.workload()["metadata"]["managedFields"] if "f:spec" in e["fieldsV1"]}
    assert "deployguard" not in managers


def test_a_way_back_in_the_middle_of_a_promotion_uses_the_old_replicaset_again(stage: Set) -> None:
    """The old template comes back as it was, without waiting for the pace, and the stable pods that were left keep their uids."""
    yard = stage(4, minReadySeconds=1)
    before, stable = yard.pods(), yard.stable()
    sets = f"/apis/apps/v1/namespaces/{yard.namespace}/replicasets"
    (old,) = [r["metadata"]["name"] for r in yard.api.items(sets)]
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.tell(yard.wish(stable, candidate, 4, full=True, pace=30))
    yard.see("a batch of the promotion is out", lambda view: len([i for i in view.running(candidate) if i.ready]) >= 3)
    kept = set(yard.pods().items()) & set(before.items())
    assert kept
    back = yard.wish(stable)
    yard.tell(back)
    assert yard.workload()["spec"].get("minReadySeconds", 0) == 0
    view = yard.drive(back, runs(stable, 4))
    assert (len(view.instances), yard.canaries()) == (4, [])
    assert kept <= set(yard.pods().items())
    assert [r["metadata"]["name"] for r in yard.api.items(sets) if r["spec"]["replicas"]] == [old]
    assert yard.workload()["spec"]["minReadySeconds"] == 1


def test_a_configuration_goes_as_a_pair_and_comes_back_as_one(stage: Set) -> None:
    """Only the canary reads the copy; a promotion writes the source and rolls the pods, and the way back restores both."""
    yard = stage(2, config={"CONFIG_VERSION": "a"})
    before, stable, text = yard.pods(), yard.stable(), yard.source()
    candidate = yard.candidate(stable, config=conf(CONFIG_VERSION="b"))
    assert (candidate.release, candidate.config) == (stable.release, candidate.config)
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    assert (yard.source(), yard.pods()) == (text, before)
    full = yard.wish(stable, candidate, 2, full=True, pace=2)
    view = yard.drive(full, runs(candidate, 2))
    assert (yard.source(), view.adopted, view.source, view.source_changed) == (conf(CONFIG_VERSION="b"), candidate, candidate, "")
    back = yard.drive(yard.wish(stable), runs(stable, 2))
    assert (yard.source(), back.adopted, back.source) == (text, stable, stable)
    source = yard.api.get(f"/api/v1/namespaces/{yard.namespace}/configmaps/web-config")
    assert "deployguard" not in {e["manager"] for e in source["metadata"]["managedFields"]}


def test_a_secret_goes_as_a_pair_too(stage: Set) -> None:
    """The canary mounts a copy of the Secret with the candidate's values; a promotion writes them into the Secret itself."""
    yard = stage(1)
    keys, text = ConfigRef("Secret", "web-keys"), {name: conf(CONFIG_VERSION=name) for name in "ab"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": keys.name}, "stringData": {CONFIG_FILE: text["a"]}}
    path = f"/api/v1/namespaces/{yard.namespace}/secrets"
    yard.api.create(path, secret)
    template = yard.workload()["spec"]["template"]
    pod = {**template["spec"], "volumes": [{"name": "keys", "secret": {"secretName": keys.name}}]}
    pod["containers"][0]["volumeMounts"] = [{"name": "keys", "mountPath": "/etc/shop"}]
    yard.api.merge(yard.service.path, {"spec": {"template": {**template, "spec": pod}}})
    until("the pods mount the Secret", lambda: ready(yard.api, yard.service))
    yard.config = (keys,)
    stable, contents = yard.stable(), yard.target().contents()
    changed = ConfigContent.of({**secret, "type": "Opaque", "stringData": {CONFIG_FILE: text["b"]}})
    candidate = Version(stable.release, contents.admit_config({keys: changed}))
    view = yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    (canary,) = yard.canaries()
    (volume,) = canary["spec"]["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == contents.pins(candidate.config)[keys]
    assert (view.source, view.source_changed) == (stable, "")
    yard.drive(yard.wish(stable, candidate, 1, full=True, pace=1), runs(candidate, 1))
    values = [base64.b64decode(yard.api.get(f"{path}/{keys.name}")["data"][CONFIG_FILE]).decode()]
    yard.drive(yard.wish(stable), runs(stable, 1))
    values.append(base64.b64decode(yard.api.get(f"{path}/{keys.name}")["data"][CONFIG_FILE]).decode())
    assert values == [text["b"], text["a"]]


def test_an_outdated_word_is_refused_and_the_same_one_changes_nothing(stage: Set) -> None:
    """A lower fence, an old view, and more exposure under the same fence are stale; the same word twice writes nothing."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    old = yard.target().observe().basis
    yard.fence = 4
    told = yard.wish(stable, candidate, 1)
    view = yard.drive(told, runs(candidate, 1))
    for desired, basis in (
        (msgspec.structs.replace(told, fence=4), view.basis),
        (msgspec.structs.replace(told, count=0), old),
        (msgspec.structs.replace(told, count=2), view.basis),
        (msgspec.structs.replace(told, full=True), view.basis),
        (msgspec.structs.replace(told, fence=6), old),
    ):
        with pytest.raises(StaleView):
            yard.target().shift(desired, basis)
    with pytest.raises(StaleView):
        yard.target().renew(4, 60.0)
    watched = Watched(yard.kube)
    yard.target(watched).shift(told, view.basis)
    assert watched.writes == []
    assert yard.target().observe().basis == view.basis


def test_the_way_back_takes_few_writes(stage: Set) -> None:
    """From the verdict to the deletion of the canary: two writes before a promotion, two during one, four with a configuration."""
    yard = stage(2, config={"CONFIG_VERSION": "a"})
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    canary = f"deployments/{marks.canary_name('web', candidate)}"

    def back() -> list[str]:
        watched = Watched(yard.kube)
        yard.tell(yard.wish(stable), yard.target(watched))
        return watched.writes

    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    assert back() == ["patch deployments/web", f"delete {canary}"]
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.tell(yard.wish(stable, candidate, 2, full=True, pace=30))
    writes = back()
    assert writes[:4] == ["patch deployments/web", f"delete {canary}", "patch configmaps/web-config", "patch deployments/web"]
    assert set(writes[4:]) <= {"patch deployments/web", "patch configmaps/web-config"}


def test_a_lease_is_renewed_only_when_part_of_it_is_gone(stage: Set) -> None:
    """Right after the exposure a renewal writes nothing; with less than two thirds left it moves the mark on the canary alone."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    watched = Watched(yard.kube)
    target = yard.target(watched)
    view = target.observe()
    target.renew(yard.fence, 60.0)
    assert watched.writes == []
    target.renew(yard.fence, 6000.0)
    assert watched.writes == [f"patch deployments/{marks.canary_name('web', candidate)}"]
    assert target.observe().basis == view.basis


def test_a_restart_deletes_the_named_pods_once(stage: Set) -> None:
    """The pod that is named is replaced by another one, and only that."""
    yard = stage(2)
    stable = yard.stable()
    before = yard.pods()
    name = min(before)
    yard.drive(yard.wish(stable, restart=(name,)), runs(stable, 2))
    after = yard.pods()
    assert name not in after
    assert set(after.items()) & set(before.items()) == set(before.items()) - {(name, before[name])}
