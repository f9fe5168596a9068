"""The binaries of a cluster, built from Go modules once and kept.

`k8s.io/kubernetes` maps its staging modules to folders of its own source tree, and Go ignores such replacements of a dependency. So
each build is a module of its own that maps every one of them to the version published with that release.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.places import ETCD, OLDEST, ClusterError, cache

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy")
GO_MINOR = 26
"""Kubernetes 1.36 needs Go 1.26."""


def assets() -> Path | None:
    """The folder of ready-made binaries that the user named, if any."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    if not named:
        return None
    folder = Path(named)
    if not (folder / "kube-apiserver").is_file():
        raise ClusterError(
            f"KUBEBUILDER_ASSETS names {folder}, and no kube-apiserver is in it",
            "name a folder with kube-apiserver and etcd in it, or unset the variable: then they are built",
        )
    return folder


def version_of(folder: Path) -> str:
    """The version of the kube-apiserver in a folder, such as 1.36.3."""
    said = subprocess.run([folder / "kube-apiserver", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v(\d+\.\d+\.\d+)", said)
    if found is None:
        raise ClusterError(f"{folder}/kube-apiserver --version answered {said.strip()!r}, which names no version")
    return found.group(1)


def binary(version: str, name: str) -> Path:
    """Where a binary is, whether it is built or not: the user's own one first."""
    given = assets()
    if given is not None and (given / name).is_file():
        return given / name
    return (cache() / f"etcd-{ETCD}" if name == "etcd" else cache() / version) / "bin" / name


def wanted(version: str, *, node: bool) -> tuple[str, ...]:
    """The binaries that a cluster is made of. The oldest one is asked with the kubectl of the newest."""
    return (*CONTROL_PLANE, *(() if version == OLDEST else ("kubectl",)), *(NODE if node else ()))


def build(version: str, names: Sequence[str]) -> None:
    """All the named binaries and etcd exist afterwards. Raises ClusterError when they cannot be built."""
    missing = [name for name in ("etcd", *names) if not binary(version, name).is_file()]
    if not missing:
        return
    _need_go()
    print(f"building {', '.join(missing)} for Kubernetes {version} (the first time takes ten minutes on two cores)", flush=True)
    if "etcd" in missing:
        _build_etcd()
    rest = [name for name in missing if name != "etcd"]
    if rest:
        _build_kubernetes(version, rest)


def build_here(source: Path, out: Path) -> None:
    """Build a program of this repository that needs nothing but Go's own library, without C libraries."""
    _need_go()
    out.parent.mkdir(parents=True, exist_ok=True)
    _go(["build", "-trimpath", "-ldflags", "-s -w", "-o", str(out), "."], source)


def _need_go() -> None:
    hint = f"install Go 1.{GO_MINOR} or later (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with ready-made binaries"
    if shutil.which("go") is None:
        raise ClusterError("the binaries of the cluster are built with Go, and no `go` is on the PATH", hint)
    said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"go1\.(\d+)", said)
    if found is not None and int(found.group(1)) < GO_MINOR:
        raise ClusterError(f"the `go` on the PATH is {said}, too old for Kubernetes", hint)


def _build_etcd() -> None:
    folder = cache() / f"etcd-{ETCD}"
    _module(folder, "etcd")
    _go(["get", f"go.etcd.io/etcd/server/v3@v{ETCD}"], folder)
    _install(folder, "etcd", "go.etcd.io/etcd/server/v3", "-s -w")


def _build_kubernetes(version: str, names: Sequence[str]) -> None:
    folder, tag = cache() / version, f"v{version}"
    _module(folder, "kubernetes")
    got = json.loads(_go(["mod", "download", "-json", f"k8s.io/kubernetes@{tag}"], folder))
    wants = json.loads(_go(["mod", "edit", "-json", got["GoMod"]], folder))["Require"]
    published = f"v0.{version.split('.', 1)[1]}"
    staging = [module["Path"] for module in wants if module["Version"] == "v0.0.0"]
    _go(["mod", "edit", *(f"-replace={path}={path}@{published}" for path in staging)], folder)
    _go(["mod", "edit", f"-require=k8s.io/kubernetes@{tag}"], folder)
    stamps = {
        "gitVersion": tag,
        "gitMajor": "1",
        "gitMinor": version.split(".")[1],
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    flags = "-s -w " + " ".join(f"-X {package}.{key}={value}" for package in packages for key, value in stamps.items())
    for name in names:
        _install(folder, name, f"k8s.io/kubernetes/cmd/{name}", flags)


def _module(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "go.mod").exists():
        _go(["mod", "init", f"deployguard.dev/build/{name}"], folder)


def _install(folder: Path, name: str, package: str, flags: str) -> None:
    print(f"  {name} ...", flush=True)
    half = folder / "bin" / f".{name}"
    _go(["build", "-p", "2", "-trimpath", "-ldflags", flags, "-o", str(half), package], folder)
    half.rename(folder / "bin" / name)


def _go(arguments: Sequence[str], folder: Path) -> str:
    """What a Go command printed. Raises ClusterError with its last lines."""
    known = {"GOWORK": "off", "GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    done = subprocess.run(["go", *arguments], cwd=folder, env={**os.environ, **known}, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    last = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-8:])
    network = any(word in last for word in ("dial tcp", "no such host", "connection refused", "i/o timeout", "Client.Timeout"))
    hint = "the Go modules could not be fetched: check the network, or GOPROXY" if network else "run `python -m tests.cluster build` again"
    raise ClusterError(f"`go {' '.join(arguments[:2])} ...` in {folder} failed:\n    {last}", hint)
