"""`kill -9` of the fleet's supervisor: started again from its disk it serves stable, and nothing of the dead one is left."""

from __future__ import annotations

import contextlib
import signal
import urllib.request

import psutil
import pytest

from deployguard.local.processes import MARK
from deployguard.model.version import Version
from tests.e2e.killing import BRISK, CHECK, INSTANCES, RATE, keeps_its_word, phase, rollout, running, saved, stage, verified
from tests.e2e.world import World, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SLOW = {
    **BRISK,
    "stages": [
        {"instances": 1, "soak": "2s", "limit": "2m"},
        {"exposure": "80%", "soak": "6s", "limit": "2m"},
        {"exposure": "100%", "soak": "2s"},
    ],
    "lease": "3s",
}


def fleet_processes(world: World) -> list[psutil.Process]:
    """What the supervisor has started: instances and balancer."""
    found = []
    for process in world.processes():
        with contextlib.suppress(psutil.Error):
            if MARK in process.environ():
                found.append(process)
    return found


def kill_supervisor(world: World) -> list[psutil.Process]:
    """The supervisor has been killed; what it leaves running."""
    supervisor = world.supervisor()
    supervisor.kill()
    supervisor.wait(60)
    return fleet_processes(world)


def up_again(world: World, leftovers: list[psutil.Process]) -> None:
    """`local up` without a file has started the fleet, serves users, and has ended every leftover."""
    done = world.cli("local", "up")
    assert done.code == 0, done.err
    assert f"{INSTANCES} of {INSTANCES} instances are ready" in done.out
    assert not [p for p in leftovers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    with urllib.request.urlopen(f"{world.url}/catalogue", timeout=30) as answer:
        assert answer.status == 200


def serves(world: World, version: Version, count: int = INSTANCES) -> bool:
    """Whether `count` instances run this version, and all are ready on what they were told to run."""
    view = world.view()
    good = [i for i in view.instances if i.ready and i.loaded == i.assigned]
    return len(good) == len(view.instances) and sum(i.loaded == version for i in good) == count


def test_at_rest(world: World) -> None:
    """After a promotion the promoted version is what the disk brings back, though the file of the fleet names an older one."""
    world.instances = INSTANCES
    world.up()
    first = world.view().adopted
    guard = world.guard(CHECK, policy=BRISK)
    with world.load(RATE, journeys=False):
        done = world.run(guard, release=world.release())
    assert done.code == 0, done.err
    candidate = rollout(world).candidate
    assert candidate != first
    left = kill_supervisor(world)
    assert left, "the instances should have outlived their supervisor"
    assert "error: " in world.cli("local", "status").err
    up_again(world, left)
    assert serves(world, candidate)
    keeps_its_word(world)
    assert "STABLE" in world.status()["state"]


def test_with_a_canary_and_no_guard(world: World) -> None:
    """With guard and supervisor killed, the start from disk takes the canary back; the resume that follows ends without a verdict."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=SLOW)
    with world.load(RATE, journeys=False):
        going = world.begin(guard, release=world.release())
        eventually(lambda: stage(world) == 1)
        left = kill_supervisor(world)
        going.signal(signal.SIGKILL)
        going.process.wait()
        up_again(world, left)
        found = rollout(world)
        assert serves(world, found.stable)
        assert not running(world.view(), found.candidate)
        done = world.cli("run", "--resume", "--stay", "0s", "-o", "json")
    assert done.code == 12, done.err
    assert saved(world).quarantine == ()
    verified(world)


def test_with_a_canary_and_a_living_guard(world: World) -> None:
    """The guard outlives the supervisor: when the fleet is back on stable it ends taken back without a verdict, exposing nothing again."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=SLOW)
    with world.load(RATE, journeys=False):
        going = world.begin(guard, release=world.release())
        eventually(lambda: stage(world) == 1)
        up_again(world, kill_supervisor(world))
        done = going.end()
    assert done.code == 12, done.err
    assert "lease" in done.data["reason"]
    found = rollout(world)
    assert found.exposed_most == 1
    assert serves(world, found.stable)
    assert saved(world).quarantine == ()
    assert "Traceback" not in done.err
    verified(world)


def test_above_half_with_a_living_guard(world: World) -> None:
    """Above half of the instances nothing is flipped: each comes back with what it ran, and the guard goes on to the promotion."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=SLOW)
    with world.load(RATE, journeys=False):
        going = world.begin(guard, release=world.release())
        eventually(lambda: stage(world) == 2)
        left = kill_supervisor(world)
        found = rollout(world)
        up_again(world, left)
        assert serves(world, found.candidate, 4) or phase(world) in ("advancing", "watching") or stage(world) == 3
        done = going.end()
    assert done.code == 0, done.err
    assert rollout(world).id == found.id
    assert serves(world, found.candidate)
    keeps_its_word(world)
    verified(world)


def test_above_half_with_no_guard(world: World) -> None:
    """Above half of the instances and with nobody to decide, the start from disk changes no version; `rollback` takes it back."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=SLOW)
    with world.load(RATE, journeys=False):
        going = world.begin(guard, release=world.release())
        eventually(lambda: stage(world) == 2)
        going.signal(signal.SIGKILL)
        going.process.wait()
        left = kill_supervisor(world)
        found = rollout(world)
        up_again(world, left)
        assert serves(world, found.candidate, 4)
        assert serves(world, found.stable, 1)
        done = world.cli("rollback", "--reason", "the machine was lost")
    assert done.code in (0, 12), done.err
    assert serves(world, found.stable)
    verified(world)
