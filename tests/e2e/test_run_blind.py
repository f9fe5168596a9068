"""Signals that fall silent: nothing is promoted, nobody is blamed, and what can be taken back is taken back in time."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.world import ERRORS, LOGIN, Going, World, eventually, instant, words

pytestmark = pytest.mark.e2e
PATIENT = {"hold_after": "2s", "retreat_after": "10m", "hold_limit": "20m"}
HURRIED = {"hold_after": "2s", "retreat_after": "3s", "hold_limit": "20m"}
FULL = pytest.mark.full
REFUSE, NAN = {"metrics": "refuse"}, {"metrics": "nan"}


def one_then_all(soak: str = "10m") -> list[dict[str, Any]]:
    """One instance for that long, then all of them."""
    return [{"instances": 1, "soak": soak, "limit": "20m"}, {"exposure": "100%", "soak": "2s"}]


def puppets(world: World, count: int = 4, **changes: Any) -> tuple[Path, Path]:
    """A fleet of puppets, and a candidate that is one too."""
    world.instances = count
    first, second = world.puppet("first"), world.puppet("second")
    world.up(release=first, **changes)
    return first, second


def blind(world: World, going: Going, *names: str) -> None:
    """It is held because these signals are silent, and says so; nothing moves."""
    going.says("holding (blind)")
    status = world.status()
    assert (status["phase"], status["held"]["why"]) == ("holding", "blind")
    why = world.why()
    assert "HELD (blind)" in why
    for name in names:
        assert f"{name} is silent" in why
        assert name in status["held"]["text"]
        assert name in status["signals"]["blind"]


@contextlib.contextmanager
def suspended(*processes: psutil.Process) -> Iterator[None]:
    """The processes stand still."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.parametrize("flaws", [pytest.param(REFUSE, id="refuse"), pytest.param(NAN, id="nan", marks=FULL)])
def test_dark_metrics_hold_and_come_back(world: World, flaws: dict[str, Any]) -> None:
    """Metrics that are refused or NaN everywhere hold the rollout; it goes on by itself when they are back, with a fresh soak."""
    first, second = puppets(world)
    with world.load(rate=60):
        going = world.begin(world.guard(ERRORS, stages=one_then_all("6s"), blind=PATIENT), release=second)
        going.says("analyzing stage 1/2")
        for release in (first, second):
            world.pull(release, **flaws)
        blind(world, going, "errors")
        for release in (first, second):
            world.pull(release)
        going.says("the soak starts anew")
        done = going.end()
    report = done.data
    assert (done.code, report["outcome"]) == (0, "promoted"), report["reason"]
    assert words(report)[:4] == ["advancing", "analyzing", "holding", "analyzing"]
    anew, after = report["trail"][3:5]
    assert (instant(after["at"]) - instant(anew["at"])).total_seconds() >= 6, "the whole soak was watched again"
    assert report["exposure_max"]["instances"] == world.instances


@pytest.mark.parametrize("flaws", [pytest.param(REFUSE, id="refuse", marks=FULL), pytest.param(NAN, id="nan")])
def test_dark_metrics_of_the_candidate_retreat(world: World, flaws: dict[str, Any]) -> None:
    """A candidate whose metrics never come is taken back after `retreat_after`, with exit code 12 and nobody condemned."""
    world.instances = 4
    before = {i.id: i.uid for i in world.up().instances}
    with world.load(rate=60):
        done = world.run(world.guard(ERRORS, stages=one_then_all(), blind=HURRIED), release=world.release("dark", **flaws))
    report = done.data
    assert (done.code, report["outcome"], report["quarantined"]) == (12, "withdrawn", [])
    assert "holding" in words(report)
    assert report["exposure_max"]["instances"] == 1
    assert len(world.changed(before)) == 1
    assert world.on_stable()
    assert "TAKEN BACK" in world.why()
    assert "errors" in world.why()


def test_counters_that_stand_still_promote_nothing(world: World) -> None:
    """Counters that answer but never move are too few samples: the rollout is held, and ends by the limit of holds."""
    world.instances = 4
    world.up()
    stages = [{"instances": 1, "soak": "2s", "limit": "3s"}, {"exposure": "100%", "soak": "2s"}]
    guard = world.guard(ERRORS, stages=stages, blind={**HURRIED, "hold_limit": "4s"})
    with world.load(rate=60):
        done = world.run(guard, release=world.release("still", metrics="frozen"))
    report = done.data
    assert (done.code, report["outcome"], report["quarantined"]) == (12, "withdrawn", [])
    assert report["exposure_max"]["instances"] == 1
    assert world.on_stable()


def test_frozen_services(world: World) -> None:
    """When everything that serves metrics stands still (SIGSTOP), the rollout is held and names the signals; then it goes on."""
    plain = {"ready": {"every": "200ms", "timeout": "5s", "within": "60s"}, "loaded": None, "reload": None}
    puppets(world, **plain)
    with world.load(rate=60):
        guard = world.guard(ERRORS, stages=one_then_all("6s"), blind=PATIENT)
        going = world.begin(guard, release=world.release("good"))
        going.says("analyzing stage 1/2")
        shops = [world.process_at(i.address) for i in world.view().instances]
        with suspended(*shops):
            blind(world, going, "errors")
            assert world.status()["exposure"]["instances"] == 1
        going.says("the soak starts anew")
        done = going.end()
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]


def test_above_half_nothing_moves(world: World) -> None:
    """Above half of the fleet a blind rollout is held for longer than `retreat_after` and moves nothing; a person may take it back."""
    first, second = puppets(world)
    stages = [{"instances": 1, "soak": "3s", "limit": "10m"}, {"exposure": "100%", "soak": "10m"}]
    with world.load(rate=60):
        going = world.begin(world.guard(ERRORS, stages=stages, blind=HURRIED), release=second)
        going.says("analyzing stage 2/2")
        before = world.uids()
        for release in (first, second):
            world.pull(release, metrics="refuse")
        blind(world, going, "errors")
        held = instant(world.status()["held"]["since"])
        eventually(lambda: (instant(world.cli("why", "-o", "json").data["at"]) - held).total_seconds() > 8)
        status = world.status()
        assert (status["phase"], status["exposure"]["instances"]) == ("holding", world.instances)
        assert not world.changed(before)
        going.signal(signal.SIGINT)
        assert going.end().code == 130
    assert world.on_stable()


@pytest.mark.parametrize("how", ["kill", pytest.param("suspend", marks=FULL)])
def test_no_promotion_without_the_prober(world: World, how: str) -> None:
    """While the prober is killed again and again, or stands still, the rollout is held and names the probe; then it goes on."""
    world.instances = 4
    world.up()
    with world.load(rate=60):
        guard = world.guard(ERRORS, LOGIN, stages=one_then_all("6s"), blind=PATIENT)
        going = world.begin(guard, release=world.release("good"))
        going.says("analyzing stage 1/2")
        # The guard starts another prober after each, so it is done again until the rollout is held.
        while "holding (blind)" not in going.err:
            assert going.process.poll() is None, going.err
            for child in psutil.Process(going.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    child.kill() if how == "kill" else child.suspend()
            assert world.view().told.count == 1  # type: ignore[union-attr]
        assert "login is silent" in going.err
        going.says("the soak starts anew")
        done = going.end()
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]


def test_a_frozen_guard_has_not_watched(world: World) -> None:
    """A guard that stood still for longer than the soak has not watched it: the soak begins anew when it wakes."""
    world.instances = 4
    world.up()
    guard = world.guard(ERRORS, stages=one_then_all("6s"), blind={**PATIENT, "hold_after": "1s"}, lease="10m")
    with world.load(rate=60):
        going = world.begin(guard, release=world.release("good"))
        going.says("analyzing stage 1/2")
        with suspended(psutil.Process(going.process.pid)):
            since = instant(world.cli("why", "-o", "json").data["at"])

            def now() -> Any:
                return instant(world.cli("why", "-o", "json").data["at"])

            eventually(lambda: (now() - since).total_seconds() > 8)
            woke = now()
        done = going.end()
    report = done.data
    assert (done.code, report["outcome"]) == (0, "promoted"), report["reason"]
    second = next(step for step in report["trail"] if "stage 2/2" in step["text"])
    assert (instant(second["at"]) - woke).total_seconds() >= 5.5, "the time in which it stood still does not count"
