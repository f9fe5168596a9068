"""Whatever happened to a rollout, its recording decides it again as it was decided, to the byte."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployguard.engine.replay import Comparison, compared
from tests.properties.stories import CANDIDATES, EVENTS, Event, tell
from tests.properties.world import Crash, Kept, Sim

MANY = int(os.environ.get("DEPLOYGUARD_STORIES", "300")) // 3


def again(sim: Sim, kept: Kept, rollout: str = "r1") -> Comparison:
    """The recording of a rollout beside its ledger."""
    return compared(sim.policy, kept.read(rollout), [e for e in sim.memory.ledgers["web"] if e.rollout == rollout])


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(candidate=st.sampled_from(sorted(CANDIDATES)), events=EVENTS)
def test_every_story_is_decided_again_to_the_byte(candidate: str, events: list[Event]) -> None:
    """Crashes, overtaking, outages, requests and clocks set back included; only a tick that a crash cut off is known by its entry alone."""
    kept = Kept()
    story = tell(candidate, events, readings=kept)
    for rollout in ("r1", "r2"):
        found = again(story.sim, kept, rollout)

        assert found.difference is None
        assert found.identical
        assert found.lost == []
        assert len(found.carried) <= story.sim.drivers


@pytest.mark.parametrize("bad", [0.0, 0.2])
def test_what_a_crash_lost_is_lost_in_the_replay_too(bad: float) -> None:
    """A driver that dies at any call forgets what it had not saved; the next one's decisions come out again all the same."""
    quiet = Sim(bad=bad)
    quiet.begin()
    quiet.run()
    carried = 0
    for point in range(3, quiet.calls + 1, 11):
        sim, kept = Sim(bad=bad), Kept()
        sim.readings = kept
        sim.begin()
        sim.crash_at = point
        try:
            sim.run()
        except Crash:
            sim.run(sim.driver())
        found = again(sim, kept)
        carried += len(found.carried)

        assert found.identical, (point, found.difference)
        assert (found.lost, len(found.carried) <= 1) == ([], True)
    assert carried > 0, "no crash fell between a save and its record, so the case was not tried"


def test_drivers_that_take_over_from_one_another_are_told_apart() -> None:
    """Two living drivers lie in one recording; each goes on from the document that it loaded, not from what it knew before."""
    sim, kept = Sim(bad=0.0), Kept()
    sim.readings = kept
    sim.begin()
    one, other = sim.driver(), sim.driver()
    for turn in range(9):
        mine = (one, other)[turn % 2]
        sim.alive = {mine.world.me}
        for _ in range(4):
            sim.tick(mine)
    sim.run(mine)
    found = again(sim, kept)

    assert found.identical, found.difference
    assert (found.lost, found.carried) == ([], ())
    assert sum(e.event == "claim" for e in found.entries) >= 8
