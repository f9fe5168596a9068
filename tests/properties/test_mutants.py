"""Each deliberate mistake is caught by the stories that the product passes."""

from __future__ import annotations

import random

import pytest

from deployguard.errors import Bug
from tests.properties.mutants import MUTANTS, mutant
from tests.properties.stories import CANDIDATES, KINDS, Event, tell
from tests.properties.world import Broken

# Stories that were found to matter, before random ones: a crash right after a save, a driver frozen inside a call while another
# takes over, writes that fail while reads work, one crash after another.
KNOWN = [
    *(("bad", [Event("crash", n, 1)], False) for n in range(1, 40)),
    *(("good", [Event("tick", 6, 1), Event("overtake", n, m)], False) for n in range(1, 30) for m in (4, 12)),
    *(("bad", [Event("tick", n, 1), Event("write_down", 6, 1)], False) for n in range(1, 8)),
    ("never ready", [Event("crash", 25, 12)] * 60, True),
]


def random_story(seed: int) -> tuple[str, list[Event]]:
    """A story from a seed: the same in every run."""
    rng = random.Random(seed)
    events = [Event(rng.choice(KINDS), rng.randint(1, 40), rng.randint(1, 12)) for _ in range(rng.randint(1, 10))]
    return rng.choice(sorted(CANDIDATES)), events


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mistake_is_caught(name: str) -> None:
    """A product that makes this mistake breaks a promise in at least one story."""
    stories = [*KNOWN, *((*random_story(seed), False) for seed in range(400))]
    caught = ""
    with mutant(name) as driver_class:
        for candidate, events, settles in stories:
            try:
                tell(candidate, events, driver_class, settles=settles)
            except (Broken, Bug) as broken:
                caught = str(broken)
                break

    assert caught


def test_the_product_itself_passes_the_same_stories() -> None:
    """The known stories break no promise of the product as it is."""
    told = [tell(candidate, events, settles=settles) for candidate, events, settles in KNOWN]

    assert all(story.sim.document().rollout.terminal for story in told)
