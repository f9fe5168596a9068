"""Others write to a Deployment too: what they do is told, and never fought."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from deployguard.errors import StaleView
from deployguard.targets.kubernetes import marks
from tests.cluster.api import until
from tests.cluster.fixtures import Cluster
from tests.contracts.kube.stage import Stage, conf, runs

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]


def test_a_template_that_somebody_else_changed_stays_as_they_want_it(stage: Set, cluster: Cluster) -> None:
    """A `kubectl set env` in the middle of a promotion is told; going back then takes away only what is ours."""
    yard = stage(2, minReadySeconds=1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.tell(yard.wish(stable, candidate, 2, full=True, pace=20))
    cluster.kubectl("-n", yard.namespace, "set", "env", "deployment/web", "VERSION=v3")
    view = yard.target().observe()
    assert "somebody else changed the pod template of deployment/web" in view.superseded
    assert "kubectl" in view.superseded
    template = yard.workload()["spec"]["template"]
    back = yard.wish(stable)
    view = yard.drive(back, lambda view: not view.running(candidate))
    spec = yard.workload()["spec"]
    assert (spec["template"], spec["minReadySeconds"], yard.canaries()) == (template, 1, [])
    assert view.superseded
    assert view.source is not None
    assert view.source.release not in (stable.release, candidate.release)
    fresh = yard.wish(view.source, by="web/r2")
    assert yard.drive(fresh, lambda view: not view.superseded).told == fresh


def test_a_change_while_only_the_canary_is_out_leaves_the_workload_alone(stage: Set, cluster: Cluster) -> None:
    """With a canary beside it, a `kubectl set image` is told, and the way back deletes the canary and nothing else."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    cluster.kubectl("-n", yard.namespace, "set", "env", "deployment/web", "VERSION=v3")
    spec = yard.workload()["spec"]
    yard.see("that it was overtaken", lambda view: view.superseded)
    yard.drive(yard.wish(stable), lambda view: not view.running(candidate))
    assert (yard.canaries(), yard.workload()["spec"]) == ([], spec)


def test_an_undo_is_not_undone(stage: Set, cluster: Cluster) -> None:
    """`kubectl rollout undo` in the middle of a promotion brings old annotations back: that counts as somebody else's change."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    full = yard.wish(stable, candidate, 1, full=True, pace=20)
    yard.tell(full)
    until("the new ReplicaSet", lambda: len(yard.api.items(f"/apis/apps/v1/namespaces/{yard.namespace}/replicasets")) == 3)
    cluster.kubectl("-n", yard.namespace, "rollout", "undo", "deployment/web")
    view = yard.target().observe()
    assert view.superseded
    with pytest.raises(StaleView):
        yard.target().shift(msgspec.structs.replace(full, fence=1), view.basis)
    yard.tell(full)
    assert yard.target().observe().adopted == stable


def test_a_source_that_is_edited_is_told_and_not_overwritten(stage: Set) -> None:
    """An edit of the source during a rollout is told in words; the way back leaves it as it is."""
    yard = stage(1, config={"CONFIG_VERSION": "a"})
    stable = yard.stable()
    candidate = yard.candidate(stable, config=conf(CONFIG_VERSION="b"))
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.edit(conf(CONFIG_VERSION="theirs"))
    view = yard.target().observe()
    assert view.source_changed == "ConfigMap web-config was edited since the rollout began"
    assert view.source is not None
    assert view.source.config not in (stable.config, candidate.config)
    yard.drive(yard.wish(stable), runs(stable, 1))
    assert yard.source() == conf(CONFIG_VERSION="theirs")


def test_a_fence_that_vanished_is_shown_as_it_is(stage: Set) -> None:
    """Without the label the view has no fence and nothing that was told; a higher word is followed again."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.fence = 5
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.api.merge(yard.service.path, {"metadata": {"labels": {marks.FENCE: None}}})
    view = yard.target().observe()
    assert (view.fence, view.told) == (0, None)
    assert runs(candidate, 1)(view)
    yard.drive(yard.wish(stable), runs(stable, 1))
    assert yard.canaries() == []


def test_a_canary_of_a_workload_that_was_made_anew_is_a_stray(stage: Set, cluster: Cluster) -> None:
    """A canary left behind by `--cascade=orphan` is shown as exposed, and goes with the next word, or with the reaper."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    whole = yard.workload()
    cluster.kubectl("-n", yard.namespace, "delete", "deployment/web", "--cascade=orphan")
    whole["metadata"] = {"name": "web"}
    yard.api.create(f"/apis/apps/v1/namespaces/{yard.namespace}/deployments", whole)
    view = yard.see("the workload has its pod again", lambda view: [i for i in view.running(stable) if i.ready])
    assert len(view.running(candidate)) == 1
    yard.drive(yard.wish(stable), runs(candidate, 0))
    assert yard.canaries() == []


def test_the_sources_of_others_are_not_taken_over(stage: Set, cluster: Cluster) -> None:
    """After a promotion and a way back, a server-side apply of the template's owner meets no conflict."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1, full=True, pace=1), runs(candidate, 1))
    yard.drive(yard.wish(stable), runs(stable, 1))
    live = yard.workload()
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": live["spec"]}
    path = f"{yard.service.path}?fieldManager=ci&force=false"
    answer = yard.api.ask("PATCH", path, manifest, "application/apply-patch+yaml")
    conflicts = [cause["message"] for cause in answer.body.get("details", {}).get("causes", [])]
    assert not [text for text in conflicts if "deployguard" in text]


def test_a_workload_that_was_replaced_whole_is_left_as_its_owner_made_it(stage: Set, cluster: Cluster) -> None:
    """`kubectl replace --force` takes every mark of ours along: going back then undoes nothing of what came instead, and says so."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    whole = yard.workload()
    whole["metadata"] = {"name": "web"}
    whole["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "VERSION", "value": "theirs"}]
    yard.api.delete(yard.service.path)
    yard.api.create(f"/apis/apps/v1/namespaces/{yard.namespace}/deployments", whole)
    template = yard.workload()["spec"]["template"]
    assert yard.target().observe().fence == 0
    view = yard.drive(yard.wish(stable), lambda view: not view.running(candidate))
    assert (yard.workload()["spec"]["template"], yard.canaries()) == (template, [])
    assert "somebody else changed the pod template" in view.superseded


def test_a_lost_record_is_no_excuse_to_leave_a_bad_candidate(stage: Set) -> None:
    """Without its annotation in the middle of a promotion, the way back still brings the stable template."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.tell(yard.wish(stable, candidate, 1, full=True, pace=30))
    yard.api.merge(yard.service.path, {"metadata": {"annotations": {marks.TOLD: None}}})
    assert yard.target().observe().told is None
    yard.drive(yard.wish(stable), runs(stable, 1))


def test_what_others_deploy_reads_what_the_source_holds(stage: Set, cluster: Cluster) -> None:
    """After a promotion somebody deploys another template and another configuration at once: that pair is what one goes back to."""
    yard = stage(1, config={"CONFIG_VERSION": "a"})
    stable = yard.stable()
    promoted = yard.candidate(stable, config=conf(CONFIG_VERSION="b"))
    yard.drive(yard.wish(stable, promoted, 1, full=True, pace=1), runs(promoted, 1))
    yard.drive(yard.wish(promoted), runs(promoted, 1))
    yard.edit(conf(CONFIG_VERSION="theirs"))
    cluster.kubectl("-n", yard.namespace, "set", "env", "deployment/web", "VERSION=theirs")
    theirs = yard.stable()
    assert theirs.config not in (stable.config, promoted.config)
    assert (yard.target().live().version, yard.target().observe().adopted) == (theirs, theirs)
    candidate = yard.candidate(theirs, {"VERSION": "v4"}, config=conf(CONFIG_VERSION="d"))
    view = yard.drive(yard.wish(theirs, candidate, 1, by="web/r2"), runs(candidate, 1))
    assert (view.adopted, view.superseded, view.source_changed) == (theirs, "", "")
    yard.drive(yard.wish(theirs, candidate, 1, by="web/r2", full=True, pace=1), runs(candidate, 1))
    view = yard.drive(yard.wish(theirs, by="web/r2"), runs(theirs, 1))
    assert (yard.source(), view.adopted) == (conf(CONFIG_VERSION="theirs"), theirs)
