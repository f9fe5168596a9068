"""`kill -9` of the guard: resumed within the lease nothing has happened, later the candidate is back, and alone it stays back."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Tell
from tests.e2e.killing import (
    BRISK,
    CHECK,
    INSTANCES,
    RATE,
    keeps_its_word,
    phase,
    recorded,
    rollout,
    running,
    saved,
    stage,
    through,
    trail,
    verified,
)
from tests.e2e.world import LOGIN, World, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

SHORT = {**BRISK, "lease": "2s"}
SLACK = 15.0
"""Seconds that a busy machine may take longer than it should before a promise counts as broken."""


def kill_and_resume(world: World, seed: int, wanted: int, *, bad: bool, tell: Tell) -> None:
    """Kill guards of one kind of rollout, two for each rollout, until `wanted` were killed; each must end as the quiet one."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=BRISK)
    dice = random.Random(seed)

    def one(instants: list[float]) -> tuple[int, list[tuple[str, str]], list[str], float]:
        release = world.puppet() if bad else world.release()
        broken = False

        def always() -> None:
            nonlocal broken
            if bad and not broken and stage(world) == 2:
                world.pull(release, errors=0.7)
                broken = True

        began = time.monotonic()
        survived = through(world, guard, release, instants, always)
        found = survived.rollout
        assert recorded(world, found) == trail(found)
        assert [q.digest for q in saved(world).quarantine if q.rollout == found.id] == ([found.candidate.release] if bad else [])
        keeps_its_word(world)
        verified(world)
        view = world.view()
        assert running(view, found.stable if bad else found.candidate) == [i.id for i in view.instances]
        assert len(running(view, found.candidate if bad else found.stable)) == 0
        return survived.done.code, trail(found), survived.kills, time.monotonic() - began

    with world.load(RATE, journeys=False):
        code, quiet, _, seconds = one([])
        assert code == (10 if bad else 0)
        killed: list[str] = []
        rollouts = 0
        while len(killed) < wanted:
            first = dice.uniform(0, seconds)
            instants = [first, dice.uniform(0, seconds - first)][: wanted - len(killed)]
            print(f"seed {seed}: killing at {', '.join(f'{instant:.2f} s' for instant in instants)}")
            again, told, kills, _ = one(instants)
            assert (again, told) == (code, quiet)
            killed += kills
            rollouts += 1
    where = ", ".join(f"{word} {killed.count(word)}" for word in sorted(set(killed)))
    tell(f"seed {seed}: {len(killed)} guards killed in {rollouts} rollouts of {seconds:.1f} s ({where})")


def test_a_killed_guard_of_a_good_release(world: World, tell: Tell) -> None:
    """Guards killed anywhere in the rollout of a good release and resumed within the lease leave the outcome and the trail as they were."""
    kill_and_resume(world, 20190702, 5, bad=False, tell=tell)


def test_a_killed_guard_of_a_bad_release(world: World, tell: Tell) -> None:
    """Guards killed anywhere in the rollout of a bad release and resumed within the lease roll it back as a quiet one does."""
    kill_and_resume(world, 20220711, 5, bad=True, tell=tell)


@pytest.mark.full
@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills(world: World, seed: int, bad: bool, tell: Tell) -> None:
    """The same with a hundred kills in all."""
    kill_and_resume(world, seed, 25, bad=bad, tell=tell)


def exposed(world: World, guard: Path) -> tuple[float, Path]:
    """A guard has been killed while its first stage was watched; the instant of the kill, and the release."""
    release = world.release()
    going = world.begin(guard, release=release)
    eventually(lambda: stage(world) == 1)
    going.process.kill()
    going.process.wait()
    return time.monotonic(), release


def test_later_than_the_lease(world: World) -> None:
    """Resumed after its lease, a rollout ends taken back without a verdict; resumed once more, it begins again at stage 1."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=SHORT)
    with world.load(RATE, journeys=False):
        exposed(world, guard)
        first = rollout(world)
        eventually(lambda: world.view().retreated == first.seq)
        done = world.cli("run", "--resume", "--stay", "0s", "-o", "json")
        assert done.code == 12, done.err
        assert (done.data["outcome"], done.data["quarantined"]) == ("withdrawn", [])
        assert "lease" in done.data["reason"]
        assert rollout(world).id == first.id
        assert saved(world).quarantine == ()
        verified(world)
        assert world.on_stable()

        again = world.cli("run", "--resume", "--stay", "0s", "-o", "json")
        assert again.code == 0, again.err
        second = rollout(world)
        assert second.id != first.id
        assert second.candidate == first.candidate
        assert trail(second)[0] == ("advancing", f"stage 1/3: 1 of {INSTANCES} instances")
        verified(world)
        keeps_its_word(world)


def test_nobody_resumes(world: World, tell: Tell) -> None:
    """Without a guard the candidate is back on stable when the lease is over, its prober has ended, and nothing exposes it again."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, LOGIN, policy={**SHORT, "lease": "4s"})
    untouched = world.uids()
    with world.load(RATE, journeys=False):
        killed, _ = exposed(world, guard)
        candidate = rollout(world).candidate
        canary = running(world.view(), candidate)
        assert len(canary) == 1
        eventually(lambda: not running(world.view(), candidate))
        gone = time.monotonic() - killed
        eventually(world.on_stable)
        back = time.monotonic() - killed
        tell(f"lease 4 s: off the candidate {gone:.2f} s after the kill, all ready on stable after {back:.2f} s")
        assert back <= 4 + 1 + SLACK
        assert world.changed(untouched) == set(canary), "a stable instance was restarted"
        eventually(lambda: not [p for p in world.processes() if "deployguard.signals.prober" in " ".join(p.cmdline())])

        # Looking at it changes nothing; neither does time, nor a supervisor that is started again.
        served = world.view().served.get(candidate.digest)
        for command in (["status", "-o", "json"], ["why"], ["history"], ["local", "status"]):
            assert "Traceback" not in world.cli(*command).err
        quiet = time.monotonic() + 8
        while time.monotonic() < quiet:
            assert not running(world.view(), candidate)
            time.sleep(0.1)
        supervisor = world.supervisor()
        supervisor.kill()
        supervisor.wait(30)
        assert world.cli("local", "up").code == 0
        assert not running(world.view(), candidate)
        assert world.view().served.get(candidate.digest) == served, "the candidate has served somebody since"
        assert phase(world) == "analyzing", "somebody has driven it"
