"""Random stories of crashes, overtaking, outages and requests: every promise is asserted at every write."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.properties.stories import CANDIDATES, EVENTS, KINDS, Event, tell
from tests.properties.surge import surge_sim

MANY = int(os.environ.get("DEPLOYGUARD_STORIES", "300"))


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(candidate=st.sampled_from(sorted(CANDIDATES)), events=EVENTS)
def test_every_promise_holds_in_every_story(candidate: str, events: list[Event]) -> None:
    """Whatever happens, nothing unsaved is told, no fence goes back, no bad candidate stays, and every rollout settles."""
    story = tell(candidate, events)

    assert story.sim.document().rollout.terminal


SURGE_KINDS = [*KINDS, "scale"]
SURGE_EVENTS = st.lists(st.builds(Event, st.sampled_from(SURGE_KINDS), st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=14)


@settings(max_examples=max(MANY // 3, 1), deadline=None, suppress_health_check=list(HealthCheck))
@given(candidate=st.sampled_from(sorted(CANDIDATES)), events=SURGE_EVENTS)
def test_every_promise_holds_on_a_target_that_follows_only_when_told(candidate: str, events: list[Event]) -> None:
    """The same of canaries beside a workload: one write at a time, replaced by itself, sized by others, reaped when nobody drives."""
    story = tell(candidate, events, world=surge_sim)

    assert story.sim.document().rollout.terminal
    assert all(not one.id.startswith("canary") for one in story.sim.target.instances)
