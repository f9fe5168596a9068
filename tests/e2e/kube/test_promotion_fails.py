"""A release that turns bad when half of the pods run it: stable comes back everywhere, and so do the owner's settings."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cluster.api import until
from tests.cluster.world import POD_ERRORS
from tests.e2e.kube.shop import Open, Shop, quick

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
REPLICAS = 4
STAGES = [{"instances": 1, "soak": "3s", "limit": "2m"}, {"exposure": "100%", "soak": "2m"}]


def test_a_fault_in_the_middle_of_a_promotion(shop: Open, tmp_path: Path) -> None:
    """The Deployment goes back by its own rolling update, and is paced and paused as its owner had it; users then see stable alone."""
    trap = tmp_path / "trap"
    trap.mkdir()
    web = shop(REPLICAS, env={"VERSION": "1"}, minReadySeconds=1)
    _mount(web, trap)
    web.kubectl("rollout", "pause", "deployment/web")
    owned = web.owned()
    guard = web.world.guard({**POD_ERRORS, "claims": 50}, policy=quick(stages=STAGES))
    going = web.world.begin(guard, "--set", "env.VERSION=2", "--set", "env.CONFIG=/trap/conf")
    until("half of the pods are new", lambda: web.workload()["status"].get("updatedReplicas", 0) >= REPLICAS // 2 and _of_two(web))
    (trap / "conf").write_text("ERROR_RATE=0.3\nVERSION=2\n")
    done = going.end()
    assert done.code == 10, done.err
    web.nothing_left()
    until("the Deployment is its owner's again", lambda: web.owned() == owned)
    assert len(web.pods()) == REPLICAS
    since = time.time()
    until("users come again", lambda: len(web.users.of_version("1", since)) > 50)
    assert not web.users.of_version("2", since)
    assert not web.users.bad(since)
    assert "errors" in web.why()


def _of_two(web: Shop) -> bool:
    """Whether pods of the workload itself run the candidate: they are made from its own template."""
    env = web.spec()["template"]["spec"]["containers"][0].get("env", [])
    return {"name": "VERSION", "value": "2"} in env


def _mount(web: Shop, trap: Path) -> None:
    """Every pod sees a directory of the node; only the candidate reads a file there."""
    pod = {
        "volumes": [{"name": "trap", "hostPath": {"path": str(trap), "type": "Directory"}}],
        "containers": [{"name": "shop", "volumeMounts": [{"name": "trap", "mountPath": "/trap"}]}],
    }
    web.kubectl("patch", "deployment", "web", "-p", json.dumps({"spec": {"template": {"spec": pod}}}))
    web.settled()
