"""Releases that are slower than stable, on the shop's own latency histogram, and one that is as fast."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Tell
from tests.e2e.world import UNTIL_JUDGED, World, instant

pytestmark = pytest.mark.e2e
HISTOGRAM = "http_request_duration_seconds"
TOLERANCE = {"ratio": 1.25, "margin": "2%", "floor": "5%"}
LATENCY = {"name": "latency", "source": "scrape", "histogram": HISTOGRAM, "worse_than_stable": TOLERANCE, "claims": 10}
SLOW = {**LATENCY, "name": "slow", "within": "75ms", "claims": 4}
STABLE_MS = 30
"""What a request takes on stable: less than a tenth of a second, and much more than the machine's own noise."""


def up(world: World) -> None:
    world.instances = 4
    world.up(release=world.release("stable", latency_ms=STABLE_MS))


@pytest.mark.parametrize("check", [LATENCY, SLOW], ids=["distribution", "within"])
def test_a_release_that_is_three_times_slower_is_taken_back(world: World, tell: Tell, check: dict[str, Any]) -> None:
    """All requests take three times as long and none fails: the histogram's evidence alone takes the release back."""
    up(world)
    with world.load(rate=80):
        done = world.run(world.guard(check, stages=UNTIL_JUDGED), release=world.release(latency_ms=3 * STABLE_MS))
    judged = done.data["checks"][0]
    assert (done.code, judged["name"], judged["reason"]) == (10, check["name"], "evidence"), done.data["reason"]
    assert done.data["exposure_max"]["instances"] == 1
    assert world.on_stable()
    began = next(instant(step["at"]) for step in done.data["trail"] if step["phase"] == "analyzing")
    tell(f"{check['name']}: decided {(instant(done.data['decided']) - began).total_seconds():.2f} s after the stage began")


def test_a_release_that_is_as_fast_is_promoted(world: World) -> None:
    """The same latency on both sides passes every kind of check on it, with counters and classes beside them."""
    up(world)
    total = "http_requests_total"
    classes = [f'{total}{{code=~"{code}"}}' for code in ("2..|3..", "4..", "5..")]
    checks = [
        LATENCY,
        SLOW,
        {"name": "classes", "source": "scrape", "classes": classes, "claims": 10},
        {"name": "memory", "source": "scrape", "gauge": "process_resident_memory_bytes", "bound": 1e9, "required": False},
        {
            "name": "routes",
            "source": "scrape",
            "bad": f'{total}{{code=~"5.."}}',
            "total": total,
            "strata": {"route": ["/login", "/checkout"]},
            "claims": 20,
            "worse_than_stable": {"floor": "1%"},
        },
    ]
    with world.load(rate=80):
        done = world.run(world.guard(*checks), release=world.release("good", latency_ms=STABLE_MS))
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]
    assert "could not" not in done.err
