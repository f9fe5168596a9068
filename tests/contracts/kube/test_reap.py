"""Canaries that nobody drives any more are taken back, whatever became of their workload."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployguard import clock
from deployguard.errors import StaleView
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.reap import reap
from tests.cluster.api import until
from tests.cluster.fixtures import Cluster
from tests.contracts.kube.stage import Crash, Stage, Watched, runs

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]


def test_a_canary_that_nobody_drives_is_taken_back(stage: Set) -> None:
    """When its time has passed the reaper deletes it and marks the fence; under that fence nothing is exposed again."""
    yard = stage(1)
    before, stable = yard.pods(), yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    told = yard.wish(stable, candidate, 1)
    yard.drive(told, runs(candidate, 1))
    assert reap(yard.kube, [yard.namespace], clock.now()) == []
    yard.drive(told := yard.wish(stable, candidate, 1, lease=0.001), runs(candidate, 1))
    (taken,) = until("the time has passed", lambda: reap(yard.kube, [yard.namespace], clock.now()))
    assert (taken.workload.name, taken.fence, taken.replicas) == ("web", told.fence, 1)
    view = yard.see("the candidate is gone", lambda view: not view.running(candidate))
    assert (view.retreated, view.pending, yard.canaries(), yard.pods()) == (told.fence, False, [], before)
    with pytest.raises(StaleView):
        yard.tell(told)
    with pytest.raises(StaleView):
        yard.target().renew(told.fence, 60.0)
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))


def test_a_create_that_lands_late_exposes_nothing(stage: Set) -> None:
    """A canary that was made and never exposed is collected by the reaper when its time has passed."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable), runs(stable, 1))
    watched = Watched(yard.kube, left=1)
    with pytest.raises(Crash):
        yard.tell(yard.wish(stable, candidate, 1, lease=0.001), yard.target(watched))
    assert [c["spec"]["replicas"] for c in yard.canaries()] == [0]
    (taken,) = until("the time has passed", lambda: reap(yard.kube, [yard.namespace], clock.now()))
    assert taken.replicas == 0
    assert (yard.canaries(), marks.number(yard.workload(), marks.RETREATED)) == ([], None)


def test_a_promotion_that_nobody_drives_goes_on_without_its_canary(stage: Set) -> None:
    """Above half a silent guard must not turn a fleet: the rolling update ends by itself, and only the canary is taken away."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1, lease=0.001), runs(candidate, 1))
    yard.tell(yard.wish(stable, candidate, 1, full=True, pace=2))
    (taken,) = until("the time has passed", lambda: reap(yard.kube, [yard.namespace], clock.now()))
    assert taken.workload.name == "web"
    view = yard.see("the promotion is over", runs(candidate, 1))
    assert (view.retreated, yard.canaries()) == (None, [])


def test_a_canary_whose_workload_is_gone_is_taken_back(stage: Set, cluster: Cluster) -> None:
    """Left behind by `--cascade=orphan`, it serves for ever with no owner: its time need not pass."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    cluster.kubectl("-n", yard.namespace, "delete", "deployment/web", "--cascade=orphan")
    (taken,) = reap(yard.kube, [yard.namespace], clock.now())
    assert (taken.workload.name, taken.why, yard.canaries()) == ("web", "its workload is gone", [])
