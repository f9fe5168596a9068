"""People and controllers go on with a Deployment while a rollout of it is going on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.api import until
from tests.e2e.kube_others.stage import IN_PROMOTION, IN_STAGE, Yard

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
Made = Callable[..., Yard]
STAGE = (IN_STAGE, ("analyzing", 0))
PROMOTION = (IN_PROMOTION, ("advancing", 1))


def deployed(yard: Made, moment: tuple[dict[str, Any], tuple[str, int]], **more: Any) -> tuple[Yard, Any]:
    """Version 1, twice rolled out, and a rollout of version 2 that has come to the moment."""
    place = yard(spec={"minReadySeconds": 2}, **more)
    place.kubectl("apply", "-f", place.file(place.manifest(3)))
    place.settled()
    place.kubectl("apply", "-f", place.file(place.manifest(1)))
    place.settled()
    going = place.begin(moment[0], "--image", "localhost/deployguard-shop:2")
    place.at(going, moment[1])
    if moment[0] is IN_PROMOTION:
        until("the promotion is written", lambda: place.image() == "2")
    return place, going


@pytest.mark.full
@pytest.mark.parametrize(
    ("word", "moment"),
    [
        pytest.param("restart", STAGE, id="restart"),
        pytest.param("undo", STAGE, id="undo"),
        pytest.param("undo", PROMOTION, id="undo-later"),
    ],
)
def test_restart_and_undo_are_deploys_by_others(yard: Made, moment: tuple[dict[str, Any], tuple[str, int]], word: str) -> None:
    """`kubectl rollout restart` and `undo` overtake a rollout: it is superseded, and what they wrote stays and serves."""
    place, going = deployed(yard, moment)
    place.kubectl("rollout", word, "deployment/web")
    wrote = place.workload()["spec"]["template"]
    done = going.end()
    assert done.code == 14, done.err
    place.settled()
    spec = place.workload()["spec"]
    assert (spec["template"], spec["minReadySeconds"], place.canaries(), place.ours()) == (wrote, 2, [], [])
    assert len(set(place.pods().values())) == 1


@pytest.mark.full
@pytest.mark.parametrize("moment", [pytest.param(STAGE, id="stage"), pytest.param(PROMOTION, id="promotion")])
def test_a_new_size_by_an_autoscaler_or_a_person_is_kept(yard: Made, moment: tuple[dict[str, Any], tuple[str, int]]) -> None:
    """A size that comes by the scale subresource, as an autoscaler writes it, is followed and never written back; the rollout goes on."""
    place, going = deployed(yard, moment)
    said = place.api.merge(f"{place.path}/scale", {"spec": {"replicas": 3}})
    assert said["spec"]["replicas"] == 3
    until("three are ready", lambda: place.workload()["status"].get("readyReplicas") == 3)
    assert going.process.poll() is None, going.err
    place.kubectl("scale", "deployment/web", "--replicas", "1")
    done = place.command.cli("abort")
    assert done.code == 0, done.err
    assert going.end().code == 12, going.err
    place.settled()
    assert (place.workload()["spec"]["replicas"], place.image(), place.canaries()) == (1, "1", [])


@pytest.mark.full
def test_an_autoscaler_that_owns_the_size_is_left_alone(yard: Made) -> None:
    """With a HorizontalPodAutoscaler, plan says so, and a rollout never writes the size."""
    place = yard(replicas=1)
    place.kubectl("apply", "-f", place.file(place.manifest(1)))
    place.settled()
    place.kubectl("autoscale", "deployment/web", "--min", "2", "--max", "3", "--cpu-percent", "80")
    until("the autoscaler has sized it", lambda: place.workload()["spec"]["replicas"] == 2)
    place.settled()
    going = place.begin(IN_STAGE, "--image", "localhost/deployguard-shop:2")
    place.at(going, ("analyzing", 0))
    plan = place.command.cli("plan", "-f", place.guard(IN_STAGE), "--image", "localhost/deployguard-shop:3")
    assert "HorizontalPodAutoscaler web" in plan.out, plan.out + plan.err
    assert place.command.cli("skip-soak", "--no-wait").code == 0
    done = going.end()
    assert done.code == 0, done.err
    assert (place.workload()["spec"]["replicas"], place.image(), place.ours()) == (2, "2", [])
