"""A DaemonSet does what it is told: candidates node by node and pool by pool, and what is lost by chance comes back stable."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from deployguard.engine.health import doom
from deployguard.kube.client import Kube
from deployguard.model.target import TargetView
from deployguard.targets.kubernetes.reap import reap
from tests.cluster import manifests
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, Service, ready
from tests.contracts.kube.nodes import HandmadeNodes
from tests.contracts.kube.stage import SETTINGS, Stage, conf, runs
from tests.contracts.kube.test_deployment_crashes import one_write_each

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]
KIND = "DaemonSet"
POOLS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
WARMUP = dt.timedelta(seconds=30)


@contextmanager
def spread(kube: Kube, api: Api, namespace: str, config: dict[str, object] | None = None, **spec: Any) -> Iterator[Stage]:
    """A DaemonSet of the shop on four nodes in two pools, with pods that are ready."""
    nodes = HandmadeNodes(api, namespace, POOLS)
    mounted = ""
    if config is not None:
        mounted = SETTINGS.name
        text = manifests.configmap(mounted, {manifests.CONFIG_FILE: manifests.lines(config)})
        api.create(f"/api/v1/namespaces/{namespace}/configmaps", text)
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
    service = Service(KIND, "web", namespace, "", f"{path}/web")
    stage = Stage(kube, api, service, (SETTINGS,) if config is not None else (), options={"pool": "pool"})
    nodes.begin()
    try:
        api.create(path, nodes.fits(manifests.shop(KIND, "web", config=mounted, **spec)))
        until("a pod on each node", lambda: ready(api, service) and len(stage.pods()) == len(POOLS))
        yield stage
    finally:
        api.delete(service.path)
        nodes.end()
        for target in stage.open:
            target.close()


@pytest.fixture
def many(cluster: Cluster, kube: Kube, api: Api, namespace: str) -> Iterator[Set]:
    """Put a DaemonSet on several nodes up."""
    with ExitStack() as stack:
        yield lambda *arguments, **more: stack.enter_context(spread(kube, api, namespace, *arguments, **more))


def nodes_of(yard: Stage, view: TargetView, version: Any) -> list[str]:
    """The nodes, without the namespace, where a version runs."""
    mine = {i.id for i in view.running(version)}
    pods = yard.api.items(f"/api/v1/namespaces/{yard.namespace}/pods")
    return sorted(p["spec"]["nodeName"].removeprefix(f"{yard.namespace}-") for p in pods if p["metadata"]["name"] in mine)


def template_env(yard: Stage) -> dict[str, str]:
    env = yard.workload()["spec"]["template"]["spec"]["containers"][0].get("env") or []
    return {one["name"]: one["value"] for one in env}


def test_candidates_come_pool_by_pool_and_go_again(many: Set) -> None:
    """Two, then three nodes: the first pool first, one pod at a time; the others keep their uids, and at the end all is as it was."""
    yard = many()
    before, spec, stable = yard.pods(), yard.workload()["spec"], yard.stable()
    view = yard.target().observe()
    assert (view.wanted, view.adopted, view.surge, view.pending) == (4, stable, False, False)
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    two = yard.drive(yard.wish(stable, candidate, 2), runs(candidate, 2))
    assert nodes_of(yard, two, candidate) == ["a1", "a2"]
    assert (two.adopted, two.source, two.superseded) == (stable, stable, "")
    assert yard.workload()["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert "VERSION" not in template_env(yard)
    three = yard.drive(yard.wish(stable, candidate, 3, batch=2), runs(candidate, 3))
    assert nodes_of(yard, three, candidate) == ["a1", "a2", "b1"]
    assert len(set(yard.pods().items()) & set(before.items())) == 1
    back = yard.drive(yard.wish(stable), runs(stable, 4))
    assert (back.pending, yard.workload()["spec"]) == (False, spec)
    assert len(set(yard.pods().items()) & set(before.items())) == 1
    managers = {e["manager"] for e in yard.workload()["metadata"]["managedFields"] if "f:spec" in e["fieldsV1"]}
    assert "deployguard" not in managers


def test_a_candidate_that_is_lost_by_chance_comes_back_stable_and_is_made_up_for(many: Set) -> None:
    """Between batches the template is the stable one; the next look finds a candidate too few and replaces a pod again."""
    yard = many()
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    wish = yard.wish(stable, candidate, 1)
    view = yard.drive(wish, runs(candidate, 1))
    (lost,) = view.running(candidate)
    yard.api.delete(f"/api/v1/namespaces/{yard.namespace}/pods/{lost.id}")
    yard.see("all of them stable", runs(stable, 4))
    yard.drive(wish, runs(candidate, 1))


@pytest.mark.parametrize(("env", "sees"), [({"NEVER_READY": "1"}, "started"), ({"CRASH_AT_START": "1"}, "exit")])
def test_no_second_batch_begins_while_the_first_is_not_ready(many: Set, env: dict[str, object], sees: str) -> None:
    """Of three wanted candidates one is tried; it is taken back, and the three others keep their uids."""
    yard = many()
    before, spec, stable = yard.pods(), yard.workload()["spec"], yard.stable()
    candidate = yard.candidate(stable, env)
    wish, target = yard.wish(stable, candidate, 3), yard.target()

    def tick() -> TargetView | None:
        view = target.observe()
        if view.told != wish or view.pending:
            target.shift(wish, view.basis)
            return None
        tried = view.running(candidate)
        return view if tried and (tried[0].exits if sees == "exit" else tried[0].started) else None

    view = until("one candidate that does not come up", tick)
    assert len(view.running(candidate)) == 1
    assert bool(doom(view.running(candidate)[0], WARMUP)) == (sees == "exit")
    yard.drive(yard.wish(stable), runs(stable, 4))
    assert (yard.workload()["spec"], len(set(yard.pods().items()) & set(before.items()))) == (spec, 3)


def test_a_promotion_takes_every_node_and_leaves_the_users_own_strategy(many: Set) -> None:
    """Batch by batch until all are candidates; a way back from its middle takes them back; then the strategy is the user's again."""
    yard = many(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}})
    stable, spec = yard.stable(), yard.workload()["spec"]
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    full = yard.wish(stable, candidate, 4, full=True, pace=1)
    target = yard.target()
    until("half of them", lambda: _driven(target, full) and len(target.observe().running(candidate)) >= 2)
    yard.drive(yard.wish(stable, batch=4), runs(stable, 4))
    assert yard.workload()["spec"] == spec
    view = yard.drive(yard.wish(stable, candidate, 4, full=True, batch=2), runs(candidate, 4))
    assert (view.adopted, template_env(yard)["VERSION"]) == (candidate, "v2")
    pods = yard.pods()
    yard.drive(yard.wish(candidate), runs(candidate, 4))
    assert (yard.workload()["spec"]["updateStrategy"], yard.pods()) == (spec["updateStrategy"], pods)


def _driven(target: Any, wish: Any) -> bool:
    view = target.observe()
    if view.told != wish or view.pending:
        target.shift(wish, view.basis)
    return True


def test_a_configuration_goes_as_a_pair_and_comes_back_as_one(many: Set) -> None:
    """Candidates read a copy; at full exposure every pod is of the user's own template and reads the source; back restores both."""
    yard = many(config={"CONFIG_VERSION": "a"})
    stable, text = yard.stable(), yard.source()
    candidate = yard.candidate(stable, config=conf(CONFIG_VERSION="b"))
    view = yard.drive(yard.wish(stable, candidate, 2, batch=2), runs(candidate, 2))
    assert (yard.source(), view.source, view.source_changed) == (text, stable, "")
    assert {name for pod in view.running(candidate) for name in mounted(yard, pod.id)} != {"web-config"}
    full = yard.drive(yard.wish(stable, candidate, 4, full=True, batch=4), runs(candidate, 4))
    assert (yard.source(), full.adopted, full.source) == (conf(CONFIG_VERSION="b"), candidate, candidate)
    assert {name for pod in full.instances for name in mounted(yard, pod.id)} == {"web-config"}
    back = yard.drive(yard.wish(stable, batch=4), runs(stable, 4))
    assert (yard.source(), back.adopted, back.source) == (text, stable, stable)


def mounted(yard: Stage, pod: str) -> list[str]:
    found = yard.api.get(f"/api/v1/namespaces/{yard.namespace}/pods/{pod}")
    return [v["configMap"]["name"] for v in found["spec"]["volumes"] if "configMap" in v and v["name"] == "config"]


def test_candidates_that_nobody_drives_are_taken_back(many: Set) -> None:
    """The reaper finds the lease on the workload, and goes on until every pod is stable and the strategy the user's."""
    yard = many()
    stable, spec = yard.stable(), yard.workload()["spec"]
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    wish = yard.wish(stable, candidate, 2, batch=2)
    yard.drive(wish, runs(candidate, 2))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=120)
    assert [one.fence for one in reap(yard.kube, [yard.namespace], later)] == [wish.fence]

    def finished() -> bool:
        return not reap(yard.kube, [yard.namespace], later) and runs(stable, 4)(yard.target().observe())

    until("the reaper has nothing left to do", finished)
    assert (yard.workload()["spec"], yard.target().observe().retreated) == (spec, wish.fence)


def test_every_write_may_be_the_last_of_its_driver(many: Set) -> None:
    """A stage of two batches, a promotion and the way back come about although each driver dies after one single write."""
    yard = many()
    spec, stable = yard.workload()["spec"], yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    one_write_each(yard, yard.wish(stable, candidate, 2), runs(candidate, 2))
    assert "VERSION" not in template_env(yard)
    one_write_each(yard, yard.wish(stable, candidate, 4, full=True, batch=2), runs(candidate, 4))
    one_write_each(yard, yard.wish(stable, batch=4), runs(stable, 4))
    assert yard.workload()["spec"] == spec


@pytest.mark.parametrize(
    ("env", "image", "sees"),
    [
        ({"VERSION": "v2"}, "", "ready"),
        ({"NEVER_READY": "1"}, "", "started"),
        ({"CRASH_AT_START": "1"}, "", "exit"),
        ({"VERSION": "v2"}, "localhost/nothing-of-that-name:1", "waits"),
        ({"VERSION": "v2"}, "not a name", "refused"),
    ],
)
def test_on_a_real_node_a_candidate_is_seen_as_it_is_and_taken_back(stage: Set, env: dict[str, object], image: str, sees: str) -> None:
    """Good, never ready, crashing, without an image: the way back ends with the stable version ready, and the spec as it was."""
    yard = stage(1, kind=KIND)
    spec, stable = yard.workload()["spec"], yard.stable()
    candidate = yard.candidate(stable, env, image)
    wish, target = yard.wish(stable, candidate, 1), yard.target()

    def tick() -> TargetView | None:
        view = target.observe()
        if view.told != wish or view.pending:
            target.shift(wish, view.basis)
        (one,) = view.running(candidate) or (None,)
        if one is None:
            return None
        found = {"started": one.started is not None and not one.ready, "exit": one.exits > 0, "ready": one.ready}
        return view if (found | {"waits": bool(one.waiting), "refused": bool(one.refused)})[sees] else None

    until("what became of it", tick)
    yard.drive(yard.wish(stable), runs(stable, 1))
    assert yard.workload()["spec"] == spec
