"""Random stories of crashes, overtaking, outages and requests: every promise is asserted at every write."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.properties.stories import CANDIDATES, EVENTS, Event, tell

MANY = int(os.environ.get("DEPLOYGUARD_STORIES", "300"))


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(candidate=st.sampled_from(sorted(CANDIDATES)), events=EVENTS)
def test_every_promise_holds_in_every_story(candidate: str, events: list[Event]) -> None:
    """Whatever happens, nothing unsaved is told, no fence goes back, no bad candidate stays, and every rollout settles."""
    story = tell(candidate, events)

    assert story.sim.document().rollout.terminal
