"""The rights that `install --ci` prints: a pipeline with them and nothing else rolls out, goes back and reaps; and none is too many."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployguard.cli import app as cli
from deployguard.kube.paths import place
from deployguard.kube.transport import Transport
from deployguard.report.rbac import allows, pipeline_rules, reaper_rules
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, Deploy
from tests.cluster.load import Load
from tests.contracts.kube.test_reap_command import canary

pytestmark = pytest.mark.cluster

GUARD = """
apiVersion: deployguard.dev/v1alpha1
kind: Guard
metadata: {name: web}
spec:
  target: {kind: Deployment, name: web, service: web}
  config:
    - {kind: ConfigMap, name: web-config}
    - {kind: Secret, name: web-keys}
  policy:
    stages: [{instances: 1, soak: 3s}, {exposure: 100%, soak: 2s}]
    pass: soak
    warmup: 1s
    watch: 1s
    checks:
      - {name: errors, source: scrape, bad: 'http_requests_total{code=~"5.."}', total: http_requests_total, claims: 100, required: false}
      - {name: journey, source: probe, steps: [{get: /login, expect: {status: 200}}]}
      - {name: lines, source: logs, bad: ERROR, required: false}
"""
STATEFUL = """
apiVersion: deployguard.dev/v1alpha1
kind: Guard
metadata: {name: db}
spec:
  target: {kind: StatefulSet, name: db}
  policy:
    stages: [{instances: 1, soak: 5m}, {exposure: 100%, soak: 2s}]
    pass: soak
    lease: 10s
    checks:
      - {name: errors, source: scrape, bad: 'http_requests_total{code=~"5.."}', total: http_requests_total, required: false}
"""
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
UNUSED = {
    ("create", "", "pods/proxy"): "a probe's POST",
    ("create", "", "services/proxy"): "a probe's POST",
    ("get", "", "pods"): "an instance that did not take the stable version back is started again",
    ("delete", "", "pods"): "the same",
    ("delete", "", "secrets"): "copies that no version names go an hour after they were made",
}
"""Granted for what the rollouts of this test do not come to."""

Asked = set[tuple[str, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every verb, group and resource that was asked of the API server in this process."""
    found: Asked = set()
    real = Transport.send

    def send(self: Transport, method: str, path: str, **more: Any) -> Any:
        thing = place(path.partition("?")[0])
        verb = VERBS.get(method, "get" if thing.name else "list")
        found.add((verb, thing.group, "/".join(part for part in (thing.resource, thing.sub.partition("/")[0]) if part)))
        return real(self, method, path, **more)

    monkeypatch.setattr(Transport, "send", send)
    return found


def printed(*words: str) -> list[dict[str, Any]]:
    """The objects that `install` prints."""
    import yaml

    command = [sys.executable, "-m", "deployguard", "install", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


def applied(api: Api, objects: list[dict[str, Any]]) -> None:
    """The objects are there."""
    plurals = {"ServiceAccount": "serviceaccounts", "Role": "roles", "RoleBinding": "rolebindings", "CronJob": "cronjobs"}
    for one in objects:
        version = one["apiVersion"]
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        api.create(f"{root}/namespaces/{one['metadata']['namespace']}/{plurals[one['kind']]}", one)


def test_the_printed_rights_suffice_and_none_is_too_many(
    cluster: Cluster,
    api: Api,
    deploy: Deploy,
    load: Callable[..., Load],
    namespace: str,
    asked: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the printed account: a release with a ConfigMap and a Secret is promoted, a doomed one goes back; every verb was needed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    web = deploy("web", 2, config={"ERROR_RATE": 0.0})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-keys"}, "data": {"a": base64.b64encode(b"1").decode()}}
    api.create(f"/api/v1/namespaces/{namespace}/secrets", secret)
    load(web, 20)
    applied(api, printed("--ci", "-n", namespace, "--kinds", "deployment", "--secrets", "web-keys"))
    guard = tmp_path / "guard.yaml"
    guard.write_text(GUARD)
    (tmp_path / "shop.conf").write_text("ERROR_RATE=0.0\nNEW=1\n")
    (tmp_path / "a").write_text("2")
    account = f"system:serviceaccount:{namespace}:deployguard"
    place_of = ["-n", namespace, "--kubeconfig", str(cluster.kubeconfig), "--as", account]

    def run(*words: str) -> int:
        return cli.run([*words, *place_of])

    change = ["--config", f"ConfigMap/web-config={tmp_path / 'shop.conf'}", "--config", f"Secret/web-keys={tmp_path / 'a'}"]
    assert run("plan", "-f", str(guard), "--set", "env.VERSION=v2") == 0
    assert run("run", "-f", str(guard), "--set", "env.VERSION=v2", *change, "--watch", "--timeout", "2m") == 0, capsys.readouterr().err
    guard.write_text(GUARD.replace(", service: web", ""))
    assert run("run", "-f", str(guard), "--set", "env.CRASH_AT_START=1", "--stay", "0s", "--timeout", "2m") == 10, capsys.readouterr().err
    assert run("status") == 0
    assert "forbidden" not in capsys.readouterr().err.lower()

    rules = pipeline_rules(["Deployment"], ["web-keys"])
    assert not {one for one in asked if not allows(rules, *one)}
    given = {(verb, rule.group, resource) for rule in rules for verb in rule.verbs for resource in rule.resources}
    assert given - asked <= set(UNUSED), json.dumps(sorted(given - asked - set(UNUSED)))


def granted(*kinds: str) -> Asked:
    """What the reaper's account may do."""
    return {(verb, rule.group, resource) for rule in reaper_rules(kinds) for verb in rule.verbs for resource in rule.resources}


def test_the_reaper_runs_with_its_own_rights_alone(
    cluster: Cluster, api: Api, deploy: Deploy, namespace: str, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the reaper's account a lapsed canary is taken back, and each of its verbs was needed; what it may not look at it leaves out."""
    web = deploy("web", 1)
    applied(api, printed("--reaper", "-n", namespace, "--image", "localhost/deployguard-shop:1", "--kinds", "deployment"))
    canary(api, web.path, "web-dg-lapsed", 1_700_000_000)
    api.merge(web.path, {"metadata": {"labels": {"deployguard.dev/fence": "7"}}})
    account = f"system:serviceaccount:{namespace}:deployguard-reaper"
    assert cli.run(["reap", "-n", namespace, "--kubeconfig", str(cluster.kubeconfig), "--as", account]) == 0, capsys.readouterr().err
    assert "web-dg-lapsed" in capsys.readouterr().out
    others = {("list", "apps", "statefulsets"), ("list", "apps", "daemonsets")}
    assert asked - others == granted("Deployment")


def test_the_reaper_takes_back_a_statefulsets_candidates_with_its_rights(
    cluster: Cluster, api: Api, deploy: Deploy, namespace: str, asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline is killed while a StatefulSet's last pod runs a candidate that is never ready; the reaper's account ends that pod."""
    deploy("db", 2, kind="StatefulSet")
    applied(api, printed("--ci", "--reaper", "-n", namespace, "--image", "localhost/deployguard-shop:1", "--kinds", "deployment,sts"))
    guard = tmp_path / "guard.yaml"
    guard.write_text(STATEFUL)
    where = ["-n", namespace, "--kubeconfig", str(cluster.kubeconfig), "--as"]
    command = [sys.executable, "-m", "deployguard", "run", "-f", str(guard), "--set", "env.VERSION=v2", "--set", "env.NEVER_READY=1"]
    account = f"system:serviceaccount:{namespace}:deployguard"
    driver = subprocess.Popen([*command, *where, account], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("the candidate runs", lambda: {"v2"} <= versions(api, namespace))
    finally:
        driver.kill()
        driver.wait(30)
    reaper = f"system:serviceaccount:{namespace}:deployguard-reaper"
    assert cli.run(["reap", "--for", "30s", "--every", "2s", *where, reaper]) == 0, capsys.readouterr().err
    assert "StatefulSet/db" in capsys.readouterr().out
    until("only stable pods are left", lambda: versions(api, namespace) == {""})
    assert asked - {("list", "apps", "daemonsets")} == granted("Deployment", "StatefulSet") - {
        ("get", "apps", "deployments"),
        ("patch", "apps", "deployments"),
        ("delete", "apps", "deployments"),
    }


def versions(api: Api, namespace: str) -> set[str]:
    """What the pods of the namespace are told to be, by their variable VERSION."""
    pods = [p for p in api.items(f"/api/v1/namespaces/{namespace}/pods") if "deletionTimestamp" not in p["metadata"]]
    found = ({one["name"]: one.get("value", "") for one in p["spec"]["containers"][0].get("env", [])} for p in pods)
    return {one.get("VERSION", "") for one in found}
