"""What a candidate that cannot live looks like, and that the stable pods never notice it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployguard.model.target import Instance
from deployguard.model.version import Version
from tests.cluster.images import SHOP
from tests.contracts.kube.stage import Stage, conf, runs

pytestmark = pytest.mark.cluster
Set = Callable[..., Stage]


def the_canary(yard: Stage, stable: Version, candidate: Version, is_so: Callable[[Instance], Any]) -> Instance:
    """The one instance of an exposed candidate, once something is so of it; afterwards the candidate is gone and stable as it was."""
    before = yard.pods()
    yard.tell(yard.wish(stable, candidate, 1))
    target = yard.target()
    view = yard.see("the doom of the canary", lambda view: any(is_so(i) for i in view.running(candidate)))
    (canary,) = view.running(candidate)
    assert not view.pending
    yard.drive(yard.wish(stable), runs(candidate, 0), target)
    assert (yard.canaries(), yard.pods()) == ([], before)
    return canary


def test_an_image_that_cannot_be_is_refused_and_a_registry_that_does_not_answer_is_waited_for(stage: Set) -> None:
    """The refusal names the image, and no exit is counted; the environment's trouble condemns nobody."""
    yard = stage(1)
    stable = yard.stable()
    canary = the_canary(yard, stable, yard.candidate(stable, image="localhost/Upper/Case:1"), lambda i: i.refused)
    assert "localhost/Upper/Case:1" in canary.refused
    assert (canary.exits, canary.loaded, canary.ready) == (0, None, False)
    canary = the_canary(yard, stable, yard.candidate(stable, image=f"{SHOP}:no-such-tag"), lambda i: i.waiting)
    assert (canary.refused, canary.exits) == ("", 0)


def test_a_crash_at_start_is_counted_with_its_last_lines(stage: Set) -> None:
    """Exits are counted as the node counts them, and the last of them comes with what the container logged before."""
    yard = stage(1)
    stable = yard.stable()
    canary = the_canary(yard, stable, yard.candidate(stable, {"CRASH_AT_START": "true"}), lambda i: i.exits >= 2 and i.exit.tail)
    assert canary.exit is not None
    assert (canary.exit.code, canary.exit.was_ready, canary.ready) == (1, False, False)
    assert "told to crash at start" in canary.exit.tail[-1]


def test_a_missing_key_of_a_secret_is_refused_and_named(stage: Set) -> None:
    """A variable of a Secret that is not there: the instance is refused and says which one."""
    yard = stage(1)
    stable = yard.stable()
    contents = yard.target().contents()
    template = contents.template(stable.release)
    container = {**template["spec"]["containers"][0]}
    container["env"] = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "token"}}}]
    release = contents.admit_template({**template, "spec": {**template["spec"], "containers": [container]}})
    canary = the_canary(yard, stable, Version(release, stable.config), lambda i: i.refused)
    assert "no-such-secret" in canary.refused


def test_a_volume_of_a_missing_key_is_refused_by_its_event_alone(stage: Set) -> None:
    """The status only says ContainerCreating; the event names the key that the candidate's configuration lacks."""
    yard = stage(1, config={"CONFIG_VERSION": "a"})
    stable = yard.stable()
    contents = yard.target().contents()
    template = contents.template(stable.release)
    (volume,) = template["spec"]["volumes"]
    picked = {**volume, "configMap": {**volume["configMap"], "items": [{"key": "absent.conf", "path": "shop.conf"}]}}
    release = contents.admit_template({**template, "spec": {**template["spec"], "volumes": [picked]}})
    canary = the_canary(yard, stable, Version(release, stable.config), lambda i: i.refused)
    assert "non-existent config key" in canary.refused


def test_a_quota_keeps_a_canary_waiting_and_condemns_nobody(stage: Set) -> None:
    """A pod that cannot be created because of a quota is shown as an instance that waits, and says for what."""
    yard = stage(1)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    yard.api.create(f"/api/v1/namespaces/{yard.namespace}/resourcequotas", quota)
    stable = yard.stable()
    canary = the_canary(yard, stable, yard.candidate(stable, {"VERSION": "v2"}), lambda i: i.waiting)
    assert "exceeded quota" in canary.waiting
    assert (canary.refused, canary.loaded, canary.id[-3:]) == ("", None, "-?1")


def test_a_bad_configuration_never_reaches_a_stable_pod(stage: Set) -> None:
    """A crash that only the candidate's configuration brings dooms the canary; the source was never touched."""
    yard = stage(1, config={"CONFIG_VERSION": "a"})
    stable, text = yard.stable(), yard.source()
    candidate = yard.candidate(stable, config=conf(CRASH_AT_START="true"))
    canary = the_canary(yard, stable, candidate, lambda i: i.exits >= 1)
    assert canary.assigned == candidate
    assert yard.source() == text
