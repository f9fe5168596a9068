"""Nodes without a machine: objects whose pods are started, failed and ended by hand, as a kubelet would write it.

The cluster of the tests has one real node, and pools need several. Schedulers and controllers are the real ones.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.api import Api

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_EVERY = 0.15


@dataclass
class HandmadeNodes:
    """Nodes that only pods of one namespace can come to, by their label `dgt`; `pools` are the nodes' names and pools."""

    api: Api
    namespace: str
    pools: dict[str, str]
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """They are there, and their pods live."""
        for name, pool in self.pools.items():
            self._make(self.full(name), pool)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """They are gone, with the pods that are left on them."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(30)
        for name in self.pools:
            self.api.delete(f"/api/v1/nodes/{self.full(name)}")
            self.api.delete(f"{_LEASES}/{self.full(name)}")

    def full(self, name: str) -> str:
        """A node's own name: nodes belong to no namespace."""
        return f"{self.namespace}-{name}"

    def fits(self, workload: dict[str, Any]) -> dict[str, Any]:
        """A workload whose pods run on these nodes and on no other."""
        spec = workload["spec"]["template"]["spec"]
        spec["nodeSelector"] = {"dgt": self.namespace}
        spec["tolerations"] = [{"operator": "Exists"}]
        return workload

    def _make(self, name: str, pool: str) -> None:
        labels = {"dgt": self.namespace, "pool": pool, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        taints = [{"key": "dgt", "value": self.namespace, "effect": "NoSchedule"}]
        meta = {"name": name, "labels": labels}
        self.api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints}})
        self.api.create(
            _LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": _lease(name)}
        )
        room = {"cpu": "8", "memory": "8Gi", "pods": "20"}
        now = _now()
        ready = {"type": "Ready", "status": "True", "reason": "Handmade", "lastHeartbeatTime": now, "lastTransitionTime": now}
        self.api.merge(f"/api/v1/nodes/{name}/status", {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}})

    def _live(self) -> None:
        beats = 0
        while not self._ended.wait(_EVERY):
            beats += 1
            if beats % 40 == 0:
                for name in self.pools:
                    self.api.merge(f"{_LEASES}/{self.full(name)}", {"spec": _lease(self.full(name))})
            self._tend()
        self._tend(all_of_them=True)

    def _tend(self, *, all_of_them: bool = False) -> None:
        mine = {self.full(name) for name in self.pools}
        for pod in self.api.items(f"/api/v1/namespaces/{self.namespace}/pods"):
            if pod["spec"].get("nodeName") not in mine:
                continue
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
            if all_of_them or pod["metadata"].get("deletionTimestamp"):
                self.api.ask("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
            elif not pod["status"].get("startTime"):
                self.api.ask("PATCH", f"{path}/status", {"status": _status(pod)}, "application/merge-patch+json")


def _status(pod: dict[str, Any]) -> dict[str, Any]:
    """What a kubelet would write of a pod of the shop, told by its environment."""
    container, now = pod["spec"]["containers"][0], _now()
    env = {one["name"]: one.get("value", "") for one in container.get("env") or []}
    ready = "NEVER_READY" not in env and "CRASH_AT_START" not in env
    one: dict[str, Any] = {"name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "restartCount": 0}
    one["state"] = {"running": {"startedAt": now}}
    if "CRASH_AT_START" in env:
        one["restartCount"] = 1
        one["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}}
        one["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    word = "True" if ready else "False"
    kinds = {"PodScheduled": "True", "Initialized": "True", "ContainersReady": word, "Ready": word}
    conditions = [{"type": kind, "status": value, "lastTransitionTime": now} for kind, value in kinds.items()]
    address = {"podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}]}
    return {"phase": "Running", "startTime": now, "conditions": conditions, "containerStatuses": [one], **address}


def _lease(name: str) -> dict[str, Any]:
    return {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
