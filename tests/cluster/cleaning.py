"""How a node is undone: its containers end, and what it left on the machine goes."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.cluster.node import NETWORK, run
from tests.cluster.places import BRIDGE, PODS_BRIDGE, ClusterError, Place


def end_containers(place: Place) -> None:
    """No container of this cluster runs, and no shim of containerd either. containerd itself may be gone already."""
    for shim in shims(place):
        for process in (*shim.children(recursive=True), shim):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    deadline = time.monotonic() + 20
    while shims(place) and time.monotonic() < deadline:
        time.sleep(0.1)


def shims(place: Place) -> list[psutil.Process]:
    """The keepers of this cluster's containers, told by the socket that they report to."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        words = process.info["cmdline"] or []
        if words and "containerd-shim" in words[0] and str(place.runtime_socket) in words:
            found.append(process)
    return found


def clean(place: Place) -> None:
    """Mounts, links, rules, control groups and files elsewhere that a node leaves are gone, as is the state of its containers."""
    for mount in sorted(_mounts(place), reverse=True):
        run("umount", "-l", mount)
    if left := _mounts(place):
        raise ClusterError(
            f"still mounted below {place.folder}: {', '.join(left)}", "unmount them by hand: nothing below a mount is deleted"
        )
    _clean_files(place)
    for name in ("kubelet", "run/containerd", "cni-addresses", "pod-logs", "containerd"):
        shutil.rmtree(place.folder / name, ignore_errors=True)
    for link in (PODS_BRIDGE, BRIDGE):
        run("ip", "link", "del", link)
    for program in ("iptables", "ip6tables"):
        _clean_rules(program)
    for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")):
        for folder in sorted((root / "kubepods").glob("**/"), reverse=True):
            with suppress(OSError):
                folder.rmdir()


def _mounts(place: Place) -> list[str]:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [mount for mount in mounts if mount.startswith(f"{place.folder}/")]


def _clean_files(place: Place) -> None:
    """Sockets of the shims, results of the network plugins and links to logs lie in folders of the machine."""
    for address in (place.folder / "run/containerd/io.containerd.runtime.v2.task/k8s.io").glob("*/address"):
        Path(address.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
    for result in Path("/var/lib/cni/results").glob(f"{NETWORK}-*"):
        result.unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{place.folder}/"):
            link.unlink(missing_ok=True)


def _clean_rules(program: str) -> None:
    saved = run(f"{program}-save")
    rest = without_ours(saved.stdout)
    if saved.returncode == 0 and rest != saved.stdout:
        subprocess.run([f"{program}-restore"], input=rest, text=True, capture_output=True, check=False)


def without_ours(saved: str) -> str:
    """The rules of `iptables-save` without those of kube-proxy, the kubelet and the plugins of the pods' network."""

    def ours(word: str) -> bool:
        return word.startswith(("KUBE-", "CNI-"))

    kept = []
    for line in saved.splitlines():
        words = line.split()
        names = [words[0][1:]] if line.startswith(":") else [word for at, word in enumerate(words[1:]) if words[at] in ("-A", "-j", "-g")]
        if not any(ours(name) for name in names):
            kept.append(line)
    return "\n".join(kept) + ("\n" if saved.endswith("\n") else "")
