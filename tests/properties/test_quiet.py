"""Quiet runs: nothing goes wrong in the world but the release itself."""

from __future__ import annotations

from deployguard.model.rollout import Promoted, RolledBack
from deployguard.targets.simulated import Behaviour
from tests.properties.world import NEW, OLD, Sim


def test_a_good_release_is_promoted_through_all_stages() -> None:
    """A release that fails nothing passes every stage, becomes stable, and the watch ends as promoted."""
    sim = Sim(bad=0.0)
    sim.begin()

    document = sim.run()

    assert isinstance(document.rollout.phase, Promoted)
    assert sim.trail() == [
        "advancing stage 1/3",
        "analyzing stage 1/3 for 10s",
        "advancing stage 2/3",
        "analyzing stage 2/3 for 10s",
        "advancing stage 3/3",
        "analyzing stage 3/3 for 10s",
        "watching",
        "promoted",
    ]
    assert document.stable[0].version == NEW
    assert sim.exposed() == 8


def test_a_release_that_fails_one_request_in_five_is_taken_back_from_one_instance() -> None:
    """Errors on the candidate alone end in a rollback, quarantine the release, and expose one instance only."""
    sim = Sim(bad=0.2)
    sim.begin()

    document = sim.run()

    assert isinstance(document.rollout.phase, RolledBack)
    assert document.rollout.phase.why == "fail"
    assert document.rollout.exposed_most == 1
    assert [q.digest for q in document.quarantine] == [NEW.release]
    assert document.stable[0].version == OLD
    assert sim.exposed() == 0


def test_a_release_that_exits_at_start_is_doomed() -> None:
    """An exit before the first readiness is a verdict, not a timeout."""
    sim = Sim(behaviour=Behaviour(ready_after=None, exits_after=0.5))
    sim.begin()

    document = sim.run()

    assert document.rollout.latched.reason == "doomed"
    assert (document.rollout.decided - document.rollout.started).total_seconds() <= 3


def test_a_release_that_never_gets_ready_fails_at_its_deadline() -> None:
    """An instance that runs and never becomes ready has failed when the stage's time to get in place is over."""
    sim = Sim(behaviour=Behaviour(ready_after=None))
    sim.begin()

    document = sim.run()

    assert document.rollout.latched.reason == "late"
    assert document.rollout.phase.why == "fail"
