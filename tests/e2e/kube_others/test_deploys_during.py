"""Somebody else deploys while a rollout is going on: that is told and never fought, and nothing of ours is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.api import until
from tests.e2e.kube_others import stage
from tests.e2e.kube_others.stage import IN_PROMOTION, IN_STAGE, IN_WATCH, Yard
from tests.e2e.world import Going

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
Made = Callable[..., Yard]
USERS = {"minReadySeconds": 2, "progressDeadlineSeconds": 120}
WRITERS = ("apply", "set_image", "helm_upgrade", "server_side")
MOMENTS: dict[str, tuple[dict[str, Any], tuple[str, int]]] = {
    "stage": (IN_STAGE, ("analyzing", 0)),
    "promotion": (IN_PROMOTION, ("advancing", 1)),
    "watch": (IN_WATCH, ("watching", 0)),
}
SHORT = {("helm_upgrade", "promotion"), ("server_side", "stage")}
PAIRS = [
    pytest.param(writer, moment, marks=() if (writer, moment) in SHORT else pytest.mark.full) for writer in WRITERS for moment in MOMENTS
]


@pytest.fixture
def writers(request: pytest.FixtureRequest) -> Callable[[str], stage.Writer]:
    """The ways to deploy, by name."""

    def named(name: str) -> stage.Writer:
        if name == "helm_upgrade":
            return stage.helm_upgrade(request.getfixturevalue("helm"))
        found: stage.Writer = getattr(stage, name)
        return found

    return named


def came(place: Yard, going: Going, moment: str) -> None:
    """The rollout of version 2 has come to that moment; in a promotion the template is already its own."""
    place.at(going, MOMENTS[moment][1])
    if moment == "promotion":
        until("the promotion is written", lambda: place.image() == "2")


@pytest.mark.parametrize(("writer", "moment"), PAIRS)
def test_a_deploy_by_others_is_not_fought(yard: Made, writers: Callable[[str], stage.Writer], writer: str, moment: str) -> None:
    """Version 3 comes by another tool: it stays and serves, the canary goes, the user's pace is back, and the run says superseded."""
    place, write = yard(spec=USERS), writers(writer)
    write(place, 1)
    place.settled()
    going = place.begin(MOMENTS[moment][0], "--set", "env.VERSION=2", "--image", "localhost/deployguard-shop:2", "--watch")
    came(place, going, moment)
    write(place, 3)
    done = going.end()
    assert done.code == (0 if moment == "watch" else 14), done.err
    assert done.data["outcome"] == ("promoted" if moment == "watch" else "superseded")
    assert "somebody else changed" in done.err + done.out
    place.settled()
    spec = place.workload()["spec"]
    assert (place.image(), place.canaries(), set(place.pods().values())) == ("3", [], {"3"})
    assert (spec["minReadySeconds"], spec.get("paused", False), place.ours()) == (2, False, [])
    assert not spec["template"]["metadata"].get("annotations", {}).get("deployguard.dev/config")
    write(place, 2)
    place.settled()
    assert (place.image(), set(place.pods().values())) == ("2", {"2"})


@pytest.mark.full
def test_a_pause_comes_back_when_no_candidate_is_left(yard: Made) -> None:
    """Of a paused Deployment a promotion is overtaken: it is paused again, but not before what others deployed runs everywhere."""
    place = yard()
    stage.apply(place, 1)
    place.settled()
    place.kubectl("rollout", "pause", "deployment/web")
    going = place.begin(IN_PROMOTION, "--image", "localhost/deployguard-shop:2")
    came(place, going, "promotion")
    until("a pod of the candidate is the workload's own", lambda: sorted(place.pods().values()).count("2") > 1)
    stage.set_image(place, 3)
    done = going.end()
    assert (done.code, done.data["outcome"]) == (14, "superseded"), done.err
    assert (place.workload()["spec"].get("paused"), set(place.pods().values()), place.canaries()) == (True, {"3"}, [])
