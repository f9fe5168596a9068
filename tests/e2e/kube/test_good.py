"""Deployments of all sorts: a good release goes everywhere and leaves the owner's settings alone, a bad one goes nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.world import POD_ERRORS
from tests.e2e.conftest import Tell
from tests.e2e.kube.shop import Open, Shop, quick

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
CHECK = {**POD_ERRORS, "claims": 50}
ZERO_DOWN: dict[str, Any] = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}


def promoted(shop: Shop) -> None:
    """A good release is promoted: its pods and no others run, nothing but the template has changed, and no user was refused."""
    before, pods, began = shop.owned(), shop.pods(), len(shop.users.answers)
    done = shop.run("--set", "env.VERSION=2", checks=(CHECK,), policy=quick())
    assert done.code == 0, done.err
    shop.nothing_left()
    shop.settled()
    after = shop.owned()
    env = after["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "VERSION", "value": "2"} in env
    assert {**after, "spec": {**after["spec"], "template": None}} == {**before, "spec": {**before["spec"], "template": None}}
    assert len(shop.pods()) == len(pods)
    assert not set(shop.pods()) & set(pods)
    assert not [answer for answer in shop.users.answers[began:] if answer.status >= 500], shop.users.summary()
    assert shop.users.of_version("2")
    story = shop.described()
    assert "CanaryExposed" in story
    assert "Promoted" in story


def taken_back(shop: Shop) -> None:
    """A bad release that follows it is taken back, and the pods of the good one never notice."""
    with shop.unharmed():
        done = shop.run("--set", "env.CRASH_AT_START=1")
    assert done.code == 10, done.err
    assert "ERROR told to crash at start" in shop.why()


def test_a_good_release_reaches_every_pod(shop: Open, tell: Tell) -> None:
    """A Deployment of three, stage by stage, under load."""
    web = shop(3, env={"VERSION": "1"})
    promoted(web)
    tell(web.users.summary())


def test_one_pod_that_must_never_be_missing(shop: Open) -> None:
    """With one replica, maxUnavailable 0, a disruption budget and an autoscaler: a good release and a bad one."""
    web = shop(1, env={"VERSION": "1"}, **ZERO_DOWN)
    web.kubectl("autoscale", "deployment/web", "--min=1", "--max=3", "--cpu=80%")
    web.kubectl("create", "pdb", "web", "--selector=app=web", "--min-available=1")
    promoted(web)
    taken_back(web)
    assert web.spec()["replicas"] == 1


def test_a_paused_deployment(shop: Open) -> None:
    """A Deployment that its owner keeps paused is promoted, is paused afterwards, and takes a bad release back as any other."""
    web = shop(2, env={"VERSION": "1"})
    web.kubectl("rollout", "pause", "deployment/web")
    promoted(web)
    assert web.spec()["paused"] is True
    taken_back(web)
