"""Which API server, and as whom: kubeconfig files merged as kubectl merges them, a context chosen, or the pod we run in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from deployguard.errors import UserError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HINT = "give `--kubeconfig`, set KUBECONFIG, or run inside a pod that has a service account"
_CLUSTER_FILES = ("certificate-authority",)
_USER_FILES = ("client-certificate", "client-key", "tokenFile")


class Context(msgspec.Struct, frozen=True):
    """One context with what it names. Files are absolute; `files` are the kubeconfig files it came from.

    The service account of the pod we run in is a context too, with `in_cluster` set.
    """

    name: str
    namespace: str
    cluster: dict[str, Any]
    user: dict[str, Any]
    files: str
    in_cluster: bool = False

    @property
    def place(self) -> str:
        """Where it comes from, in words."""
        return self.name if self.in_cluster else f"context {self.name} of {self.files}"


def find(kubeconfig: str | None, context: str | None, environ: Mapping[str, str] | None = None) -> Context:
    """The context to use; where there is no kubeconfig, the service account of the pod we run in.

    Raises `UserError` when a file or a context that was asked for is not there, or when there is no cluster at all.
    """
    env = os.environ if environ is None else environ
    paths = _paths(kubeconfig, env)
    present = [path for path in paths if path.is_file()]
    if kubeconfig is not None and not present:
        raise UserError(f"could not read the kubeconfig {kubeconfig}: there is no such file", hint=_HINT)
    if not present:
        # An empty KUBECONFIG variable means the default place, as with kubectl.
        if context is None and env.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").is_file():
            return _pod(env)
        looked = ", ".join(str(path) for path in paths)
        raise UserError(f"could not find a cluster: there is no kubeconfig (looked for {looked})", hint=_HINT)
    return _choose(_merged(present), context, ", ".join(str(path) for path in present))


def _paths(kubeconfig: str | None, env: Mapping[str, str]) -> list[Path]:
    if kubeconfig is not None:
        return [Path(kubeconfig).expanduser()]
    listed = [part for part in env.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [Path(part).expanduser() for part in listed or ["~/.kube/config"]]


def _merged(paths: list[Path]) -> dict[str, Any]:
    """The files as one: what the first file says of a name counts, also for the current context."""
    merged: dict[str, Any] = {"clusters": {}, "users": {}, "contexts": {}, "current-context": ""}
    for path in paths:
        content = _read(path)
        for many, one, files in (("clusters", "cluster", _CLUSTER_FILES), ("users", "user", _USER_FILES), ("contexts", "context", ())):
            for item in content.get(many) or []:
                if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not isinstance(item.get(one) or {}, dict):
                    raise UserError(f"could not read the kubeconfig {path}: an entry of `{many}` is not a name with a `{one}`")
                merged[many].setdefault(item["name"], _absolute(item.get(one) or {}, files, path.parent))
        merged["current-context"] = merged["current-context"] or content.get("current-context") or ""
    return merged


def _read(path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - both loaders are the safe ones
    except OSError as error:
        raise UserError(f"could not read the kubeconfig {path}: {error.strerror or error}", hint=_HINT) from error
    except yaml.YAMLError as error:
        raise UserError(f"could not read the kubeconfig {path}: it is not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"could not read the kubeconfig {path}: it holds no mapping", hint=_HINT)
    return content


def _absolute(value: dict[str, Any], files: tuple[str, ...], base: Path) -> dict[str, Any]:
    """The entry with paths that do not depend on where the kubeconfig lies."""
    changed: dict[str, Any] = {key: str(base / value[key]) for key in files if value.get(key)}
    run = value.get("exec")
    if isinstance(run, dict) and os.sep in str(run.get("command", "")):
        changed["exec"] = run | {"command": str(base / run["command"])}
    return value | changed


def _choose(merged: dict[str, Any], wanted: str | None, files: str) -> Context:
    name = wanted or merged["current-context"]
    if not name:
        raise UserError(f"could not choose a context: {files} has no current-context", hint=f"give `--context`: {_known(merged)}")
    context = merged["contexts"].get(name)
    if context is None:
        raise UserError(f"could not use the context {name}: {files} has no such context", hint=_known(merged))
    parts: dict[str, dict[str, Any]] = {}
    for one, many in (("cluster", "clusters"), ("user", "users")):
        named = context.get(one) or ""
        if named and named not in merged[many]:
            raise UserError(f"could not use the context {name}: {files} has no {one} {named!r}, which it names")
        parts[one] = merged[many].get(named, {})
    if not parts["cluster"].get("server"):
        raise UserError(f"could not use the context {name}: its cluster in {files} has no `server`")
    return Context(name=name, namespace=context.get("namespace") or "", cluster=parts["cluster"], user=parts["user"], files=files)


def _known(merged: dict[str, Any]) -> str:
    names = sorted(merged["contexts"])
    return f"known contexts: {', '.join(names)}" if names else "it has no contexts at all"


def _pod(env: Mapping[str, str]) -> Context:
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT") or "443"
    try:
        namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    return Context(
        name="the pod's service account",
        namespace=namespace,
        cluster={
            "server": f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            "certificate-authority": str(SERVICE_ACCOUNT / "ca.crt"),
        },
        user={"tokenFile": str(SERVICE_ACCOUNT / "token")},
        files=str(SERVICE_ACCOUNT),
        in_cluster=True,
    )
