"""Deployments of all sorts: swapped instances, autoscalers, pauses, strategies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployguard import clock
from deployguard.errors import RefusedError
from deployguard.targets.kubernetes.reap import reap
from tests.cluster.api import until
from tests.cluster.fixtures import Cluster
from tests.contracts.kube.stage import Stage, runs

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]


def test_swapped_instances_make_room_and_come_back(stage: Set) -> None:
    """With `capacity: swap` the workload gives up as many instances as there are candidates, and has them back on every way out."""
    yard = stage(2, options={"capacity": "swap"})
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    view = yard.drive(yard.wish(stable, candidate, 1), lambda view: runs(candidate, 1)(view) and runs(stable, 1)(view))
    assert (view.wanted, view.surge, yard.workload()["spec"]["replicas"]) == (2, False, 1)
    yard.drive(yard.wish(stable), runs(stable, 2))
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.drive(yard.wish(stable, candidate, 2, full=True, pace=1), runs(candidate, 2))
    assert yard.workload()["spec"]["replicas"] == 2
    yard.drive(yard.wish(stable, by="web/r2", pace=1), runs(stable, 2))
    yard.drive(yard.wish(stable, candidate, 1, by="web/r3", lease=0.001), runs(candidate, 1))
    until("the time has passed", lambda: reap(yard.kube, [yard.namespace], clock.now()))
    assert yard.workload()["spec"]["replicas"] == 2


def test_nothing_is_swapped_where_an_autoscaler_owns_the_number(stage: Set, cluster: Cluster) -> None:
    """A swap is refused with the autoscaler's name and changes nothing; a surge beside it works, whatever it scales to."""
    yard = stage(1)
    cluster.kubectl("-n", yard.namespace, "autoscale", "deployment/web", "--min=1", "--max=4", "--cpu=80%")
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    target = yard.target()
    assert target.live().hpa == "web"
    yard.options["capacity"] = "swap"
    with pytest.raises(RefusedError, match="HorizontalPodAutoscaler web"):
        yard.tell(yard.wish(stable, candidate, 1))
    assert yard.canaries() == []
    del yard.options["capacity"]
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    cluster.kubectl("-n", yard.namespace, "scale", "deployment/web", "--replicas=2")
    view = yard.see("that it was scaled", runs(stable, 2))
    assert (view.wanted, view.pending, view.superseded) == (2, False, "")


def test_a_paused_deployment_is_promoted_and_paused_again(stage: Set, cluster: Cluster) -> None:
    """The canary needs no un-pausing; a promotion un-pauses the workload, and it ends paused as its owner had it."""
    yard = stage(1)
    cluster.kubectl("-n", yard.namespace, "rollout", "pause", "deployment/web")
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    assert any("paused" in text for text in yard.target().live().warnings)
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    assert yard.workload()["spec"]["paused"]
    yard.drive(yard.wish(stable, candidate, 1, full=True, pace=1), runs(candidate, 1))
    yard.drive(yard.wish(candidate), runs(candidate, 1))
    assert yard.workload()["spec"]["paused"]
    yard.drive(yard.wish(stable), runs(stable, 1))
    assert yard.workload()["spec"]["paused"]


@pytest.mark.parametrize(
    "strategy",
    [
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}},
        {"type": "Recreate"},
    ],
    ids=["no-unavailable", "no-surge", "recreate"],
)
def test_every_strategy_is_promoted_and_goes_back(stage: Set, strategy: dict[str, object]) -> None:
    """A promotion and the way back come to their end; what the strategy costs is said beforehand."""
    yard = stage(2, strategy=strategy)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    warned = " ".join(yard.target().live().warnings)
    assert ("Recreate" in warned, "maxUnavailable is 0" in warned) == (
        strategy["type"] == "Recreate",
        "maxUnavailable': 0" in str(strategy),
    )
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.drive(yard.wish(stable, candidate, 2, full=True, pace=1), runs(candidate, 2))
    yard.drive(yard.wish(stable), runs(stable, 2))
    assert yard.workload()["spec"]["strategy"] == strategy


def test_a_return_to_an_older_version_is_paced(stage: Set) -> None:
    """A rollout that only names a stable version makes the workload run it, at the pace that is asked for, without a canary."""
    yard = stage(2)
    first = yard.stable()
    second = yard.candidate(first, {"VERSION": "v2"})
    yard.drive(yard.wish(first, second, 2, full=True, pace=1), runs(second, 2))
    yard.drive(yard.wish(second), runs(second, 2))
    back = yard.wish(first, by="web/r2", pace=2)
    yard.tell(back)
    assert yard.workload()["spec"]["minReadySeconds"] == 2
    yard.drive(back, runs(first, 2))
    assert "minReadySeconds" not in yard.workload()["spec"]


def test_a_rung_that_names_an_older_version_is_followed(stage: Set) -> None:
    """Where the version that ran before does not serve either, the next word of the same rollout may name an older one."""
    yard = stage(1)
    stable = yard.stable()
    older, candidate = yard.candidate(stable, {"VERSION": "v0"}), yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    yard.drive(yard.wish(stable), runs(stable, 1))
    view = yard.drive(yard.wish(older), runs(older, 1))
    assert (view.adopted, view.superseded, yard.canaries()) == (older, "", [])
