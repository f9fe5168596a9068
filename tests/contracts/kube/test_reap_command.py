"""`deployguard reap` on a real cluster: a canary without a driver goes, one that is driven stays, and stable pods are not touched."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster, Deploy

pytestmark = pytest.mark.cluster


def reap(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `deployguard reap`."""
    command = [sys.executable, "-m", "deployguard", "reap", *words, "--kubeconfig", str(cluster.kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def canary(api: Api, path: str, name: str, until: float) -> dict[str, Any]:
    """A canary of the Deployment at `path` that is driven until then."""
    owner = api.get(path)
    spec = copy.deepcopy(owner["spec"])
    spec["selector"]["matchLabels"]["canary"] = spec["template"]["metadata"]["labels"]["canary"] = name
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    metadata = {
        "name": name,
        "labels": {"deployguard.dev/canary": owner["metadata"]["name"], "deployguard.dev/driven-until": str(int(until))},
        "ownerReferences": [{**reference, "controller": True}],
    }
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {**spec, "replicas": 1}}
    made: dict[str, Any] = api.create(path.rpartition("/")[0], body)
    return made


def test_what_nobody_drives_is_taken_back(cluster: Cluster, api: Api, deploy: Deploy, namespace: str) -> None:
    """The lapsed canary is deleted and told of; the driven one, the Deployment and its pods are as they were."""
    web = deploy("web", 1)
    pods = {p["metadata"]["uid"] for p in api.items(f"/api/v1/namespaces/{namespace}/pods")}
    canary(api, web.path, "web-dg-driven", time.time() + 600)
    canary(api, web.path, "web-dg-lapsed", time.time() - 5)

    done = reap(cluster, "-n", namespace, "-o", "json")

    assert done.returncode == 0, done.stderr
    assert [(row["canary"], row["replicas"]) for row in json.loads(done.stdout)] == [("web-dg-lapsed", 1)]
    left = {d["metadata"]["name"] for d in api.items(web.path.rpartition("/")[0]) if "deletionTimestamp" not in d["metadata"]}
    assert left == {"web", "web-dg-driven"}
    assert pods <= {p["metadata"]["uid"] for p in api.items(f"/api/v1/namespaces/{namespace}/pods")}
    again = reap(cluster, "-n", namespace, "--for", "2s", "--every", "1s")
    assert (again.returncode, again.stdout) == (0, "")
    assert "is without a driver" in again.stderr


def test_a_cluster_that_is_not_there_is_an_error(cluster: Cluster, namespace: str) -> None:
    """The reaper that could not look says so with its exit code, so that its CronJob shows it."""
    done = reap(cluster, "-n", namespace, "--as", "nobody")
    assert done.returncode == 1
    assert "deployments" in done.stderr
