"""A workload of a cluster as commands and drivers need it: its target, the content of its versions, and what it is now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deployguard.errors import UserError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import Forbidden, NotFound
from deployguard.model.target import Desired, TargetView
from deployguard.model.version import Version
from deployguard.targets.kubernetes import inplace, marks
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.daemonset import DaemonSetTarget
from deployguard.targets.kubernetes.deployment import DeploymentTarget, autoscaler
from deployguard.targets.kubernetes.inplace_target import InPlaceTarget
from deployguard.targets.kubernetes.looking import Scene, Source, shape_of
from deployguard.targets.kubernetes.marks import Json, WorkloadRef
from deployguard.targets.kubernetes.promotion import ground_of
from deployguard.targets.kubernetes.references import ConfigRef, containers, unguardable
from deployguard.targets.kubernetes.settings import ConfigContent
from deployguard.targets.kubernetes.statefulset import StatefulSetTarget

IN_PLACE = ("StatefulSet", "DaemonSet")
"""Kinds whose candidates run in place of stable pods."""
_GITOPS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}


@dataclass(frozen=True, slots=True)
class Live:
    """A workload as it is now.

    `template` is its pod template as the server stores it, `version` what pods of it run, `source` the version that template and config
    sources ask for now. `contents` are the sources that are there. `replicas` are wanted, `ready` serve. `hpa` is the autoscaler that
    sizes it, `strategy` how it replaces pods, in words. `warnings` is what a person should know before a rollout, a sentence each.
    """

    template: Json
    contents: dict[ConfigRef, ConfigContent]
    version: Version
    source: Version
    replicas: int
    ready: int
    hpa: str
    paused: bool
    strategy: str
    warnings: tuple[str, ...]


class _Kind(Protocol):
    def observe(self) -> TargetView: ...
    def shift(self, desired: Desired, basis: str) -> None: ...
    def renew(self, fence: int, lease: float) -> None: ...
    def close(self) -> None: ...


class KubeTarget:
    """The Target port for one workload of a cluster, whatever its kind, and what a rollout needs besides."""

    def __init__(self, kube: Kube, ref: WorkloadRef, config: tuple[ConfigRef, ...], target: _Kind, contents: Contents) -> None:
        self.kube = kube
        self.ref = ref
        self.config = config
        self._target = target
        self._contents = contents

    def observe(self) -> TargetView:
        """What runs where now."""
        return self._target.observe()

    def shift(self, desired: Desired, basis: str) -> None:
        """Accept `desired`, durably, and begin to bring it about."""
        self._target.shift(desired, basis)

    def renew(self, fence: int, lease: float) -> None:
        """Keep the candidate for `lease` seconds more."""
        self._target.renew(fence, lease)

    def contents(self) -> Contents:
        """What its versions are made of."""
        return self._contents

    def live(self) -> Live:
        """What the workload is now. Raises `UserError` when there is no such workload."""
        workload = self._workload()
        sources = {ref: self._source(ref) for ref in self.config}
        contents = {ref: ConfigContent.of({"kind": ref.kind, **obj}) for ref, obj in sources.items() if obj is not None}
        digests = {ref: self._contents.digest_of(ref, contents[ref]) if ref in contents else "" for ref in self.config}
        spec = workload["spec"]
        template = inplace.at_rest(workload, self._contents) if self.ref.kind in IN_PLACE else spec["template"]
        shape = shape_of(template, self._contents)
        scene = Scene(workload, (), {ref: Source(ref, sources[ref], digest) for ref, digest in digests.items()})
        ground = ground_of(scene, self._contents)
        scaler, unseen = self._autoscaler()
        status = workload.get("status") or {}
        return Live(
            template=template,
            contents=contents,
            version=ground.version(shape),
            source=Version(shape.release, scene.config),
            replicas=int(spec.get("replicas", status.get("desiredNumberScheduled", 1))),
            ready=int(status.get("readyReplicas", status.get("numberReady", 0))),
            hpa=scaler,
            paused=bool(spec.get("paused")),
            strategy=_strategy(workload),
            warnings=(
                *unseen,
                *_warnings(workload, scaler, self.ref.kind in IN_PLACE),
                *(inplace.warnings(self.ref.kind, workload, self.config) if self.ref.kind in IN_PLACE else ()),
                *_source_warnings(sources),
                *unguardable(template, self.config),
            ),
        )

    def close(self) -> None:
        """End what is kept running."""
        self._target.close()

    def _workload(self) -> Json:
        try:
            return self.kube.get(paths.workload(self.ref.kind, self.ref.namespace, self.ref.name))
        except NotFound as error:
            known = [marks.name(one) for one in self.kube.list(paths.workloads(self.ref.kind, self.ref.namespace))]
            raise UserError(
                f"there is no {self.ref}", hint=f"there are {', '.join(sorted(known)[:10])}" if known else "is it the right namespace?"
            ) from error

    def _source(self, ref: ConfigRef) -> Json | None:
        try:
            return self.kube.get(paths.content(ref.kind, self.ref.namespace, ref.name))
        except NotFound:
            return None

    def _autoscaler(self) -> tuple[str, list[str]]:
        try:
            return autoscaler(self.kube, self.ref), []
        except Forbidden as error:
            return "", [f"nobody can tell whether an autoscaler sizes {self.ref}: {error.message}"]


def workload_target(
    kube: Kube,
    ref: WorkloadRef,
    config: tuple[ConfigRef, ...] = (),
    *,
    port: int | str | None = None,
    capacity: str = "surge",
    pool: str | None = None,
    direct: bool | None = None,
) -> KubeTarget:
    """The target for a workload. `direct`: pods are reached by their own addresses; when not given, if we run in the cluster.

    Nothing has been asked yet. Raises `UserError` for a kind that cannot be guarded.
    """
    contents = Contents(kube, ref)
    reached = kube.in_cluster if direct is None else direct
    made: _Kind
    match ref.kind:
        case "Deployment":
            made = DeploymentTarget(kube, ref, config, contents=contents, port=port, capacity=capacity, direct=reached)
        case "StatefulSet" | "DaemonSet":
            made = in_place_target(kube, ref, config, contents=contents, port=port, pool=pool, direct=reached)
        case _:
            raise UserError(f"could not guard {ref}: its kind is not known", hint="Deployments, StatefulSets and DaemonSets can be guarded")
    return KubeTarget(kube, ref, config, made, contents)


def in_place_target(
    kube: Kube,
    ref: WorkloadRef,
    config: tuple[ConfigRef, ...] = (),
    *,
    contents: Contents | None = None,
    port: int | str | None = None,
    pool: str | None = None,
    direct: bool = False,
) -> InPlaceTarget:
    """The target for a workload of one of the kinds `IN_PLACE`."""
    kept = contents or Contents(kube, ref)
    if ref.kind == "StatefulSet":
        return StatefulSetTarget(kube, ref, config, contents=kept, port=port, direct=direct)
    return DaemonSetTarget(kube, ref, config, contents=kept, port=port, direct=direct, pool=pool)


def _strategy(workload: Mapping[str, Any]) -> str:
    spec = workload["spec"]
    found = spec.get("strategy") or spec.get("updateStrategy") or {}
    rolling = found.get("rollingUpdate") or {}
    parts = [f"{words} {rolling[field]}" for field, words in (("maxSurge", "surge"), ("maxUnavailable", "unavailable")) if field in rolling]
    return f"{found.get('type', 'RollingUpdate')}" + (f" ({', '.join(parts)})" if parts else "")


def _warnings(workload: Mapping[str, Any], scaler: str, in_place: bool) -> Iterator[str]:
    spec = workload["spec"]
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        yield "its strategy is Recreate: a promotion ends every pod before the first new one starts, in one step, and so does its way back"
    if str((strategy.get("rollingUpdate") or {}).get("maxUnavailable", "")) in ("0", "0%"):
        yield "its maxUnavailable is 0: once pods of a promotion are available, the way back is as slow as new stable pods start"
    if spec.get("paused"):
        yield "it is paused: a promotion un-pauses it for as long as it takes, and pauses it again"
    if spec.get("revisionHistoryLimit") == 0:
        yield "its revisionHistoryLimit is 0: the way back cannot use the old revision again"
    if spec.get("replicas", 1) == 0:
        yield "it has no replicas: there is nothing to compare a candidate with"
    if scaler and not in_place:
        yield f"the HorizontalPodAutoscaler {scaler} sizes it: what canary pods use counts in its average"
    yield from _template_warnings(spec["template"], in_place)
    marked = {**marks.labels(workload), **marks.notes(workload)}
    for key, tool in _GITOPS.items():
        if key in marked and in_place:
            yield f"{tool} keeps it as its source says: candidates are in its own template, so let it not undo what it did not write"
        elif key in marked:
            yield f"{tool} keeps it as its source says: let the source say the new version before or with a promotion, or it is put back"


def _template_warnings(template: Mapping[str, Any], in_place: bool) -> Iterator[str]:
    spec = template.get("spec") or {}
    for words, one in containers(template):
        if words.startswith("container ") and not one.get("readinessProbe"):
            yield f"{words} has no readiness probe: it counts as ready as soon as it runs"
        if not in_place and any(port.get("hostPort") for port in one.get("ports") or []):
            yield f"{words} asks for a hostPort: a canary and a stable pod cannot share a node"
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec.get("volumes") or [] if v.get("persistentVolumeClaim")]
    if claims and not in_place:
        yield f"canary pods mount the same claims as stable ones: {', '.join(claims)}"


def _source_warnings(sources: Mapping[ConfigRef, Json | None]) -> Iterator[str]:
    for ref, obj in sources.items():
        if obj is None:
            yield f"{ref} is guarded but is not there"
        elif obj.get("immutable"):
            yield f"{ref} is immutable: a promotion of another content of it cannot be written; use a new name for each content"
