"""A driver may die between any two writes: whoever comes next goes on from what is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from deployguard.errors import StaleView
from deployguard.model.target import Desired, TargetView
from deployguard.targets.kubernetes import marks
from tests.cluster.api import until
from tests.contracts.kube.stage import Crash, Stage, Watched, conf, runs

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]


def one_write_each(yard: Stage, desired: Desired, settled: Callable[[TargetView], bool]) -> list[str]:
    """Drivers of one write each bring it about; what they wrote, in order."""
    written: list[str] = []

    def live() -> bool:
        watched = Watched(yard.kube, left=1)
        target = yard.target(watched)
        view = target.observe()
        if view.told == desired and not view.pending:
            return settled(view)
        with contextlib.suppress(Crash, StaleView):
            target.shift(desired, view.basis)
        written.extend(watched.writes)
        return False

    until(f"what was told: {desired}", live)
    return written


def test_every_write_may_be_the_last_of_its_driver(stage: Set) -> None:
    """Exposure, promotion and the way back come about although each driver dies after one single write."""
    yard = stage(1, config={"CONFIG_VERSION": "a"}, minReadySeconds=1)
    stable, text = yard.stable(), yard.source()
    candidate = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    canary = f"deployments/{marks.canary_name('web', candidate)}"
    exposed = one_write_each(yard, yard.wish(stable, candidate, 1), runs(candidate, 1))
    assert exposed == ["create deployments/", "patch deployments/web", f"patch {canary}"]
    promoted = one_write_each(yard, yard.wish(stable, candidate, 1, full=True, pace=2), runs(candidate, 1))
    assert promoted[:3] == ["patch deployments/web", "patch configmaps/web-config", "patch deployments/web"]
    assert f"delete {canary}" in promoted
    assert (yard.source(), yard.canaries()) == (conf(CONFIG_VERSION="b"), [])
    one_write_each(yard, yard.wish(stable), runs(stable, 1))
    assert (yard.source(), yard.canaries(), yard.workload()["spec"]["minReadySeconds"]) == (text, [], 1)
    for obj in (yard.workload(), yard.api.get(f"/api/v1/namespaces/{yard.namespace}/configmaps/web-config")):
        ours = [e["fieldsV1"] for e in obj["metadata"]["managedFields"] if e["manager"] == "deployguard"]
        assert all(set(fields) == {"f:metadata"} for fields in ours)


def test_a_word_that_was_half_followed_is_taken_back_whole(stage: Set) -> None:
    """Whatever write of an exposure or a promotion was the last, the way back ends with stable pods, template and source."""
    yard = stage(1, config={"CONFIG_VERSION": "a"})
    before, stable, text = yard.pods(), yard.stable(), yard.source()
    candidate = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    template = yard.workload()["spec"]["template"]

    def dies(desired: Desired, after: int) -> None:
        with contextlib.suppress(Crash):
            yard.tell(desired, yard.target(Watched(yard.kube, left=after)))

    for after in (1, 2, 3):
        dies(yard.wish(stable, candidate, 1), after)
        yard.drive(yard.wish(stable), runs(stable, 1))
        assert (yard.canaries(), yard.pods()) == ([], before)
    for after in (1, 2, 3):
        yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
        dies(yard.wish(stable, candidate, 1, full=True, pace=5), after)
        yard.drive(yard.wish(stable), runs(stable, 1))
        assert (yard.canaries(), yard.source(), yard.workload()["spec"]["template"]) == ([], text, template)


def test_a_slow_driver_exposes_nothing_after_the_way_back(stage: Set) -> None:
    """A driver that stops before the fence is overtaken: what it had made is taken away, and what it writes later is refused."""
    yard = stage(1)
    stable = yard.stable()
    candidate = yard.candidate(stable, {"VERSION": "v2"})
    slow = yard.target(Watched(yard.kube, left=1))
    word = yard.wish(stable, candidate, 1)
    with pytest.raises(Crash):
        yard.tell(word, slow)
    assert [c["spec"]["replicas"] for c in yard.canaries()] == [0]
    stale = yard.target()
    basis = stale.observe().basis
    yard.drive(yard.wish(stable), runs(stable, 1))
    assert yard.canaries() == []
    with pytest.raises(StaleView):
        stale.shift(word, basis)
    with pytest.raises(StaleView):
        stale.shift(word, stale.observe().basis)
    assert yard.canaries() == []


@pytest.mark.parametrize(("full", "before"), [(False, 0), (False, 1), (False, 2), (True, 0), (True, 1), (True, 2)])
def test_a_driver_that_slept_before_a_write_finds_every_later_one_refused(stage: Set, full: bool, before: int) -> None:
    """While it sleeps before one of its writes, another driver takes everything back: when it wakes, nothing of it has an effect."""
    yard = stage(1, config={"CONFIG_VERSION": "a"})
    stable, text = yard.stable(), yard.source()
    candidate = yard.candidate(stable, {"VERSION": "v2"}, config=conf(CONFIG_VERSION="b"))
    template = yard.workload()["spec"]["template"]
    if full:
        yard.drive(yard.wish(stable, candidate, 1), runs(candidate, 1))
    word = yard.wish(stable, candidate, 1, full=full, pace=5 if full else 0)
    back = yard.wish(stable)
    sleepy = Watched(yard.kube, nap=(before, lambda: yard.drive(back, runs(stable, 1))))
    with pytest.raises(StaleView):
        yard.tell(word, yard.target(sleepy))
    assert len(sleepy.writes) == (before + 1 if full else max(before + 1, 2)), "only the creation, which has no effect, is let through"
    assert (yard.source(), yard.workload()["spec"]["template"]) == (text, template)
    assert [c["spec"]["replicas"] for c in yard.canaries() if c["spec"]["replicas"]] == []
    assert yard.target().observe().told == back
