"""`deployguard init` on a real cluster: what runs there is seen, and the guard that comes out fits it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployguard.files.guard_file import load_bundle, resolve
from tests.cluster.fixtures import Cluster, Deploy, Service
from tests.cluster.load import Load

pytestmark = pytest.mark.cluster


def init(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `deployguard init`."""
    command = [sys.executable, "-m", "deployguard", "init", *words, "--kubeconfig", str(cluster.kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_guard_is_written_for_what_runs(
    cluster: Cluster, deploy: Deploy, load: Callable[..., Load], namespace: str, tmp_path: Path
) -> None:
    """Replicas, the mounted ConfigMap, the request counter, the histogram and the traffic of a Deployment are in its guard."""
    web: Service = deploy("web", 2, config={"ERROR_RATE": 0.0})
    load(web, 30)
    path = tmp_path / "guard.yaml"
    done = init(cluster, "deploy/web", "-n", namespace, "-o", str(path), "--for", "3s")
    assert done.returncode == 0, done.stderr
    resolved = resolve(None, load_bundle([path]))
    assert [(c.kind, c.name) for c in resolved.guard.spec.config] == [("ConfigMap", "web-config")]
    assert [c.name for c in resolved.policy.checks] == ["errors", "latency"]
    assert resolved.policy_name == "production"
    assert "2 of 2 pods are ready" in path.read_text()

    again = init(cluster, "deploy/web", "-n", namespace, "-o", str(path), "--for", "0s")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_a_name_that_is_not_there_is_met_with_those_that_are(cluster: Cluster, deploy: Deploy, namespace: str) -> None:
    """A misspelt workload is a mistake of the command line, and the nearest one is offered."""
    deploy("web", 1)
    done = init(cluster, "deploy/wep", "-n", namespace)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean `web`?" in done.stderr
