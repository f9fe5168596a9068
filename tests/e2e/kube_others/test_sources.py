"""The ConfigMap that people edit is only a source: one that asks for what was condemned is shown, and never let through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.kube_others.stage import IN_STAGE, QUICK, Yard

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
REF = {"envFrom": [{"configMapRef": {"name": "settings"}}]}
IMAGE = "localhost/deployguard-shop"


def settings(yard: Yard, **data: str) -> None:
    """Somebody applies the ConfigMap that the pods' environment is made of."""
    yard.kubectl("apply", "-f", yard.file({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data}))


def held(yard: Yard) -> dict[str, str]:
    """What the ConfigMap holds."""
    found: dict[str, str] = yard.api.get(f"/api/v1/namespaces/{yard.namespace}/configmaps/settings")["data"]
    return found


def deployed(yard: Yard) -> None:
    """Version 1 runs with `CONFIG_VERSION` a."""
    settings(yard, CONFIG_VERSION="a")
    made = yard.manifest(1)
    made["spec"]["template"]["spec"]["containers"][0].update(REF)
    yard.kubectl("apply", "-f", yard.file(made))
    yard.settled()


def test_a_source_that_still_wants_what_was_condemned(yard: Callable[..., Yard], tmp_path: Path) -> None:
    """A condemned configuration that somebody applies all the same is shown by status and plan; an image alone takes stable's."""
    place = yard(replicas=1)
    deployed(place)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "CONFIG_VERSION").write_text("b")
    (bad / "CRASH_AT_START").write_text("1")
    guard = place.guard(QUICK, config=("settings",))
    done = place.command.run(guard, "--config", f"ConfigMap/settings={bad}")
    assert done.code == 10, done.err
    assert held(place) == {"CONFIG_VERSION": "a"}
    before = place.pods()
    settings(place, CONFIG_VERSION="b", CRASH_AT_START="1")
    (row,) = place.command.cli("status", "-o", "json").data
    assert row["source"]["quarantined"], row
    still = "the source still wants"
    assert f"{still} {row['source']['name']} (quarantined)" in place.command.cli("status").out
    words = "the candidate takes stable's configuration"
    assert words in place.command.cli("plan", "-f", guard, "--image", f"{IMAGE}:2").out
    assert (place.pods(), held(place)["CONFIG_VERSION"]) == (before, "b")
    done = place.command.run(guard, "--image", f"{IMAGE}:2")
    assert done.code == 0, done.err
    assert words in done.err
    assert (place.image(), held(place), place.canaries()) == ("2", {"CONFIG_VERSION": "a"}, [])
    assert still not in place.command.cli("status").out
    refused = place.command.run(guard, "--config", f"ConfigMap/settings={bad}")
    assert refused.code == 13, refused.err


@pytest.mark.full
def test_a_source_that_is_edited_meanwhile_holds_the_rollout(yard: Callable[..., Yard]) -> None:
    """While somebody has applied another ConfigMap the rollout is held and says so; what they wrote stays when it is taken back."""
    place = yard(replicas=1)
    deployed(place)
    going = place.begin(IN_STAGE, "--image", f"{IMAGE}:2", config=("settings",))
    place.at(going, ("analyzing", 0))
    settings(place, CONFIG_VERSION="theirs")
    place.at(going, ("holding", 0))
    (row,) = place.command.cli("status", "-o", "json").data
    assert row["held"]["why"] == "source", row
    assert "ConfigMap settings was edited since the rollout began" in row["held"]["text"]
    assert (row["source"]["quarantined"], held(place)) == (False, {"CONFIG_VERSION": "theirs"})
    assert place.command.cli("abort").code == 0
    assert going.end().code == 12
    assert (held(place), place.image(), place.canaries()) == ({"CONFIG_VERSION": "theirs"}, "1", [])
