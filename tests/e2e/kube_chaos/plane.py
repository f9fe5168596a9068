"""A control plane of the test's own, whose parts may be stopped and killed; instead of a node, somebody says that pods run."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.cluster.api import Api
from tests.cluster.places import NEWEST, Place
from tests.cluster.rig import Rig

Json = dict[str, Any]


@dataclass(frozen=True)
class Apart(Place):
    """A cluster in a folder of its own, on ports that nobody uses."""

    root: Path = Path()
    ports: tuple[int, ...] = ()

    @cached_property
    def folder(self) -> Path:
        return self.root

    @property
    def api_port(self) -> int:
        return self.ports[0]

    @property
    def etcd_port(self) -> int:
        return self.ports[1]

    @property
    def etcd_peer_port(self) -> int:
        return self.ports[2]

    @property
    def manager_port(self) -> int:
        return self.ports[3]

    @property
    def scheduler_port(self) -> int:
        return self.ports[4]


class Pretender:
    """Says of every pod that it runs and is Ready, as a node would, from a thread of its own."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pretender", daemon=True)

    def start(self) -> None:
        """Pods run from now on."""
        self._thread.start()

    def stop(self) -> None:
        """No pod becomes ready any more."""
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        import urllib3

        while not self._stop.wait(0.2):
            # A part of the control plane may be stopped or dead: whoever pretends waits for it, as a node does.
            with suppress(urllib3.exceptions.HTTPError, OSError, AssertionError):
                for pod in self._api.items(self._path):
                    if pod["status"].get("phase") == "Pending" and not pod["metadata"].get("deletionTimestamp"):
                        self._api.merge(f"{self._path}/{pod['metadata']['name']}/status", {"status": running(pod)})


def running(pod: Json) -> Json:
    """The status of a pod whose containers all run and are ready."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("Initialized", "ContainersReady", "Ready")]
    containers = [
        {
            "name": one["name"],
            "image": one["image"],
            "imageID": one["image"],
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        for one in pod["spec"]["containers"]
    ]
    return {"phase": "Running", "startTime": now, "podIP": "192.0.2.1", "conditions": conditions, "containerStatuses": containers}


@contextmanager
def plane(folder: Path) -> Iterator[Rig]:
    """A control plane without a node; nothing of it runs afterwards."""
    before = os.environ.get("DEPLOYGUARD_CLUSTER_HOME")
    os.environ["DEPLOYGUARD_CLUSTER_HOME"] = str(folder)
    rig = Rig(Apart(NEWEST, folder / "plane", _free_ports(5)))
    try:
        rig.up(wants_node=False)
        yield rig
    finally:
        for name in ("apiserver", "etcd", "manager", "scheduler"):
            if (process := rig.processes.find(name)) is not None:
                process.send_signal(signal.SIGCONT)
        rig.down()
        if before is None:
            del os.environ["DEPLOYGUARD_CLUSTER_HOME"]
        else:
            os.environ["DEPLOYGUARD_CLUSTER_HOME"] = before


def _free_ports(count: int) -> tuple[int, ...]:
    found = [socket.create_server(("127.0.0.1", 0)) for _n in range(count)]
    ports = tuple(one.getsockname()[1] for one in found)
    for one in found:
        one.close()
    return ports
