"""The cluster itself: what starts, in which order, with which options, and how it ends."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.cluster import build, certificates, cleaning, images, node
from tests.cluster.places import NEWEST, NODE, NODE_ADDRESS, SERVICE_RANGE, ClusterError, Place, home, main_kubeconfig
from tests.cluster.processes import PARTS, Processes

PATIENCE = float(os.environ.get("KUBEBUILDER_CONTROLPLANE_START_TIMEOUT", "120s").rstrip("s"))
"""Seconds that each part may take to answer, on a busy machine."""


@dataclass(frozen=True)
class Rig:
    """One cluster of this machine."""

    place: Place

    @cached_property
    def processes(self) -> Processes:
        return Processes(self.place)

    def up(self, *, wants_node: bool = True) -> str:
        """The cluster runs afterwards and answers; what ran already is adopted. Returns why it has no node, "" if it has one."""
        began = time.monotonic()
        runs = self.has_node and self.processes.find("containerd") is not None
        why_not = node.impossible() if wants_node or runs else "asked for without a node"
        if runs and why_not:
            raise ClusterError(f"the cluster at {self.place.folder} runs with a node, and now {why_not}")
        with_node = not why_not
        with locked():
            if with_node and (other := _holder_of_the_node(self.place)):
                raise ClusterError(f"the cluster at {other} has the one node of this machine", "run `make cluster-down` there first")
            build.build(self.place.version, build.wanted(self.place.version, node=with_node))
            archives = images.make() if with_node else []
            if not any(self.processes.find(name) for name in ("etcd", "apiserver", "containerd")):
                self._end()
            certificates.make(self.place)
            self._record(with_node, why_not)
            self._control_plane(with_node)
            if with_node:
                self._node(archives)
            self._wait("the default service account", lambda: self._ask("/api/v1/namespaces/default/serviceaccounts/default")[0] == 200)
            self._link()
        print(f"the cluster {self.place.version} is up after {time.monotonic() - began:.1f} s: {self.place.kubeconfig}", flush=True)
        return why_not

    def down(self) -> None:
        """Nothing of the cluster runs afterwards, and no mount, link or rule is left. Logs and certificates stay."""
        with locked():
            self._end()
            for path in (self.place.folder / "cluster.json", self.place.folder / "etcd"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            if main_kubeconfig().is_symlink() and main_kubeconfig().readlink() == self.place.kubeconfig:
                main_kubeconfig().unlink()

    def restart(self, names: Sequence[str]) -> None:
        """The named parts end and start again; the rest goes on."""
        for name in names:
            self.processes.stop(name)
        self.up(wants_node=self.has_node)

    @property
    def known(self) -> dict[str, Any]:
        """What was recorded when it came up, or nothing."""
        try:
            found: dict[str, Any] = json.loads((self.place.folder / "cluster.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    @property
    def has_node(self) -> bool:
        return bool(self.known.get("node"))

    def healthy(self) -> bool:
        """Its API server answers that it is ready."""
        return self.place.kubeconfig.exists() and self._ask("/readyz")[0] == 200

    def import_image(self, archive: Path) -> None:
        """The node has the images of the archive afterwards."""
        done = node.ctr(self.place, "images", "import", str(archive))
        if done.returncode:
            raise ClusterError(f"the image archive {archive} could not be imported: {(done.stderr or done.stdout).strip()}")

    def _record(self, with_node: bool, why_not: str) -> None:
        self.place.folder.mkdir(parents=True, exist_ok=True)
        known = {"version": self.place.version, "node": with_node, "why_no_node": why_not}
        (self.place.folder / "cluster.json").write_text(json.dumps(known))

    def _link(self) -> None:
        """The kubeconfig of the main version has a name without a version."""
        if self.place.version == main_version() and not (main_kubeconfig().exists() and main_kubeconfig().samefile(self.place.kubeconfig)):
            main_kubeconfig().unlink(missing_ok=True)
            main_kubeconfig().symlink_to(self.place.kubeconfig)

    def _control_plane(self, with_node: bool) -> None:
        place, start = self.place, self.processes.start
        etcd, peers = f"http://127.0.0.1:{place.etcd_port}", f"http://127.0.0.1:{place.etcd_peer_port}"
        words = ["--unsafe-no-fsync", "--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", peers]
        words += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}", "--log-level", "warn"]
        start("etcd", [self._program("etcd"), "--data-dir", place.folder / "etcd", *words])
        start("apiserver", [self._program("kube-apiserver"), *self._api_options(with_node)])
        self._wait("the API server", lambda: self._ask("/readyz")[0] == 200, "etcd", "apiserver")
        certs = place.certificates
        own: list[str | Path] = ["--leader-elect=false", "--bind-address", "127.0.0.1", "--kube-api-qps", "100", "--kube-api-burst", "200"]
        for_manager: list[str | Path] = ["--service-account-private-key-file", certs / "tokens.key", "--root-ca-file", certs / "ca.crt"]
        for_manager += ["--cluster-signing-cert-file", certs / "ca.crt", "--cluster-signing-key-file", certs / "ca.key"]
        for_manager += [
            "--use-service-account-credentials",
            "--node-monitor-grace-period",
            "120s",
            "--secure-port",
            str(place.manager_port),
        ]
        start("manager", [self._program("kube-controller-manager"), *own, *self._identity("manager"), *for_manager])
        start(
            "scheduler", [self._program("kube-scheduler"), *own, *self._identity("scheduler"), "--secure-port", str(place.scheduler_port)]
        )

    def _program(self, name: str) -> Path:
        return build.binary(self.place.version, name)

    def _identity(self, name: str) -> list[str]:
        mine = str(self.place.folder / f"{name}.kubeconfig")
        asked = [word for kind in ("", "authentication-", "authorization-") for word in (f"--{kind}kubeconfig", mine)]
        return [*asked, "--cert-dir", str(self.place.folder / "serving" / name)]

    def _api_options(self, with_node: bool) -> list[str]:
        certs, place = self.place.certificates, self.place
        options = {
            "etcd-servers": f"http://127.0.0.1:{place.etcd_port}",
            "bind-address": "0.0.0.0" if with_node else "127.0.0.1",
            "advertise-address": NODE_ADDRESS if with_node else "127.0.0.1",
            "secure-port": place.api_port,
            "cert-dir": place.folder / "serving" / "apiserver",
            "tls-cert-file": certs / "api.crt",
            "tls-private-key-file": certs / "api.key",
            "client-ca-file": certs / "ca.crt",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": certs / "tokens.pub",
            "service-account-signing-key-file": certs / "tokens.key",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "service-cluster-ip-range": SERVICE_RANGE,
            "kubelet-client-certificate": certs / "api-to-kubelet.crt",
            "kubelet-client-key": certs / "api-to-kubelet.key",
            "kubelet-preferred-address-types": "InternalIP",
            "requestheader-client-ca-file": certs / "front-ca.crt",
            "requestheader-allowed-names": "front-proxy",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": certs / "front.crt",
            "proxy-client-key-file": certs / "front.key",
            "enable-aggregator-routing": "true",
        }
        return [f"--{name}={value}" for name, value in options.items()]

    def _node(self, archives: Sequence[images.Image]) -> None:
        place, start = self.place, self.processes.start
        node.network()
        node.write_files(place)
        new = start("containerd", [shutil.which("containerd") or "containerd", "--config", place.folder / "conf" / "containerd.toml"])
        self._wait("containerd", lambda: node.ctr(place, "version").returncode == 0, "containerd")
        imported = place.folder / "containerd" / "imported.json"
        names = sorted(image.archive.name for image in archives)
        if new or not imported.exists() or json.loads(imported.read_text()) != names:
            for image in archives:
                self.import_image(image.archive)
            imported.write_text(json.dumps(names))
        own: list[str | Path] = ["--hostname-override", NODE, "--node-ip", NODE_ADDRESS, "--root-dir", place.folder / "kubelet"]
        files: list[str | Path] = ["--kubeconfig", place.folder / "kubelet.kubeconfig", "--config", place.folder / "conf" / "kubelet.yaml"]
        start("kubelet", [self._program("kubelet"), *files, *own, "--cert-dir", place.folder / "serving" / "kubelet"])
        start("proxy", [self._program("kube-proxy"), "--config", place.folder / "conf" / "proxy.yaml"])
        self._wait("the node", self._node_is_ready, "kubelet", "proxy")

    def _node_is_ready(self) -> bool:
        status, body = self._ask(f"/api/v1/nodes/{NODE}")
        conditions = json.loads(body)["status"].get("conditions", []) if status == 200 else []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def _end(self) -> None:
        """Everything ends and is cleaned away, from whatever state."""
        had_node = self.has_node or (self.place.folder / "containerd").exists()
        for name in ("kubelet", "proxy", "scheduler", "manager", "apiserver", "etcd"):
            self.processes.stop(name, patience=2.0)
        if had_node:
            self.processes.stop("containerd", patience=2.0)
            cleaning.end_containers(self.place)
            cleaning.clean(self.place)
        shutil.rmtree(self.place.folder / "etcd", ignore_errors=True)

    def _wait(self, what: str, ready: Callable[[], bool], *parts: str) -> None:
        """Raises ClusterError when a part ends meanwhile or patience does."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            for name in parts:
                self.processes.must_run(name)
            if time.monotonic() > deadline:
                said = "".join(f"\n  {name} ({self.place.logs}/{name}.log):\n    {self.processes.last_words(name)}" for name in parts)
                raise ClusterError(f"{what} is not ready after {PATIENCE:.0f} s{said}")
            time.sleep(0.1)

    def _ask(self, path: str) -> tuple[int, bytes]:
        """The status and body of one GET as the administrator; status 0 when nobody answers."""
        folder = self.place.certificates
        try:
            context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
            context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
            connection = http.client.HTTPSConnection("127.0.0.1", self.place.api_port, timeout=5, context=context)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return 0, b""


def main_version() -> str:
    """The version of the cluster with the node: the newest, or that of the user's own binaries."""
    given = build.assets()
    return NEWEST if given is None else build.version_of(given)


def _holder_of_the_node(place: Place) -> Path | None:
    """Another cluster that runs with this machine's one node."""
    for folder in home().glob("*/cluster.json"):
        other = Rig(Place(folder.parent.name))
        if other.place != place and other.has_node and any(other.processes.find(name) for name in PARTS):
            return other.place.folder
    return None


@contextmanager
def locked() -> Iterator[None]:
    """One command at a time works on the clusters of this home."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
