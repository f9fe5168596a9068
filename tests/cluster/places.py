"""Where the clusters of the tests live, which versions they have and which ports they take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

NEWEST = "1.36.3"
OLDEST = "1.34.4"
"""Two minors before the newest: what the API server does is checked there too, with a control plane alone."""
ETCD = "3.6.8"

NODE = "deployguard"
BRIDGE = "dgnode0"
PODS_BRIDGE = "dgpods0"
NODE_ADDRESS = "10.213.0.1"
POD_RANGE = "10.214.0.0/16"
SERVICE_RANGE = "10.215.0.0/16"
SERVICE_FIRST = "10.215.0.1"


class ClusterError(Exception):
    """The cluster cannot be had; the message says why and what helps."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}\n  hint: {hint}" if hint else what)


def cache() -> Path:
    """The folder of built binaries and images, kept between clusters."""
    return Path(os.environ.get("DEPLOYGUARD_CLUSTER_CACHE") or Path.home() / ".cache/deployguard/kubernetes")


def home() -> Path:
    """The folder of the clusters themselves: one folder per version, and the kubeconfig of the main one."""
    return Path(os.environ.get("DEPLOYGUARD_CLUSTER_HOME") or Path.home() / ".cache/deployguard/cluster").absolute()


def main_kubeconfig() -> Path:
    """Where the kubeconfig of the cluster with the newest version is found."""
    return home() / "kubeconfig"


@dataclass(frozen=True)
class Place:
    """One cluster's folders and ports. Clusters of different minors share neither."""

    version: str

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])

    @cached_property
    def folder(self) -> Path:
        return home() / self.version

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def runtime_socket(self) -> Path:
        return self.folder / "run" / "containerd.sock"

    @property
    def api_port(self) -> int:
        return 26400 + self.minor

    @property
    def etcd_port(self) -> int:
        return 23700 + self.minor

    @property
    def etcd_peer_port(self) -> int:
        return 23800 + self.minor

    @property
    def manager_port(self) -> int:
        return 26500 + self.minor

    @property
    def scheduler_port(self) -> int:
        return 26600 + self.minor
