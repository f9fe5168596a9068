"""Every kind of scrape check on the shop's own metrics page: releases that are worse in the way it sees, and one that is not."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.e2e.conftest import Tell
from tests.e2e.world import UNTIL_JUDGED, World, instant

pytestmark = pytest.mark.e2e
HISTOGRAM, TOTAL, BAD = "http_request_duration_seconds", "http_requests_total", 'http_requests_total{code=~"5.."}'
TOLERANCE = {"ratio": 1.25, "margin": "2%", "floor": "5%"}
LATENCY = {"name": "latency", "source": "scrape", "histogram": HISTOGRAM, "worse_than_stable": TOLERANCE, "claims": 10}
SLOW = {**LATENCY, "name": "slow", "within": "75ms", "claims": 4}
CLASSES = {
    "name": "classes",
    "source": "scrape",
    "classes": [f'{TOTAL}{{code=~"{code}"}}' for code in ("[23]..", "4..", "5..")],
    "claims": 10,
}
ROUTES = {
    "name": "routes",
    "source": "scrape",
    "bad": BAD,
    "total": TOTAL,
    "strata": {"route": ["/login", "/checkout"]},
    "claims": 20,
    "worse_than_stable": {"floor": "1%"},
}
MEMORY = {"name": "memory", "source": "scrape", "gauge": "process_resident_memory_bytes", "bound": 500e6, "required": False}
STABLE_MS = 30
"""What a request takes on stable: less than a tenth of a second, and much more than the machine's own noise."""


def up(world: World) -> None:
    world.instances = 4
    world.up(release=world.release("stable", latency_ms=STABLE_MS))


def taken_back(world: World, check: dict[str, Any], **flaws: float) -> float:
    """Seconds from the first analysis to the decision, of a release with these flaws that this check alone condemned."""
    done = world.run(world.guard(check, stages=UNTIL_JUDGED), release=world.release(check["name"], **flaws))
    judged = done.data["checks"][0]
    assert (done.code, judged["name"], judged["reason"]) == (10, check["name"], "evidence"), done.data["reason"]
    assert done.data["exposure_max"]["instances"] == 1
    assert world.on_stable()
    began = next(instant(step["at"]) for step in done.data["trail"] if step["phase"] == "analyzing")
    return (instant(done.data["decided"]) - began) / dt.timedelta(seconds=1)


def test_a_release_that_is_three_times_slower_is_taken_back(world: World, tell: Tell) -> None:
    """All requests take three times as long and none fails: the histogram alone takes the release back, as a whole and by a bound."""
    up(world)
    with world.load(rate=80):
        took = {check["name"]: taken_back(world, check, latency_ms=3 * STABLE_MS) for check in (LATENCY, SLOW)}
    tell(f"three times slower: decided after {', '.join(f'{seconds:.2f} s ({name})' for name, seconds in took.items())}")


def test_a_release_that_fails_is_taken_back_by_classes_and_by_routes(world: World, tell: Tell) -> None:
    """Answers that move to a worse class are a regression, and so are errors that are counted route by route."""
    up(world)
    with world.load(rate=80):
        took = {check["name"]: taken_back(world, check, errors=0.3, latency_ms=STABLE_MS) for check in (CLASSES, ROUTES)}
    tell(f"30 % errors: decided after {', '.join(f'{seconds:.2f} s ({name})' for name, seconds in took.items())}")


@pytest.mark.full
def test_a_release_that_leaks_memory_is_taken_back(world: World, tell: Tell) -> None:
    """Nothing fails and nothing is slow: eight blocks of fifteen seconds condemn a gauge that grows."""
    up(world)
    with world.load(rate=40):
        seconds = taken_back(world, MEMORY, memory_leak_mb_s=30, latency_ms=STABLE_MS)
    tell(f"30 MB/s lost: decided after {seconds:.0f} s")


def test_a_release_that_is_no_worse_is_promoted(world: World) -> None:
    """The same latency, answers and memory on both sides pass all kinds of checks together."""
    up(world)
    with world.load(rate=80):
        done = world.run(world.guard(LATENCY, SLOW, CLASSES, ROUTES, MEMORY), release=world.release("good", latency_ms=STABLE_MS))
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]
