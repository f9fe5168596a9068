"""A disk that is full or may not be written: a clear error, nothing lost, and nothing done that no saved state says."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Tell
from tests.e2e.killing import BRISK, CHECK, INSTANCES, RATE, keeps_its_word, phase, rollout, running, saved, stage, verified
from tests.e2e.test_bad_input import snapshot
from tests.e2e.world import Done, World, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SHORT = {**BRISK, "stages": [{"instances": 1, "soak": "4s", "limit": "2m"}, {"exposure": "100%", "soak": "2s"}], "lease": "3s"}


class Disk:
    """A small file system of its own below a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def fill(self) -> None:
        """Not one byte more fits."""
        with (self.place / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"x" * size):
                        pass

    def free(self) -> None:
        """There is room again."""
        (self.place / "filler").unlink()

    def lock(self) -> None:
        """Nothing on it may be written any more, by whoever opens it by its name."""
        subprocess.run(["mount", "--bind", str(self.place), str(self.place)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(self.place)], check=True)

    def unlock(self) -> None:
        """It may be written again."""
        subprocess.run(["umount", "-l", str(self.place)], check=True)

    def spoil(self, how: str) -> None:
        """It is full, or read-only."""
        self.fill() if how == "full" else self.lock()

    def mend(self, how: str) -> None:
        """It is as it was."""
        self.free() if how == "full" else self.unlock()


def mounts(place: Path) -> int:
    """How often something is mounted there."""
    return sum(line.split()[1] == str(place) for line in Path("/proc/self/mounts").read_text().splitlines())


@pytest.fixture
def disk(world: World) -> Iterator[Disk]:
    """The state directory lies on a small disk; it is gone afterwards. Skips where nothing can be mounted."""
    place = world.state
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    place.mkdir(mode=0o700)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "deployguard-test", str(place)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield Disk(place)
    finally:
        while mounts(place) > 1:
            subprocess.run(["umount", "-l", str(place)], check=True)
        (place / "filler").unlink(missing_ok=True)
        if (place / "fleets" / "shop").exists():
            world.cli("local", "down")
        subprocess.run(["umount", "-l", str(place)], check=True)


def told(done: Done, *words: str) -> None:
    """One clear error of the world, with what was attempted."""
    assert done.code == 1, done.out + done.err
    assert "error: " in done.err
    assert "Traceback" not in done.err
    assert any(word in done.err for word in words), done.err


def quiet(world: World, *arguments: str | Path) -> Done:
    """The command as users run it: an unexpected error would be a message, not a traceback."""
    debug = world.env.pop("DEPLOYGUARD_DEBUG", None)
    try:
        return world.cli(*arguments)
    finally:
        if debug:
            world.env["DEPLOYGUARD_DEBUG"] = debug


def _arguments(guard: Path, release: Path) -> tuple[str | Path, ...]:
    return ("run", "-f", guard, "--release", release, "--stay", "0s", "-o", "json")


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_before_the_start(world: World, disk: Disk, how: str) -> None:
    """Neither a fleet nor a rollout is begun on a disk that cannot be written: exit 1, nothing changed, and afterwards all goes well."""
    world.instances = 2
    world.up()
    guard, release = world.guard(CHECK, policy={**SHORT, "stages": [{"exposure": "100%", "soak": "1s"}]}), world.release()
    disk.spoil(how)
    before = snapshot(world.state)
    told(quiet(world, *_arguments(guard, release)), "No space left", "Read-only")
    assert snapshot(world.state) == before
    assert world.on_stable()
    disk.mend(how)
    with world.load(RATE, journeys=False):
        done = world.run(guard, release=release)
    assert done.code == 0, done.err
    verified(world)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_no_fleet_on_such_a_disk(world: World, disk: Disk, how: str) -> None:
    """`local up` on a disk that cannot be written says so and starts nothing."""
    disk.spoil(how)
    world.instances = 1
    with pytest.raises(AssertionError, match="error: ") as told_so:
        world.up()
    assert "Traceback" not in str(told_so.value)
    assert "No space left" in str(told_so.value) or "Read-only" in str(told_so.value)
    assert [p for p in world.processes() if "deployguard" in " ".join(p.cmdline())] == []
    disk.mend(how)
    world.up()
    assert world.on_stable()


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_in_the_middle(world: World, disk: Disk, how: str, tell: Tell) -> None:
    """The trouble is said once, nothing unsaved is done, the lease takes the canary back, and with room again the rollout ends."""
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=SHORT)
    with world.load(RATE, journeys=False):
        going = world.begin(guard, release=world.release())
        eventually(lambda: stage(world) == 1)
        candidate, kept = rollout(world).candidate, saved(world)
        disk.spoil(how)
        eventually(lambda: not running(world.view(), candidate))
        if how == "full":
            eventually(world.on_stable)
        else:
            # The links of the instance cannot be moved: it is not started, and says why, until the disk can be written.
            eventually(lambda: any("Read-only" in i.waiting for i in world.view().instances))
        assert going.process.poll() is None, going.err
        assert saved(world) == kept, "nothing can have been saved"
        assert world.view().fence <= kept.fence
        keeps_its_word(world)
        disk.mend(how)
        done = going.end()
    assert done.code == 12, done.err
    assert world.on_stable()
    assert rollout(world).exposed_most == 1
    assert "Traceback" not in done.err
    troubles = [line for line in done.err.splitlines() if line.startswith("trouble: ")]
    tell(f"{how}: {'; '.join(troubles)}")
    assert [line for line in troubles if "save the document" in line or "could not save" in line]
    assert len(troubles) == len(set(troubles)) <= 3, "a trouble was said more than once"
    assert saved(world).quarantine == ()
    verified(world)


def test_a_guard_that_may_not_write(world: World) -> None:
    """A guard that can write neither its state nor its own log goes on: the lease takes the canary back, and it ends when it can write."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("limits of another process can be set on Linux alone")
    world.instances = INSTANCES
    world.up()
    guard = world.guard(CHECK, policy=SHORT)
    with world.load(RATE, journeys=False):
        going = world.begin(guard, release=world.release())
        eventually(lambda: stage(world) == 1)
        candidate, limits = rollout(world).candidate, resource.prlimit(going.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(going.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        eventually(lambda: not running(world.view(), candidate))
        eventually(world.on_stable)
        assert psutil.Process(going.process.pid).is_running()
        assert phase(world) == "analyzing"
        resource.prlimit(going.process.pid, resource.RLIMIT_FSIZE, limits)
        done = going.end()
    assert done.code == 12, done.err
    assert not running(world.view(), candidate)
    verified(world)
