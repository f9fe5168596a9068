"""How soon a fault is seen and ended, and what is no fault. Times are printed, not asserted."""

from __future__ import annotations

import datetime as dt
import statistics
from typing import Any

import pytest

from tests.e2e.conftest import Tell
from tests.e2e.world import ERRORS, QUICK, Going, World, eventually, instant, words

pytestmark = pytest.mark.e2e
LONG_SOAK = [{"instances": 1, "soak": "3m"}, {"exposure": "100%", "soak": "2s"}]
PLAIN_ERRORS = {key: ERRORS[key] for key in ("name", "source", "bad", "total")}


def exit_shown(world: World, going: Going) -> dt.datetime | None:
    """When an instance exited; None when the way back was complete before anybody could look."""
    found: list[dt.datetime] = []

    def shown_or_over() -> bool:
        found.extend(i.exit.at for i in world.view().instances if i.exit is not None)
        return bool(found) or going.process.poll() is not None

    eventually(shown_or_over)
    return found[0] if found else None


def test_a_crash_at_start_is_decided_at_once(world: World, tell: Tell) -> None:
    """A crash at start is decided by its first exit, long before the stage's soak is over."""
    world.up()
    delays = []
    for _ in range(3):
        going = world.begin(world.guard(ERRORS, stages=LONG_SOAK), release=world.release(crash_at_start=True))
        left = exit_shown(world, going)
        done = going.end()
        assert (done.code, done.data["checks"][0]["reason"]) == (10, "doomed")
        assert "analyzing" not in words(done.data)
        assert len(done.data["trail"]) == 3, "one exit was enough"
        if left is not None:
            delays.append((instant(done.data["decided"]) - left).total_seconds())
        eventually(lambda: not any(i.exit for i in world.view().instances))
    tell(f"crash at start: decided {', '.join(f'{delay:.2f}' for delay in delays)} s after the first exit")


@pytest.mark.alone
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("runs", "cap"), [(3, 10.0), pytest.param(20, 10.0, marks=pytest.mark.full), pytest.param(20, None, marks=pytest.mark.full)]
)
def test_time_of_failure(world: World, tell: Tell, runs: int, cap: float | None) -> None:
    """From the first bad response that users see to the last: 50 requests/s, 20 % errors on one of ten, the shipped policy `fast`."""
    world.instances = 10
    world.up()
    over: dict[str, Any] = {} if cap is not None else {"protect": {"block_cap": None}}
    guard = world.guard(PLAIN_ERRORS, policy="fast", **over)
    times, shares = [], []
    for _ in range(runs):
        with world.load(rate=50, journeys=False) as users:
            done = world.run(guard, release=world.release(errors=0.2))
            assert (done.code, done.data["checks"][0]["reason"]) == (10, "evidence"), done.data["reason"]
            assert done.data["exposure_max"]["instances"] == 1
        summary = users.stop()
        assert summary["failed"] > 0
        times.append((instant(summary["last_failed_at"]) - instant(summary["first_failed_at"])).total_seconds())
        shares.append(summary["failed"])
    tell(
        f"cap {cap}: first to last bad response, median of {runs} runs {statistics.median(times):.2f} s "
        f"(from {min(times):.2f} to {max(times):.2f}), failed requests {statistics.median(shares):.0f}"
    )


def test_a_release_without_any_error_passes(world: World) -> None:
    """Zero errors in both arms are enough to be promoted, also when the error series exists on neither."""
    world.instances = 4
    world.up()
    nowhere = {**ERRORS, "bad": 'http_requests_total{code="507"}'}
    with world.load(rate=60):
        done = world.run(world.guard(nowhere), release=world.release("quiet"))
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]
    assert done.data["checks"][0]["counts"]["candidate"]["bad"] == 0


def test_old_crashes_of_stable_do_not_count(world: World) -> None:
    """Stable instances that crashed before the rollout neither condemn a good release nor excuse a bad one."""
    world.instances = 4
    view = world.up(restart={"first": "50ms", "most": "200ms"})
    for number in (1, 2):
        for instance in view.instances[:2]:
            world.kill(instance.id)

        def came_back(number: int = number) -> bool:
            seen = world.view().instances
            return all(i.ready and i.exits == number for i in seen[:2])

        eventually(came_back)
    with world.load(rate=60):
        bad = world.run(world.guard(ERRORS), release=world.release(crash_at_start=True))
        assert (bad.code, bad.data["checks"][0]["reason"]) == (10, "doomed")
        good = world.run(world.guard(ERRORS), release=world.release("good"))
    assert (good.code, good.data["outcome"]) == (0, "promoted"), good.data["reason"]


def test_a_fault_while_a_stage_is_entered(world: World, tell: Tell) -> None:
    """When errors begin while the next stage's instances still start, the candidate is judged then, and not after they are ready."""
    world.up()
    release = world.puppet()
    with world.load(rate=80):
        going = world.begin(world.guard(ERRORS, advance_within="10m"), release=release)
        going.says("analyzing stage 1/3")
        world.pull(release, wait=True)
        going.says("advancing stage 2/3")
        began = dt.datetime.now(dt.UTC)
        world.pull(release, wait=True, errors=0.5)
        done = going.end()
    report = done.data
    assert (done.code, report["checks"][0]["reason"]) == (10, "evidence"), report["reason"]
    assert words(report) == ["advancing", "analyzing", "advancing", "rolling_back", "verifying"]
    assert world.on_stable()
    tell(f"fault while a stage is entered: decided {(instant(report['decided']) - began).total_seconds():.2f} s after it began")


def test_a_fault_while_approval_is_awaited(world: World, tell: Tell) -> None:
    """A release that turns bad while a person has not approved the next stage yet is taken back without being asked."""
    world.up()
    release = world.puppet()
    with world.load(rate=80):
        going = world.begin(world.guard(ERRORS, gates={"approval": [2]}), release=release)
        going.says("holding (approval)")
        assert world.status()["held"]["why"] == "approval"
        began = dt.datetime.now(dt.UTC)
        world.pull(release, errors=0.5)
        done = going.end()
    report = done.data
    assert (done.code, report["checks"][0]["reason"]) == (10, "evidence"), report["reason"]
    assert words(report) == ["advancing", "analyzing", "holding", "rolling_back", "verifying"]
    assert world.on_stable()
    tell(f"fault while approval is awaited: decided {(instant(report['decided']) - began).total_seconds():.2f} s after it began")


def test_errors_that_begin_by_themselves(world: World) -> None:
    """A release whose errors begin a while after its start is condemned then."""
    world.up()
    with world.load(rate=80):
        done = world.run(world.guard(ERRORS, stages=LONG_SOAK), release=world.release(errors=0.2, error_after_s=8))
    assert (done.code, done.data["checks"][0]["reason"]) == (10, "evidence"), done.data["reason"]
    assert world.on_stable()


def test_an_approved_stage_is_entered(world: World) -> None:
    """`approve` opens the gate, and the rollout goes on to its end."""
    world.up()
    with world.load(rate=80):
        going = world.begin(world.guard(ERRORS, gates={"approval": [2]}, stages=QUICK["stages"]), release=world.release("good"))
        going.says("holding (approval)")
        assert world.cli("approve", "--reason", "looked at it").code == 0
        done = going.end()
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]
    assert "looked at it" in world.why()
