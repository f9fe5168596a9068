"""What `init` sees of a workload: its pods, what they read, who scales it and sends to it, and the metrics that one of its pods shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deployguard import clock
from deployguard.errors import UserError
from deployguard.files.shape import nearest
from deployguard.kube import paths
from deployguard.kube.errors import Forbidden, KubeError, NotFound
from deployguard.signals.discover import Found, counted, discover
from deployguard.targets.kubernetes.pods import leaving, port_of
from deployguard.targets.kubernetes.references import Reference, containers, references

if TYPE_CHECKING:
    from deployguard.kube.client import Kube

Json = dict[str, Any]

KINDS = {
    "Deployment": ("deployment", "deployments", "deploy"),
    "StatefulSet": ("statefulset", "statefulsets", "sts"),
    "DaemonSet": ("daemonset", "daemonsets", "ds"),
}
"""The kinds that can be guarded, and what kubectl calls them."""
PAGE = "/metrics"
MOST_PORTS = 5
_LONGEST_PAGE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics page of one pod. `rps`: users' requests a second at that pod while it was watched; None when nothing counts them."""

    pod: str
    port: int
    path: str
    found: Found
    rps: float | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """A workload as it runs now. `port` is what deployguard finds by itself. `notes` say what could not be seen, and why."""

    kind: str
    namespace: str
    name: str
    replicas: int
    ready: int
    reads: tuple[Reference, ...] = ()
    scaler: tuple[str, int, int] | None = None
    services: tuple[str, ...] = ()
    port: int | None = None
    ports: tuple[int, ...] = ()
    ready_path: str = ""
    strategy: str = ""
    metrics: Metrics | None = None
    notes: tuple[str, ...] = field(default=())


def named(word: str) -> tuple[str, str]:
    """Kind and name of `deployment/web`, with kubectl's short words too. Raises `UserError`."""
    kind, slash, name = word.partition("/")
    known = {alias: kind for kind, aliases in KINDS.items() for alias in aliases}
    kind = kind.lower().removesuffix(".apps")
    if not slash or not name:
        raise UserError(f"`{word}` names no workload", hint="write `deployment/web`, `statefulset/db` or `daemonset/agent`")
    if kind not in known:
        near = nearest(kind, known)
        raise UserError(
            f"`{word}`: `{kind}` cannot be guarded",
            hint=(f"did you mean `{near}`? " if near else "") + "it guards deployments, statefulsets and daemonsets",
        )
    return known[kind], name


def survey(kube: Kube, kind: str, namespace: str, name: str, seconds: float) -> Survey:
    """The workload as it runs now, after its traffic was watched for `seconds`.

    Raises `UserError` when it is not there, and `KubeError` when the API server does not show it.
    """
    found = _workload(kube, kind, namespace, name)
    template = found["spec"]["template"]
    notes: list[str] = []
    pods = _pods(kube, namespace, found)
    ready = [pod for pod in pods if _ready(pod)]
    ports = _ports(template)
    return Survey(
        kind=kind,
        namespace=namespace,
        name=name,
        replicas=_wanted(found),
        ready=len(ready),
        reads=references(template),
        scaler=_scaler(kube, kind, namespace, name, notes),
        services=_services(kube, namespace, template, notes),
        port=port_of(template, None),
        ports=ports,
        ready_path=_ready_path(template),
        strategy=_strategy(found),
        metrics=_metrics(kube, template, ready, seconds, notes),
        notes=tuple(notes),
    )


def _workload(kube: Kube, kind: str, namespace: str, name: str) -> Json:
    try:
        return kube.get(paths.workload(kind, namespace, name))
    except NotFound as error:
        there = sorted(one["metadata"]["name"] for one in kube.list(paths.workloads(kind, namespace)))
        near = nearest(name, there)
        meant = f"did you mean `{near}`? " if near else ""
        shown = ", ".join(there[:12]) or "none"
        raise UserError(
            f"there is no {kind} `{name}` in the namespace `{namespace}`",
            hint=f"{meant}there are: {shown}; another namespace is given by `-n`",
        ) from error


def _wanted(workload: Json) -> int:
    status = workload.get("status") or {}
    if workload.get("kind") == "DaemonSet" or "desiredNumberScheduled" in status:
        return int(status.get("desiredNumberScheduled") or 0)
    replicas = workload["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _pods(kube: Kube, namespace: str, workload: Json) -> list[Json]:
    labels = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return [pod for pod in kube.list(paths.pods(namespace), {"labelSelector": selector}) if not leaving(pod)] if selector else []


def _ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _ports(template: Json) -> tuple[int, ...]:
    found = [
        port["containerPort"]
        for _, container in containers(template)
        for port in container.get("ports") or []
        if port.get("protocol", "TCP") == "TCP"
    ]
    return tuple(dict.fromkeys(found))


def _ready_path(template: Json) -> str:
    """The path that tells the kubelet whether the first container is ready; empty without one."""
    for _, container in containers(template):
        path = ((container.get("readinessProbe") or {}).get("httpGet") or {}).get("path")
        if isinstance(path, str) and path.startswith("/"):
            return path
    return ""


def _strategy(workload: Json) -> str:
    spec = workload["spec"]
    return str(((spec.get("strategy") or spec.get("updateStrategy") or {}).get("type")) or "RollingUpdate")


def _scaler(kube: Kube, kind: str, namespace: str, name: str, notes: list[str]) -> tuple[str, int, int] | None:
    for one in _shown(kube, paths.autoscalers(namespace), "HorizontalPodAutoscalers", notes):
        target = one["spec"].get("scaleTargetRef") or {}
        if (target.get("kind"), target.get("name")) == (kind, name):
            return str(one["metadata"]["name"]), int(one["spec"].get("minReplicas") or 1), int(one["spec"]["maxReplicas"])
    return None


def _services(kube: Kube, namespace: str, template: Json, notes: list[str]) -> tuple[str, ...]:
    labels = (template.get("metadata") or {}).get("labels") or {}
    found = []
    for one in _shown(kube, paths.services(namespace), "Services", notes):
        selector = one["spec"].get("selector") or {}
        if selector and selector.items() <= labels.items():
            found.append(str(one["metadata"]["name"]))
    return tuple(sorted(found))


def _shown(kube: Kube, path: str, what: str, notes: list[str]) -> list[Json]:
    try:
        return kube.list(path)
    except (Forbidden, NotFound):
        notes.append(f"{what} could not be listed with these credentials")
        return []


def _metrics(kube: Kube, template: Json, ready: list[Json], seconds: float, notes: list[str]) -> Metrics | None:
    """The metrics of the first ready pod that shows any."""
    if not ready:
        notes.append("no pod is ready, so its metrics could not be looked at")
        return None
    meta, annotations = ready[0]["metadata"], (template.get("metadata") or {}).get("annotations") or {}
    path = str(annotations.get("prometheus.io/path") or PAGE)
    own = port_of(template, None)
    tried = list(dict.fromkeys(port for port in (own, *_ports(template)) if port is not None))[:MOST_PORTS]
    for port in tried:
        where = paths.pod_proxy(meta["namespace"], meta["name"], port, path)
        page = _page(kube, where, notes)
        if page is None:
            continue
        found = discover(page)
        return Metrics(meta["name"], port, path, found, _rps(kube, where, page, found, seconds, notes))
    told = ", ".join(map(str, tried)) or "no declared port"
    notes.append(f"no metrics page was found at {path} of the pod {meta['name']} ({told})")
    return None


def _page(kube: Kube, path: str, notes: list[str]) -> bytes | None:
    try:
        answer = kube.fetch(path, headers={"Accept": "text/plain;version=0.0.4,*/*;q=0.1"}, timeout=5.0, limit=_LONGEST_PAGE)
    except Forbidden as error:
        notes.append(f"the pod's metrics could not be read: {error.message}")
        return None
    except KubeError:
        return None
    return answer.body if answer.status == 200 and discover(answer.body).names else None


def _rps(kube: Kube, path: str, first: bytes, found: Found, seconds: float, notes: list[str]) -> float | None:
    """Users' requests a second at this pod, watched for some seconds."""
    if not found.counters or seconds <= 0:
        return None
    before, began = counted(first, found.counters[0]), clock.monotonic()
    clock.sleep(seconds)
    page = _page(kube, path, notes)
    after, passed = (counted(page, found.counters[0]) if page is not None else None), clock.monotonic() - began
    if before is None or after is None or after < before or passed <= 0:
        return None
    return (after - before) / passed


def by_source(reads: tuple[Reference, ...]) -> dict[tuple[str, str], list[Reference]]:
    """What the pods read, by kind and name, with every place where it is read."""
    found: dict[tuple[str, str], list[Reference]] = {}
    for one in reads:
        found.setdefault((one.kind, one.name), []).append(one)
    return found
