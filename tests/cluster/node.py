"""What a real node needs of the machine: packages, a bridge, files for containerd, kubelet and kube-proxy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.places import BRIDGE, NODE, NODE_ADDRESS, POD_RANGE, PODS_BRIDGE, Place

NETWORK = "deployguard"
CNI = Path("/usr/lib/cni")
OTHER_CNI = Path("/opt/cni/bin")
PAUSE = "localhost/pause:1"
DEBIAN = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "openssl": "openssl",
}


def impossible() -> str:
    """Why this machine cannot have a real node, or "" when it can."""
    if sys.platform != "linux":
        return "a node needs Linux"
    if os.geteuid() != 0:
        return "a node needs root (kubelet, containerd and the network of the pods)"
    missing = {package for program, package in DEBIAN.items() if shutil.which(program) is None}
    if _plugins() is None:
        missing.add("containernetworking-plugins")
    if missing:
        return f"programs are missing: apt-get install --no-install-recommends {' '.join(sorted(missing))}"
    return ""


def _plugins() -> Path | None:
    return next((folder for folder in (CNI, OTHER_CNI) if (folder / "bridge").exists() and (folder / "host-local").exists()), None)


def network() -> None:
    """The node has an address of its own, independent of the machine's network, and forwards for its pods."""
    if run("ip", "link", "show", BRIDGE).returncode:
        run("ip", "link", "add", BRIDGE, "type", "bridge", check=True)
    if f" {NODE_ADDRESS}/" not in run("ip", "addr", "show", "dev", BRIDGE).stdout:
        run("ip", "addr", "add", f"{NODE_ADDRESS}/24", "dev", BRIDGE, check=True)
    run("ip", "link", "set", BRIDGE, "up", check=True)
    for knob in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        path = Path("/proc/sys") / knob
        if path.exists() and path.read_text().strip() != "1":
            path.write_text("1")


def write_files(place: Place) -> None:
    """The configuration of the node's parts is in place. kube-proxy ends itself when its file is touched, so only changes are written."""
    folder = place.folder
    for path, text in {
        folder / "cni" / "10-pods.conflist": _cni(place),
        folder / "conf" / "containerd.toml": _containerd(place),
        folder / "conf" / "kubelet.yaml": _kubelet(place),
        folder / "conf" / "proxy.yaml": _proxy(place),
        folder / "conf" / "resolv.conf": "nameserver 127.0.0.1\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _cni(place: Place) -> str:
    addresses = {
        "type": "host-local",
        "dataDir": str(place.folder / "cni-addresses"),
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": PODS_BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge, ports]}, indent=1)


def _containerd(place: Place) -> str:
    """Without CAP_SYS_RESOURCE runc cannot lower a sandbox's oom_score_adj and dies; restrict_oom_score_adj spares it the attempt."""
    folder = place.folder
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/run/containerd"
[grpc]
  address = "{place.runtime_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_plugins()}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(place: Place) -> str:
    """How often a mounted ConfigMap is read again stays the default, because tests measure it. Control groups of version 1 must do."""
    ours = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{place.runtime_socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(place.certificates / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(place.certificates / "kubelet.crt"),
        "tlsPrivateKeyFile": str(place.certificates / "kubelet.key"),
        "staticPodPath": "",
        "maxPods": 200,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "enforceNodeAllocatable": ["pods"],
        "clusterDomain": "cluster.local",
        "resolvConf": str(place.folder / "conf" / "resolv.conf"),
        "podLogsDir": str(place.folder / "pod-logs"),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "2%", "imagefs.available": "2%", "nodefs.inodesFree": "1%"},
        "volumePluginDir": str(place.folder / "volume-plugins"),
    }
    return json.dumps(ours, indent=1)


def _proxy(place: Place) -> str:
    ours = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": NODE,
        "bindAddress": NODE_ADDRESS,
        "clientConnection": {"kubeconfig": str(place.folder / "proxy.kubeconfig")},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "200ms"},
    }
    return json.dumps(ours, indent=1)


def ctr(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask containerd directly, in the namespace of the kubelet."""
    return run("ctr", "-a", str(place.runtime_socket), "-n", "k8s.io", *arguments)


def run(*command: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it printed."""
    words: Sequence[str] = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=check)
