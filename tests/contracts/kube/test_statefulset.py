"""A StatefulSet does what it is told: candidates from the highest ordinal down, and a way back that does not wait for what is broken."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from deployguard.engine.health import doom
from deployguard.errors import StaleView
from deployguard.kube.client import connect
from deployguard.model.target import TargetView
from deployguard.report.rbac import Rule, pipeline_rules, reaper_rules
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.reap import reap
from tests.cluster.api import until
from tests.cluster.fixtures import Cluster
from tests.contracts.kube.stage import Stage, conf, runs
from tests.contracts.kube.test_deployment_crashes import one_write_each

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]
KIND = "StatefulSet"
WARMUP = dt.timedelta(seconds=30)


def allowed(yard: Stage, cluster: Cluster, name: str, rules: tuple[Rule, ...]) -> Any:
    """The API server as an account of the namespace that may do what the rules say, and nothing else."""
    base, account = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{yard.namespace}", {"name": name, "namespace": yard.namespace}
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    yard.api.create(f"{base}/roles", {**head, "kind": "Role", "rules": [rule.fields() for rule in rules]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subjects = [{"kind": "ServiceAccount", **account}]
    yard.api.create(f"{base}/rolebindings", {**head, "kind": "RoleBinding", "roleRef": role, "subjects": subjects})
    return connect(kubeconfig=str(cluster.kubeconfig), as_user=f"system:serviceaccount:{yard.namespace}:{name}", timeout=20.0)


def strategy(yard: Stage) -> dict[str, Any]:
    found: dict[str, Any] = yard.workload()["spec"]["updateStrategy"]
    return found


def test_a_candidate_is_exposed_from_the_top_and_goes_and_the_rest_never_notices(stage: Set) -> None:
    """The highest pod, then two, then none: pods below the partition keep their uids, and the user's strategy is back at the end."""
    yard = stage(3, kind=KIND, minReadySeconds=1)
    before, spec, stable = yard.pods(), yard.workload()["spec"], yard.stable()
    view = yard.target().observe()
    assert (view.wanted, view.adopted, view.source, view.surge, view.pending) == (3, stable, stable, False, False)
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    view = yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    assert [i.id for i in view.running(candidate)] == ["web-2"]
    assert (view.adopted, view.source, len(view.instances), view.superseded) == (stable, stable, 3, "")
    assert strategy(yard)["rollingUpdate"]["partition"] == 2
    view = yard.drive(yard.wish(stable, candidate, 2), runs(candidate, 2))
    assert yard.pods()["web-0"] == before["web-0"]
    back = yard.drive(yard.wish(stable), runs(stable, 3))
    assert (back.running(candidate), back.pending) == ((), False)
    assert (yard.pods()["web-0"], yard.workload()["spec"]) == (before["web-0"], spec)
    managers = {e["manager"] for e in yard.workload()["metadata"]["managedFields"] if "f:spec" in e["fieldsV1"]}
    assert "deployguard" not in managers


def test_a_stable_pod_that_is_lost_during_a_stage_comes_back_stable(stage: Set) -> None:
    """The partition holds for pods that are made anew, too."""
    yard = stage(2, kind=KIND)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    lost = yard.pods()["web-0"]
    yard.api.delete(f"/api/v1/namespaces/{yard.namespace}/pods/web-0")
    until("it is back", lambda: yard.pods().get("web-0", lost) != lost)
    view = yard.see("both run", lambda view: runs(candidate, 1)(view) and runs(stable, 1)(view))
    assert [i.id for i in view.running(stable)] == ["web-0"]


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
@pytest.mark.parametrize(
    ("env", "image", "sees"),
    [
        ({"NEVER_READY": "1"}, "", "started"),
        ({"CRASH_AT_START": "1"}, "", "exit"),
        ({}, "localhost/nothing-of-that-name:1", "waits"),
        ({"CONFIG": "/nothing"}, "not a name", "refused"),
    ],
)
def test_a_candidate_that_does_not_come_up_is_seen_and_taken_back(
    stage: Set, policy: str, env: dict[str, object], image: str, sees: str
) -> None:
    """Never ready, crashing, without an image: the engine is told why, and the way back leaves every pod stable, the others untouched."""
    yard = stage(2, kind=KIND, podManagementPolicy=policy)
    before, spec, stable = yard.pods(), yard.workload()["spec"], yard.stable()
    candidate = yard.candidate(stable, env, image)

    def broken(view: TargetView) -> bool:
        (one,) = view.running(candidate) or (None,)
        if one is None or one.ready:
            return False
        found = {"started": one.started is not None, "exit": one.exits > 0, "waits": bool(one.waiting), "refused": bool(one.refused)}
        return found[sees]

    yard.tell(yard.wish(stable, candidate, 1))
    view = yard.see("what is wrong with it", broken)
    (one,) = view.running(candidate)
    assert one.id == "web-1"
    assert bool(doom(one, WARMUP)) == (sees in ("exit", "refused"))
    back = yard.drive(yard.wish(stable), runs(stable, 2))
    assert len(back.instances) == 2
    assert (yard.pods()["web-0"], yard.workload()["spec"]) == (before["web-0"], spec)


def test_a_promotion_takes_every_pod_and_a_way_back_from_its_middle_takes_them_back(stage: Set) -> None:
    """At full exposure the partition is 0 and the pace the promotion's; back is the old revision at once, the user's pace at the end."""
    yard = stage(3, kind=KIND)
    stable, spec = yard.stable(), yard.workload()["spec"]
    revision = yard.workload()["status"]["currentRevision"]
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    full = yard.wish(stable, candidate, 3, full=True, pace=2)
    yard.tell(full)
    assert (strategy(yard)["rollingUpdate"]["partition"], yard.workload()["spec"]["minReadySeconds"]) == (0, 2)
    yard.see("a second pod is a candidate", lambda view: len(view.running(candidate)) >= 2)
    yard.drive(yard.wish(stable), runs(stable, 3))
    assert (yard.workload()["spec"], yard.workload()["status"]["currentRevision"]) == (spec, revision)
    again = yard.drive(yard.wish(stable, candidate, 3, full=True, pace=1), runs(candidate, 3))
    assert (again.adopted, again.source) == (candidate, candidate)
    watching = yard.drive(yard.wish(candidate), runs(candidate, 3))
    assert (watching.pending, watching.superseded) == (False, "")
    assert (strategy(yard), "minReadySeconds" in yard.workload()["spec"]) == (spec["updateStrategy"], False)


def test_a_release_alone_starts_its_candidates_once(stage: Set) -> None:
    """Where the configuration does not change, nothing is pinned: a promotion does not start the first candidate again."""
    yard = stage(2, kind=KIND, config={"CONFIG_VERSION": "a"})
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    first = yard.pods()["web-1"]
    yard.drive(yard.wish(stable, candidate, 2, full=True, pace=1), runs(candidate, 2))
    assert yard.pods()["web-1"] == first


def test_a_configuration_goes_as_a_pair_and_comes_back_as_one(stage: Set) -> None:
    """The candidate reads a copy until all pods are candidates; then the source holds it, and the way back restores both."""
    yard = stage(2, kind=KIND, config={"CONFIG_VERSION": "a"})
    before, stable, text = yard.pods(), yard.stable(), yard.source()
    candidate = yard.candidate(stable, config=conf(CONFIG_VERSION="b"))
    view = yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    assert (yard.source(), yard.pods()["web-0"], view.source_changed, view.source) == (text, before["web-0"], "", stable)
    names = [v["configMap"]["name"] for v in yard.workload()["spec"]["template"]["spec"]["volumes"] if "configMap" in v]
    assert names[0].startswith("web-config-dg-")
    full = yard.drive(yard.wish(stable, candidate, 2, full=True, pace=1), runs(candidate, 2))
    assert (yard.source(), full.adopted, full.source) == (conf(CONFIG_VERSION="b"), candidate, candidate)
    names = [v["configMap"]["name"] for v in yard.workload()["spec"]["template"]["spec"]["volumes"] if "configMap" in v]
    assert names == ["web-config"]
    back = yard.drive(yard.wish(stable), runs(stable, 2))
    assert (yard.source(), back.adopted, back.source) == (text, stable, stable)


def test_a_workload_that_grows_keeps_its_candidates_few(stage: Set) -> None:
    """Two pods more during a stage: the partition follows, and a pod that came as a candidate below it is made anew as stable."""
    yard = stage(2, kind=KIND)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    wish = yard.wish(stable, candidate, 1)
    yard.drive(wish, runs(candidate, 1))
    yard.api.merge(f"{yard.service.path}/scale", {"spec": {"replicas": 3}})
    view = yard.drive(wish, lambda view: view.wanted == 3 and runs(candidate, 1)(view) and runs(stable, 2)(view))
    assert [i.id for i in view.running(candidate)] == ["web-2"]


def test_what_somebody_else_rolls_out_is_told_and_never_fought(stage: Set) -> None:
    """A change on top of a template on trial is theirs and stays; what is under trial is taken out of it before the partition is lifted."""
    yard = stage(2, kind=KIND, config={"CONFIG_VERSION": "a"})
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    theirs = {"spec": {"template": {"metadata": {"labels": {"by": "somebody"}}}}}
    yard.api.merge(yard.service.path, theirs)
    view = yard.target().observe()
    assert "somebody else changed the pod template" in view.superseded
    yard.drive(yard.wish(stable), lambda view: not view.pending)
    template = yard.workload()["spec"]["template"]
    assert template["metadata"]["labels"] == {"app": "web", "by": "somebody"}
    assert [one["name"] for one in template["spec"]["containers"][0]["env"]] == ["CONFIG"]
    assert [v["configMap"]["name"] for v in template["spec"]["volumes"]] == ["web-config"]
    assert "annotations" not in template["metadata"]
    assert strategy(yard)["rollingUpdate"]["partition"] == 0
    view = yard.see("their rollout", lambda view: len([one for one in view.instances if one.ready and one.assigned == view.adopted]) == 2)
    assert view.running(candidate) == ()


def test_candidates_that_nobody_drives_are_taken_back_under_their_fence(stage: Set) -> None:
    """The lease stands on the workload; a retreat marks the fence before it writes anything, and the same word exposes nothing again."""
    yard = stage(2, kind=KIND)
    stable, spec = yard.stable(), yard.workload()["spec"]
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    wish = yard.wish(stable, candidate, 1)
    target = yard.target()
    yard.drive(wish, runs(candidate, 1), target)
    lease = marks.number(yard.workload(), marks.UNTIL)
    target.renew(wish.fence, 600.0)
    renewed = marks.number(yard.workload(), marks.UNTIL)
    assert lease is not None
    assert renewed is not None
    assert renewed > lease
    with pytest.raises(StaleView):
        target.renew(wish.fence - 1, 600.0)
    later = dt.datetime.fromtimestamp(renewed, dt.UTC)
    assert reap(yard.kube, [yard.namespace], later - dt.timedelta(seconds=10)) == []
    (first,) = reap(yard.kube, [yard.namespace], later)
    assert (first.workload.name, first.fence, first.replicas, first.why[:20]) == ("web", wish.fence, 1, "nobody has driven it")
    until("the reaper has nothing left to do", lambda: not reap(yard.kube, [yard.namespace], later))
    view = yard.see("stable again", runs(stable, 2))
    assert (view.retreated, view.fence, yard.workload()["spec"]) == (wish.fence, wish.fence, spec)
    assert marks.UNTIL not in marks.labels(yard.workload())
    with pytest.raises(StaleView):
        target.shift(wish, target.observe().basis)
    with pytest.raises(StaleView):
        target.renew(wish.fence, 60.0)


def test_every_write_may_be_the_last_of_its_driver(stage: Set) -> None:
    """A stage, a promotion with its configuration and the way back come about although each driver dies after one single write.

    The partition is not lifted before the source holds what pods will read.
    """
    yard = stage(2, kind=KIND, config={"CONFIG_VERSION": "a"})
    stable, text, spec = yard.stable(), yard.source(), yard.workload()["spec"]
    candidate = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    one_write_each(yard, yard.wish(stable, candidate, 1), runs(candidate, 1))
    written = one_write_each(yard, yard.wish(stable, candidate, 2, full=True, pace=1), runs(candidate, 2))
    assert written[:3] == ["patch statefulsets/web", "patch configmaps/web-config", "patch statefulsets/web"]
    names = [r["metadata"]["name"] for r in yard.api.items(f"/apis/apps/v1/namespaces/{yard.namespace}/controllerrevisions")]
    assert (yard.source(), len(names)) == (conf(CONFIG_VERSION="b"), 3)
    one_write_each(yard, yard.wish(stable), runs(stable, 2))
    assert (yard.source(), yard.workload()["spec"]) == (text, spec)


def test_the_rights_that_are_printed_for_the_kind_suffice(stage: Set, cluster: Cluster) -> None:
    """As the pipeline's account a pair is tried and promoted, as the reaper's another one is taken back; neither may do anything else."""
    yard = stage(2, kind=KIND, config={"CONFIG_VERSION": "a"})
    admin, reaper = yard.kube, allowed(yard, cluster, "reaper", reaper_rules([KIND]))
    yard.kube = allowed(yard, cluster, "pipeline", pipeline_rules([KIND]))
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.drive(yard.wish(stable, candidate, 2, full=True), runs(candidate, 2))
    broken = yard.candidate(candidate, {"NEVER_READY": "1"})
    yard.tell(yard.wish(candidate, broken, 1, by="web/r2"))
    yard.see("it runs", lambda view: any(one.started for one in view.running(broken)))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=120)
    assert len(reap(reaper, [yard.namespace], later)) == 1
    until("the reaper has nothing left to do", lambda: not reap(reaper, [yard.namespace], later))
    yard.kube = admin
    assert runs(candidate, 2)(yard.see("stable again", runs(candidate, 2)))


def test_a_pod_that_cannot_be_created_is_told_with_the_version_it_would_run(stage: Set) -> None:
    """A stable pod that is lost, and that the namespace no longer admits, is a refused instance of stable, not the candidate's."""
    yard = stage(2, kind=KIND)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    strict = "pod-security.kubernetes.io/enforce"
    yard.api.merge(f"/api/v1/namespaces/{yard.namespace}", {"metadata": {"labels": {strict: "restricted"}}})
    yard.api.delete(f"/api/v1/namespaces/{yard.namespace}/pods/web-0")
    view = yard.see("that it cannot be created", lambda view: any(one.refused for one in view.instances))
    (lost,) = [one for one in view.instances if one.refused]
    assert (lost.id, lost.assigned, lost.loaded, lost.ready) == ("web-?1", stable, None, False)
    assert "violates PodSecurity" in lost.refused
    yard.api.merge(f"/api/v1/namespaces/{yard.namespace}", {"metadata": {"labels": {strict: None}}})
    yard.see("it is back", runs(stable, 1))


def test_a_trial_that_nobody_ended_is_taken_back_by_whoever_comes_next(stage: Set) -> None:
    """Another rollout finds a template on trial: it goes back to what was there before, and its own trial begins from there."""
    yard = stage(2, kind=KIND, config={"CONFIG_VERSION": "a"})
    before, spec, stable = yard.pods(), yard.workload()["spec"], yard.stable()
    first = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    yard.drive(yard.wish(stable, first, 1), runs(first, 1))
    assert yard.stable() == stable
    yard.drive(yard.wish(stable, by="web/r2"), runs(stable, 2))
    assert (yard.workload()["spec"], yard.pods()["web-0"]) == (spec, before["web-0"])
    yard.drive(yard.wish(stable, first, 1, by="web/r3"), runs(first, 1))
    second = yard.candidate(stable, {"VERSION": "v3"})
    yard.drive(yard.wish(stable, second, 1, by="web/r4"), runs(second, 1))
    yard.drive(yard.wish(stable, by="web/r4"), runs(stable, 2))
    assert (yard.workload()["spec"], yard.pods()["web-0"]) == (spec, before["web-0"])
