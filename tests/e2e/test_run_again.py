"""One rollout after another, lost stores, writes that fail, and two guards on one fleet."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.e2e.world import ERRORS, Going, World, eventually, words

pytestmark = pytest.mark.e2e
LONG = [{"instances": 1, "soak": "10m"}, {"exposure": "100%", "soak": "2s"}]
SHORT = [{"instances": 1, "soak": "3s", "limit": "2m"}, {"exposure": "100%", "soak": "2s", "limit": "2m"}]


@contextlib.contextmanager
def unreachable(world: World) -> Iterator[None]:
    """The fleet cannot be looked at or written to: its supervisor stands still, while the instances serve on."""
    supervisor = world.supervisor()
    supervisor.suspend()
    try:
        yield
    finally:
        supervisor.resume()


def on_one(world: World, guard_name: str = "shop", **over: Any) -> Going:
    """A good release on one instance with a long soak before it."""
    going = world.begin(world.guard(ERRORS, stages=LONG, name=guard_name, **over), release=world.release("good"))
    going.says("analyzing stage 1/2")
    return going


@pytest.mark.parametrize("lost", [pytest.param(False, id="kept", marks=pytest.mark.full), pytest.param(True, id="lost")])
def test_one_after_another(world: World, lost: bool) -> None:
    """Good, bad and good again on one fleet; also when the guards' store was lost in between, and the fence goes on growing."""
    world.instances = 4
    world.up()
    guard = world.guard(ERRORS, stages=SHORT)
    outcomes, fences = [], []
    with world.load(rate=60):
        for flaws in ({}, {"errors": 0.3}, {}):
            release = world.release("next", **flaws)
            done = world.run(guard, release=release)
            outcomes.append((done.code, done.data["outcome"]))
            fences.append(world.view().fence)
            assert world.on_stable(), done.data["reason"]
            assert world.ledger_is_whole()
            if lost:
                shutil.rmtree(world.state / "guards")
            else:
                assert len(world.cli("history", "-o", "json").data) == len(outcomes)
    assert outcomes == [(0, "promoted"), (10, "rolled_back"), (0, "promoted")]
    assert fences == sorted(set(fences))
    assert {i.loaded.release for i in world.view().instances if i.loaded} == {done.data["candidate"]["release"]}


def test_a_store_that_was_lost_under_a_canary(world: World) -> None:
    """With the guard killed and its store lost, the lease takes the canary back, and the next rollout goes its way."""
    world.instances = 4
    world.up()
    going = on_one(world, lease="2s")
    going.process.kill()
    going.process.wait()
    shutil.rmtree(world.state / "guards")
    eventually(lambda: world.view().retreated is not None and world.on_stable())
    with world.load(rate=60):
        done = world.run(world.guard(ERRORS, stages=SHORT), release=world.release("next"))
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]


@pytest.mark.parametrize("lease", [pytest.param("2s", marks=pytest.mark.full), "10m"])
def test_writes_that_fail_past_the_deadline(world: World, lease: str) -> None:
    """The fleet cannot be reached for longer than `rollback.within`: the way back is overdue, goes on, and ends with nothing exposed."""
    world.instances = 4
    world.up()
    going = on_one(world, lease=lease, rollback={"within": "15s", "relapse_watch": "2s"})
    with unreachable(world):
        going.signal(signal.SIGTERM)
        going.says("rolling_back")
        eventually(lambda: world.status()["overdue"])
    done = going.end()
    assert done.code == 130, done.err
    assert done.data["restored"] is not None
    assert world.on_stable()
    assert world.status()["exposure"]["instances"] == 0
    assert "not complete within 15s" in world.cli("ledger", "export", "shop").out


def test_a_way_back_that_is_left_to_the_next(world: World) -> None:
    """A run that cannot finish the way back leaves with 11; `run --resume` goes on with it and ends it."""
    world.instances = 4
    world.up()
    going = on_one(world, lease="10m", rollback={"within": "4s", "relapse_watch": "2s"})
    with unreachable(world):
        going.signal(signal.SIGTERM)
        done = going.end()
    assert (done.code, done.data["exit_code"]) == (11, 11)
    assert "run --resume" in world.why()
    assert not world.on_stable()
    assert world.status()["needs_driver"]
    again = world.cli("run", "--resume", "--stay", "0s", "-o", "json")
    assert (again.code, again.data["phase"]) == (130, "verifying"), again.err
    assert world.on_stable()


def test_a_store_that_cannot_be_written(world: World) -> None:
    """While the store cannot be written nothing moves, which is said; the lease takes the canary back, and nothing is exposed again."""
    world.instances = 4
    world.up()
    going = on_one(world, lease="3s")
    place = world.state / "guards"
    aside = place.with_name("aside")
    place.rename(aside)
    place.write_text("in the way")
    eventually(lambda: world.view().retreated is not None and world.on_stable())
    place.unlink()
    aside.rename(place)
    done = going.end()
    assert done.code == 12, done.err
    assert "trouble: " in done.err
    assert world.on_stable()
    assert world.status()["quarantine"] == []
    assert world.ledger_is_whole()


def test_the_same_guard_twice(world: World) -> None:
    """A second run of a guard that is driven says who drives it and leaves with 1; with `--wait` it follows."""
    world.instances = 4
    world.up()
    first = on_one(world)
    late = world.run(world.guard(ERRORS, stages=SHORT), release=world.release("second"))
    assert late.code == 1
    assert f"/{first.process.pid}/" in late.err
    assert "--wait" in late.err
    with world.load(rate=60):
        waiting = world.begin(world.guard(ERRORS, stages=SHORT), "--wait", release=world.release("third"))
        waiting.says("waiting: ")
        assert world.view().told is not None
        first.signal(signal.SIGINT)
        assert first.end().code == 130
        done = waiting.end()
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.err


def test_another_guard_on_the_same_fleet(world: World) -> None:
    """Another guard says which one has a candidate on the fleet and leaves with 1; with `--wait` it follows."""
    world.instances = 4
    world.up()
    first = on_one(world, "shop")
    late = world.run(world.guard(ERRORS, stages=SHORT, name="other"), release=world.release("second"))
    assert late.code == 1
    assert "shop/r-" in late.err
    with world.load(rate=60):
        waiting = world.begin(world.guard(ERRORS, stages=SHORT, name="other"), "--wait", release=world.release("third"))
        waiting.says("waiting: ")
        first.signal(signal.SIGINT)
        assert first.end().code == 130
        done = waiting.end()
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.err


def test_a_frozen_guard_wakes_after_its_lease(world: World) -> None:
    """A guard that stood still for longer than the lease finds its canary taken back, exposes nothing again, and ends with 12."""
    world.instances = 4
    world.up()
    going = on_one(world, lease="2s")
    frozen = psutil.Process(going.process.pid)
    frozen.suspend()
    eventually(lambda: world.view().retreated is not None and world.on_stable())
    before = world.uids()
    frozen.resume()
    done = going.end()
    assert (done.code, done.data["outcome"], done.data["quarantined"]) == (12, "withdrawn", [])
    assert not world.changed(before)
    assert world.on_stable()


@pytest.mark.full
def test_a_frozen_guard_wakes_after_another_has_promoted(world: World) -> None:
    """A guard that stood still while its lease ran out and another guard promoted changes nothing when it wakes."""
    world.instances = 4
    world.up()
    first = on_one(world, "shop", lease="2s")
    frozen = psutil.Process(first.process.pid)
    frozen.suspend()
    eventually(lambda: world.view().retreated is not None and world.on_stable())
    with world.load(rate=60):
        done = world.run(world.guard(ERRORS, stages=SHORT, name="other"), release=world.release("second"))
        assert (done.code, done.data["outcome"]) == (0, "promoted"), done.err
        before = world.view()
        frozen.resume()
        awake = first.end()
        after = world.view()
    assert awake.code == 1
    assert "another guard drives this target" in awake.err
    assert (after.fence, after.told, world.changed({i.id: i.uid for i in before.instances})) == (before.fence, before.told, set())
    assert {i.loaded for i in after.instances} == {i.loaded for i in before.instances}


@pytest.mark.full
def test_a_frozen_guard_wakes_after_it_was_taken_over(world: World) -> None:
    """When another process has taken over the same guard in the meantime, the one that wakes says so and leaves."""
    world.instances = 4
    world.up()
    first = on_one(world, lease="10m")
    frozen = psutil.Process(first.process.pid)
    frozen.suspend()
    second = world.start("run", "--resume", "--wait", "--stay", "0s", "-o", "json")
    second.says("waiting: ")
    second.says("stage 1/2")
    before = world.view()
    frozen.resume()
    awake = first.end()
    assert awake.code == 1
    assert f"/{second.process.pid}/" in awake.err
    after = world.view()
    assert (after.told, world.changed({i.id: i.uid for i in before.instances})) == (before.told, set())
    second.signal(signal.SIGINT)
    done = second.end()
    assert done.code == 130
    assert words(done.data)[-1] == "verifying"
    assert world.on_stable()
