"""A guarded Deployment whose drivers die: where they stand, what they saved, what they leave, and what they wrote on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployguard.kube.client import Kube
from deployguard.model.document import Document
from deployguard.model.rollout import Advancing, Analyzing, Holding, Rollout, phase_name
from deployguard.stores.kube import KubeStore
from deployguard.targets.kubernetes import marks
from tests.cluster import build, manifests
from tests.cluster.api import PATIENCE, Api, until
from tests.cluster.fixtures import Service, ready
from tests.cluster.rig import main_version
from tests.cluster.world import POD_ERRORS, ClusterWorld
from tests.e2e.world import Done, Going

Json = dict[str, Any]
STRINGS = "/strings"
CHECK = {**POD_ERRORS, "claims": 50, "limit": "15%", "worse_than_stable": {"ratio": 1.25, "margin": "0.2%", "floor": "1%"}}
BRISK: Json = {
    "stages": [{"instances": 1, "soak": "2s", "limit": "2m"}, {"exposure": "100%", "soak": "2s"}],
    "interval": "500ms",
    "warmup": "1s",
    "pass": "soak",
    "lease": "60s",
    "advance_within": "2m",
    "blind": {"hold_after": "60s", "retreat_after": "5m", "hold_limit": "10m"},
    "rollback": {"within": "90s", "relapse_watch": "1s"},
    "watch": "5m",
}
"""Over in seconds; neither a hold nor a lease comes between a kill and the resume that follows at once."""
WATCHED = [{"instances": 1, "soak": "10m", "limit": "20m"}, {"exposure": "100%", "soak": "2s"}]
"""Stages for a candidate that is to stay where it is."""
OURS = ("deployguard-web", "deployguard-web-inbox", "deployguard-web-ledger-0001", "kube-root-ca.crt")


@dataclass
class Yard:
    """One Deployment in a namespace of its own, and the command. `strings` is a folder that all its pods can read."""

    api: Api
    kube: Kube
    service: Service
    command: ClusterWorld
    strings: Path
    homes: int = 0
    tried: set[str] = field(default_factory=set)

    # The command, on one machine after the other.

    def elsewhere(self) -> None:
        """Commands start on another machine from now on, as far as files go."""
        self.homes += 1
        home = self.command.folder / f"machine-{self.homes}"
        home.mkdir()
        kept = {k: v for k, v in self.command.env.items() if not k.startswith("XDG_") and k != "DEPLOYGUARD_STATE"}
        self.command.env = {**kept, "HOME": str(home)}

    def through(self, kubeconfig: Path) -> None:
        """Commands reach the API server by another address from now on."""
        self.command.env = {**self.command.env, "KUBECONFIG": str(kubeconfig)}

    def guard(self, *checks: Json, **policy: Any) -> Path:
        """A guard file; `policy` replaces fields of `BRISK`."""
        return self.command.guard(*checks, policy={**BRISK, **policy})

    def begin(self, guard: Path, *arguments: str) -> Going:
        """Start `run` with this change."""
        return self.command.begin(guard, *arguments)

    def resume(self, *arguments: str) -> Going:
        """Start `run --resume`."""
        return self.command.start("run", "--resume", "--stay", "0s", "-o", "json", *arguments)

    def cli(self, *arguments: str | Path) -> Done:
        """Run the command to its end."""
        return self.command.cli(*arguments)

    # What is saved.

    def store(self) -> KubeStore:
        """Where it is saved."""
        return KubeStore(self.kube, self.service.namespace, "web")

    def document(self) -> Document:
        """The saved document."""
        found = self.store().load()[0]
        named = [s.version for s in found.stable] + ([found.rollout.candidate, found.rollout.stable] if found.rollout is not None else [])
        self.tried |= {version.release for version in named}
        return found

    def rollout(self) -> Rollout:
        """The saved rollout."""
        found = self.document().rollout
        assert found is not None
        return found

    def phase(self) -> str:
        """The saved phase, with its stage from 1: `analyzing 1`; empty before the first rollout."""
        found = self.document().rollout
        if found is None:
            return ""
        numbered = isinstance(found.phase, (Advancing, Analyzing, Holding))
        return f"{phase_name(found.phase)} {found.phase.stage + 1}" if numbered else phase_name(found.phase)  # type: ignore[union-attr]

    def reaches(self, phase: str, going: Going | None = None) -> None:
        """Wait until the saved phase is this one."""

        def there() -> bool:
            assert going is None or going.process.poll() is None, f"ended before {phase}: {going.err}"
            return self.phase() == phase

        until(f"the phase {phase}", there)

    def watching_one(self, *arguments: str, **policy: Any) -> Going:
        """A run whose candidate serves in one pod, and stays there."""
        going = self.begin(self.guard(**{"stages": WATCHED, **policy}), "--set", "env.VERSION=2", *arguments)
        self.reaches("analyzing 1", going)
        return going

    # What is there.

    def workload(self) -> Json:
        """The Deployment."""
        return self.api.get(self.service.path)

    def canaries(self) -> list[Json]:
        """The canary Deployments that are there and not on their way out."""
        found = self.api.items(f"{self.service.path.rpartition('/')[0]}?labelSelector={marks.CANARY}")
        return [one for one in found if not one["metadata"].get("deletionTimestamp")]

    def exposed(self) -> int:
        """How many candidate pods are wanted beside the Deployment."""
        return sum(one["spec"]["replicas"] for one in self.canaries())

    def pods(self) -> dict[str, tuple[str, int]]:
        """Its own pods that are not on their way out: their uids and restarts by name."""
        return {
            pod["metadata"]["name"]: (pod["metadata"]["uid"], sum(c["restartCount"] for c in pod["status"].get("containerStatuses", [])))
            for pod in self.api.items(f"/api/v1/namespaces/{self.service.namespace}/pods")
            if marks.CANARY not in marks.labels(pod) and not pod["metadata"].get("deletionTimestamp")
        }

    def left(self) -> list[str]:
        """What is there and should not be, once no rollout goes on."""
        core, apps = f"/api/v1/namespaces/{self.service.namespace}", self.service.path.rpartition("/")[0].rpartition("/")[0]
        document, uid = self.document(), marks.uid(self.workload())
        condemned = {bad.digest for bad in document.quarantine}
        kept = {marks.release_name("web", release) for release in self.tried - condemned}
        found = [f"deployment {marks.name(d)}" for d in self.api.items(f"{apps}/deployments") if marks.uid(d) != uid]
        found += [f"replicaset {marks.name(r)}" for r in self.api.items(f"{apps}/replicasets") if marks.owner(r).get("uid") != uid]
        found += [f"pod {marks.name(p)}" for p in self.api.items(f"{core}/pods?labelSelector={marks.CANARY}")]
        found += [f"configmap {marks.name(c)}" for c in self.api.items(f"{core}/configmaps") if marks.name(c) not in {*OURS, *kept}]
        return found + [f"secret {marks.name(s)}" for s in self.api.items(f"{core}/secrets")]

    def is_clean(self, *, copies: bool = True) -> None:
        """Wait until nothing is left behind: neither objects, nor the pace or the ownership of a promotion.

        Without `copies`, what was kept of a condemned version may still be there.
        """
        deadline = time.monotonic() + PATIENCE
        while left := [one for one in self.left() if copies or not one.startswith("configmap web-dg-r-")]:
            assert time.monotonic() < deadline, f"left behind: {', '.join(left)}"
            time.sleep(0.5)
        until("the Deployment is ready", lambda: ready(self.api, self.service))
        workload = self.workload()
        assert "minReadySeconds" not in workload["spec"] or workload["spec"]["minReadySeconds"] == 0
        assert not workload["spec"].get("paused")
        ours = [e["fieldsV1"] for e in workload["metadata"]["managedFields"] if e["manager"] == "deployguard"]
        assert all(set(fields) == {"f:metadata"} for fields in ours)
        assert marks.fence_of(workload) <= self.document().fence, "the workload follows a fence that was never saved"

    def runs(self, key: str, value: str) -> bool:
        """Whether the Deployment's template has this environment variable."""
        env = self.workload()["spec"]["template"]["spec"]["containers"][0].get("env") or []
        return any(one["name"] == key and one.get("value") == value for one in env)

    def pull(self, name: str, **settings: object) -> None:
        """Pods whose `CONFIG` names these strings behave so from now on."""
        path = self.strings / name
        path.with_suffix(".new").write_text(manifests.lines(settings))
        path.with_suffix(".new").replace(path)


def kill(going: Going) -> bool:
    """The command gets SIGKILL; False when it had ended by itself."""
    going.signal(signal.SIGKILL)
    return going.process.wait() == -signal.SIGKILL


def deployed(api: Api, namespace: str, replicas: int, strings: Path | None = None, **more: Any) -> Service:
    """The shop, whose pods may read the folder `strings` of this machine."""
    body = manifests.shop("Deployment", "web", replicas=replicas, **more)
    if strings is not None:
        pod = body["spec"]["template"]["spec"]
        pod["volumes"] = [{"name": "strings", "hostPath": {"path": str(strings), "type": "Directory"}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "strings", "mountPath": STRINGS}]
        pod["containers"][0]["env"].append({"name": "CONFIG", "value": f"{STRINGS}/quiet"})
    base = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    service = api.create(f"/api/v1/namespaces/{namespace}/services", manifests.service("web"))
    api.create(base, body)
    return Service("Deployment", "web", namespace, service["spec"]["clusterIP"], f"{base}/web")


@dataclass(frozen=True)
class Seen:
    """One state of a Deployment that the API server told of."""

    name: str
    uid: str
    fence: int
    replicas: int
    template: str


class History:
    """Every state that the Deployments of a namespace went through, as the API server tells those who watch."""

    def __init__(self, text: str) -> None:
        self.states: list[Seen] = []
        reader, at = json.JSONDecoder(), 0
        while (at := text.find("{", at)) >= 0:
            try:
                event, at = reader.raw_decode(text, at)
            except ValueError:
                break
            obj = event["object"]
            if event["type"] in ("ADDED", "MODIFIED") and not obj["metadata"].get("deletionTimestamp"):
                template = json.dumps(obj["spec"]["template"], sort_keys=True)
                self.states.append(Seen(marks.name(obj), marks.uid(obj), marks.fence_of(obj), obj["spec"]["replicas"], template))

    def never_went_back(self) -> int:
        """Fails when a fence went back, or when a canary was exposed under a fence that the workload did not carry before. The highest."""
        highest: dict[str, int] = {}
        for state in self.states:
            assert state.fence >= highest.get(state.uid, 0), f"the fence of {state.name} went from {highest[state.uid]} to {state.fence}"
            highest[state.uid] = state.fence
        return max(highest.values(), default=0)


@contextmanager
def watched(kubeconfig: Path, namespace: str, place: Path) -> Iterator[Callable[[], History]]:
    """Somebody watches the Deployments; call it for what was seen so far."""
    words = ["-n", namespace, "get", "deployments", "--watch", "--output-watch-events", "-o", "json"]
    program = build.binary(main_version(), "kubectl")
    with place.open("wb") as out:
        watcher = subprocess.Popen([program, "--kubeconfig", kubeconfig, *words], stdout=out, stderr=subprocess.DEVNULL)
    try:
        yield lambda: History(place.read_text())
    finally:
        watcher.kill()
        watcher.wait()


def as_root() -> bool:
    """Whether this process may take other host names."""
    return os.geteuid() == 0


def pause(seconds: float, always: Callable[[], None], going: Going) -> None:
    """Wait, and look around all the time; no longer than the command runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and going.process.poll() is None:
        always()
        time.sleep(0.05)
