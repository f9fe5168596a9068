"""A Deployment that people deploy by tools of their own, with deployguard's command beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import manifests
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, Service, ready
from tests.cluster.images import SHOP
from tests.cluster.world import ClusterWorld
from tests.e2e.world import Done, Going

MARK = "deployguard.dev/"
CANARY = MARK + "canary"
WALK = {"name": "journey", "source": "probe", "every": "500ms", "timeout": "5s", "steps": [{"get": "/login", "expect": {"status": 200}}]}
"""The check of these tests: what they show does not depend on how many users come."""
QUICK: dict[str, Any] = {
    "stages": [{"instances": 1, "soak": "2s", "limit": "2m"}, {"exposure": "100%", "soak": "1s"}],
    "interval": "500ms",
    "warmup": "1s",
    "pass": "soak",
    "lease": "60s",
    "advance_within": "90s",
    "blind": {"hold_after": "30s", "retreat_after": "2m", "hold_limit": "5m"},
    "rollback": {"within": "60s", "relapse_watch": "1s"},
    "watch": "1s",
}
"""Over in seconds, and patient with a busy machine."""
IN_STAGE = {**QUICK, "stages": [{"instances": 1, "soak": "5m"}, {"exposure": "100%", "soak": "1s"}]}
IN_PROMOTION = {**QUICK, "stages": [{"instances": 1, "soak": "1s"}, {"exposure": "100%", "soak": "5m"}]}
IN_WATCH = {**QUICK, "watch": "5m"}
Helm = Callable[..., subprocess.CompletedProcess[str]]
Writer = Callable[["Yard", int], None]
"""Somebody's way to deploy a version."""


@dataclass
class Yard:
    """The Deployment `web` of a namespace of its own; `spec` holds more of its fields, `more` more of its container's environment."""

    cluster: Cluster
    api: Api
    command: ClusterWorld
    folder: Path
    replicas: int = 2
    spec: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    made: int = 0

    @property
    def namespace(self) -> str:
        return self.command.namespace

    @property
    def path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/web"

    # What users write, and by what.

    def manifest(self, version: int, **env: Any) -> dict[str, Any]:
        """The user's manifest of a version: its image, and its name in the environment."""
        said = {"VERSION": version, **env}
        made = manifests.shop(
            "Deployment", "web", replicas=self.replicas, image=f"{SHOP}:{version}", env=said, config=self.config, **self.spec
        )
        made["metadata"]["namespace"] = self.namespace
        return made

    def file(self, *objects: dict[str, Any], name: str = "") -> Path:
        """Objects as a file."""
        self.made += 1
        path = self.folder / (name or f"manifest-{self.made}.yaml")
        path.write_text("\n---\n".join(json.dumps(one, indent=1) for one in objects))
        return path

    def kubectl(self, *words: str | Path) -> str:
        """What kubectl says."""
        done = self.cluster.kubectl("-n", self.namespace, *map(str, words), check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def service(self) -> None:
        """Users come by a Service."""
        self.api.create(f"/api/v1/namespaces/{self.namespace}/services", manifests.service("web"))

    def source(self, text: str) -> None:
        """The ConfigMap that the Deployment mounts holds this, by `kubectl apply`."""
        made = manifests.configmap("web-config", {manifests.CONFIG_FILE: text})
        self.kubectl("apply", "-f", self.file(made))

    def held(self) -> str:
        """What the ConfigMap holds."""
        return str(self.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps/web-config")["data"][manifests.CONFIG_FILE])

    # What is there.

    def workload(self) -> dict[str, Any]:
        return self.api.get(self.path)

    def image(self) -> str:
        """The tag of the image that the template names."""
        return str(self.workload()["spec"]["template"]["spec"]["containers"][0]["image"]).rpartition(":")[2]

    def settled(self) -> None:
        """Every pod is of the newest template and Ready."""
        until("web is rolled out", lambda: ready(self.api, Service("Deployment", "web", self.namespace, "", self.path)))

    def deployments(self) -> list[dict[str, Any]]:
        return self.api.items(f"/apis/apps/v1/namespaces/{self.namespace}/deployments")

    def canaries(self) -> list[dict[str, Any]]:
        return [one for one in self.deployments() if CANARY in (one["metadata"].get("labels") or {})]

    def pods(self) -> dict[str, str]:
        """The image's tag of every pod that stays, by its uid."""
        found = self.api.items(f"/api/v1/namespaces/{self.namespace}/pods")
        alive = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
        return {pod["metadata"]["uid"]: pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in alive}

    def ours(self) -> list[str]:
        """The fields of the Deployment that are deployguard's by its managed fields, without the marks in its metadata."""
        entries = self.workload()["metadata"]["managedFields"]
        return [name for one in entries if one["manager"] == "deployguard" for name in one["fieldsV1"] if name != "f:metadata"]

    # deployguard.

    def guard(self, policy: dict[str, Any], **more: Any) -> Path:
        return self.command.guard(WALK, policy=policy, **more)

    def begin(self, policy: dict[str, Any], *change: str | Path, **more: Any) -> Going:
        """`run`, going on."""
        return self.command.begin(self.guard(policy, **more), *change)

    def run(self, policy: dict[str, Any], *change: str | Path, **more: Any) -> Done:
        """`run` to its end."""
        return self.begin(policy, *change, **more).end()

    def piped(self, text: str, *words: str | Path) -> Done:
        """A command to its end, with this on its standard input."""
        whole = [sys.executable, "-m", "deployguard", *map(str, words), "--namespace", self.namespace]
        done = subprocess.run(whole, input=text, capture_output=True, text=True, env=self.command.env, timeout=200, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def phase(self) -> tuple[str, int]:
        """The word of the saved rollout's phase and its stage, from 0; empty while there is none."""
        said = self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/configmaps/deployguard-web")
        if said.status != 200:
            return "", 0
        rollout = json.loads(said.body["data"]["document"]).get("rollout") or {}
        return rollout.get("phase", {}).get("phase", ""), rollout.get("phase", {}).get("stage", 0)

    def at(self, going: Going, *wanted: tuple[str, int]) -> None:
        """The rollout has come to one of these phases."""

        def there() -> bool:
            assert going.process.poll() is None, going.err
            return self.phase() in wanted

        until(f"one of {wanted}", there, 60.0)


def chart(folder: Path, manifest: dict[str, Any]) -> Path:
    """A Helm chart of the Deployment alone, with its version as a value."""
    place = folder / "chart"
    (place / "templates").mkdir(parents=True, exist_ok=True)
    (place / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 1.0.0\n")
    body = {**manifest, "metadata": {"name": "web"}}
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["image"] = f"{SHOP}:{{{{ .Values.version }}}}"
    next(one for one in container["env"] if one["name"] == "VERSION")["value"] = "{{ .Values.version }}"
    (place / "templates" / "web.yaml").write_text(json.dumps(body, indent=1))
    return place


def apply(yard: Yard, version: int) -> None:
    """`kubectl apply`, client side."""
    yard.kubectl("apply", "-f", yard.file(yard.manifest(version)))


def server_side(yard: Yard, version: int) -> None:
    """A server-side apply by a manager of its own, without force."""
    yard.kubectl("apply", "--server-side", "--field-manager", "flux", "-f", yard.file(yard.manifest(version)))


def set_image(yard: Yard, version: int) -> None:
    """`kubectl set image`; the first version by `kubectl create`."""
    if version == 1:
        yard.kubectl("create", "-f", yard.file(yard.manifest(1)))
    else:
        yard.kubectl("set", "image", "deployment/web", f"shop={SHOP}:{version}")


def helm_upgrade(helm: Helm) -> Writer:
    """`helm upgrade --install --wait`."""

    def write(yard: Yard, version: int) -> None:
        place = chart(yard.folder, yard.manifest(1))
        options = ["--wait", "--timeout", "100s"] if version > 1 else []
        done = helm(
            "upgrade", "--install", "web", str(place), "-n", yard.namespace, "--set-string", f"version={version}", *options, check=False
        )
        assert done.returncode == 0, done.stderr

    return write
