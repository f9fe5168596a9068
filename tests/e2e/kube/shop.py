"""A shop in the cluster as its owner sees it: its pods, its objects, what was left behind, and what is told of it."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import manifests
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, Service, deployed, reachable, ready
from tests.cluster.load import Load
from tests.cluster.world import POD_ERRORS, ClusterWorld
from tests.e2e.world import QUICK, Done

RATE = 50
CANARY = "deployguard.dev/canary"
LATENCY = {"name": "latency", "source": "scrape", "histogram": "http_request_duration_seconds"}
STAYS = {"stages": [{"instances": 1, "soak": "5m"}, {"exposure": "100%", "soak": "2s"}]}
"""Stages for what is to be judged bad: the soak never ends before the evidence is there."""

Json = dict[str, Any]


@dataclass
class Shop:
    """A guarded Deployment with users, and the command."""

    cluster: Cluster
    api: Api
    service: Service
    world: ClusterWorld
    users: Load

    @property
    def core(self) -> str:
        return f"/api/v1/namespaces/{self.service.namespace}"

    def run(self, *words: str | Path, checks: tuple[Json, ...] = (POD_ERRORS,), policy: Any = "fast", **more: Any) -> Done:
        """A change under guard, to its end."""
        return self.world.run(self.world.guard(*checks, policy=policy, **more), *words)

    def workload(self) -> Json:
        return self.api.get(self.service.path)

    def spec(self) -> Json:
        """What its owner asked for."""
        found: Json = self.workload()["spec"]
        return found

    def pods(self) -> dict[str, tuple[str, int]]:
        """Its own pods that are not on their way out: their uids and restarts by name."""
        return {
            p["metadata"]["name"]: (p["metadata"]["uid"], sum(c["restartCount"] for c in p["status"].get("containerStatuses", [])))
            for p in self.api.items(f"{self.core}/pods")
            if CANARY not in p["metadata"].get("labels", {}) and not p["metadata"].get("deletionTimestamp")
        }

    def left(self) -> list[str]:
        """What of a canary is still there."""
        path = f"/apis/apps/v1/namespaces/{self.service.namespace}"
        marked = f"?labelSelector={CANARY}"
        collections = (f"{path}/deployments", f"{path}/replicasets", f"{self.core}/pods")
        return [one["metadata"]["name"] for place in collections for one in self.api.items(f"{place}{marked}")]

    def copies(self) -> set[str]:
        """Copies of configuration that pods could mount."""
        return {one["metadata"]["name"] for one in self.api.items(f"{self.core}/configmaps?labelSelector=deployguard.dev/content=copy")}

    def why(self) -> str:
        """The evidence as a person reads it."""
        done = self.world.cli("why")
        assert done.code == 0, done.err
        return done.out

    def described(self) -> str:
        """What `kubectl describe` tells of the Deployment's story."""
        whole = self.cluster.kubectl("-n", self.service.namespace, "describe", "deployment", self.service.name).stdout
        return whole.partition("\nEvents:")[2]

    def owned(self) -> Json:
        """What belongs to its owner: the specs of the Deployment and the content of its configuration."""
        kept = {"replicas", "selector", "template", "minReadySeconds", "paused", "strategy"}
        spec = {key: value for key, value in self.spec().items() if key in kept}
        sources = [
            (one["kind"], one["metadata"]["name"], one.get("data"))
            for place, kind in ((f"{self.core}/configmaps", "ConfigMap"), (f"{self.core}/secrets", "Secret"))
            for one in ({"kind": kind, **found} for found in self.api.items(place))
            if "deployguard" not in one["metadata"]["name"] and not any("deployguard" in key for key in one["metadata"].get("labels", {}))
        ]
        return {"spec": spec, "sources": sources}

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Whatever is tried meanwhile: the same pods run afterwards, none was restarted, all is its owner's again, and nothing is left."""
        pods, owned = self.pods(), self.owned()
        yield
        self.nothing_left()
        assert self.pods() == pods
        assert self.owned() == owned
        assert len(self.copies()) <= len(owned["sources"]), self.copies()

    def kubectl(self, *words: str) -> str:
        return self.cluster.kubectl("-n", self.service.namespace, *words).stdout

    def settled(self) -> None:
        """Wait until all pods are of the newest template, ready, and none is on its way out."""
        until("the Deployment is ready", lambda: ready(self.api, self.service))

    def nothing_left(self) -> None:
        """Wait until nothing of any canary is there."""
        until("nothing of a canary is left", lambda: not self.left())

    def file(self, source: str, **keys: str) -> str:
        """A ConfigMap or Secret as it shall be, for `--config`: a directory with a file for each key."""
        folder = self.world.folder / f"config-{len(list(self.world.folder.iterdir()))}"
        folder.mkdir()
        for key, text in keys.items():
            (folder / key.replace("shop_conf", manifests.CONFIG_FILE)).write_text(text)
        return f"{source}={folder}"

    def spoiled(self) -> set[str]:
        """The pods, of whatever version, that have answered a user with an error since they started."""
        found = set()
        for pod in self.api.items(f"{self.core}/pods"):
            with contextlib.suppress(OSError, KeyError):
                page = urllib.request.urlopen(f"http://{pod['status']['podIP']}:8080/metrics", timeout=5).read().decode()
                if not re.search(r'code="500"} 0$', page, re.MULTILINE):
                    found.add(pod["metadata"]["name"])
        return found


@contextmanager
def opened(cluster: Cluster, api: Api, namespace: str, folder: Path, replicas: int = 4, rate: float = RATE, **more: Any) -> Iterator[Shop]:
    """A shop that is open, with users who come at a steady rate."""
    with served(cluster, api, deployed(api, namespace, "web", replicas, **more), folder, rate) as made:
        yield made


@contextmanager
def served(cluster: Cluster, api: Api, service: Service, folder: Path, rate: float = RATE) -> Iterator[Shop]:
    """A Deployment that runs, with users who come at a steady rate."""
    until("the node knows the Service", lambda: reachable(service.address, 80))
    world = ClusterWorld(folder.resolve(), cluster.kubeconfig, service.namespace)
    try:
        with Load(service.address, rate) as users:
            yield Shop(cluster, api, service, world, users)
    finally:
        world.close()


def quick(**changes: Any) -> Json:
    """A policy that is over in seconds."""
    return {**QUICK, "interval": "1s", "warmup": "3s", **changes}


Open = Callable[..., Shop]
