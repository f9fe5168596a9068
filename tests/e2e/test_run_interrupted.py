"""People who stop a run: Ctrl-C, SIGTERM, a second Ctrl-C, `abort` and `rollback`."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.world import ERRORS, Going, World

pytestmark = pytest.mark.e2e
LONG = [{"instances": 1, "soak": "10m"}, {"exposure": "100%", "soak": "2s"}]


def watching_one(world: World, *arguments: str, lease: str = "15s") -> Going:
    """A good release on one instance, with a long soak before it."""
    going = world.begin(world.guard(ERRORS, stages=LONG, lease=lease), *arguments, release=world.release("good"))
    going.says("analyzing stage 1/2")
    assert world.status()["exposure"]["instances"] == 1
    return going


def taken_back(world: World) -> None:
    """Nothing is exposed, nothing is condemned, nobody drives, and the same release may be tried again."""
    status = world.status()
    assert (status["exposure"]["instances"], status["quarantine"], status["driver"]) == (0, [], None)
    assert world.on_stable()
    assert world.ledger_is_whole()


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((signal.SIGINT,), id="int", marks=pytest.mark.full),
        pytest.param((signal.SIGTERM,), id="term"),
        pytest.param((signal.SIGINT, signal.SIGTERM), id="both"),
    ],
)
def test_interrupted(world: World, numbers: tuple[signal.Signals, ...]) -> None:
    """Ctrl-C and SIGTERM take the canary back and exit with 130; SIGTERM after SIGINT is the same request."""
    before = world.up()
    going = watching_one(world)
    for number in numbers:
        going.signal(number)
    done = going.end()
    assert (done.code, done.data["outcome"], done.data["exit_code"]) == (130, "interrupted", 130)
    assert done.data["restored"] is not None
    taken_back(world)
    assert len(world.changed({i.id: i.uid for i in before.instances})) == 1
    people = done.data["requests_by_people"] or world.cli("why", "-o", "json").data["requests_by_people"]
    assert len(people) == 1, "one request, however many signals"


def test_a_second_interrupt_leaves_at_once(world: World) -> None:
    """A second Ctrl-C leaves at once and says how to go on; `run --resume` then takes the canary back."""
    world.up(stop={"drain": "1s", "kill_after": "60s"})
    release = world.puppet()
    going = world.begin(world.guard(ERRORS, stages=LONG, lease="10m"), release=release)
    going.says("analyzing stage 1/2")
    # The fleet's supervisor stands still, so the way back cannot be finished before the second signal.
    supervisor = world.supervisor()
    supervisor.suspend()
    going.signal(signal.SIGINT)
    going.says("rolling_back")
    going.signal(signal.SIGINT)
    done = going.end()
    supervisor.resume()
    assert (done.code, done.data["exit_code"]) == (130, 130)
    assert "deployguard run --resume" in done.err
    again = world.cli("run", "--resume", "--stay", "0s", "-o", "json")
    assert (again.code, again.data["phase"]) == (130, "verifying")
    taken_back(world)


def test_a_timeout_takes_it_back(world: World) -> None:
    """A run that may not last any longer takes the canary back and exits with 124."""
    world.up()
    done = world.run(world.guard(ERRORS, stages=LONG), "--timeout", "3s", release=world.release("good"))
    assert (done.code, done.data["exit_code"]) == (124, 124)
    taken_back(world)


@pytest.mark.parametrize("verb", [pytest.param("abort", marks=pytest.mark.full), "rollback"])
def test_asked_while_it_is_driven(world: World, verb: str) -> None:
    """`abort` and `rollback` come back when the driver has taken the canary back, which exits with 12."""
    world.up()
    going = watching_one(world)
    asked = world.cli(verb, "--reason", "wrong build")
    assert asked.code == 0, asked.err
    done = going.end()
    assert (done.code, done.data["outcome"]) == (12, "withdrawn")
    taken_back(world)
    assert "wrong build" in world.why()


@pytest.mark.parametrize("verb", [pytest.param("abort", marks=pytest.mark.full), "rollback"])
def test_asked_while_nobody_drives(world: World, verb: str) -> None:
    """Without a guard that runs, `rollback` drives the way back to its end itself."""
    world.up()
    going = watching_one(world, lease="10m")
    going.process.kill()
    going.process.wait()
    assert world.status()["exposure"]["instances"] == 1
    asked = world.cli(verb, "--reason", "nobody was there")
    assert asked.code == 0, asked.err
    taken_back(world)
    assert world.status()["phase"] in ("verifying", "rolled_back")


def test_back_to_the_version_before(world: World) -> None:
    """After a promotion `rollback` goes back to the stable version before it, with nobody driving before or after."""
    first = world.up()
    with world.load(rate=80):
        done = world.run(world.guard(ERRORS), release=world.release("good"))
    assert done.code == 0, done.data["reason"]
    assert all(i.loaded != first.instances[0].loaded for i in world.view().instances)
    asked = world.cli("rollback", "--reason", "customers complain")
    assert asked.code == 0, asked.err
    assert {i.loaded for i in world.view().instances} == {first.instances[0].loaded}
    assert world.status()["serving"]["digest"] == done.data["stable"]["digest"]
    assert world.ledger_is_whole()
