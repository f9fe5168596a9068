"""A namespace of a cluster as the home of guards, and what they guard there, found again from what a rollout saved."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployguard.errors import DeployguardError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.model.document import Document
from deployguard.stores import kube as kube_store
from deployguard.stores import kube_stop
from deployguard.stores.kube import KubeStore
from deployguard.targets.kubernetes.marks import WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.wiring.cluster_workload import ClusterWorkload, Guarded
from deployguard.wiring.home import usual_directory

if TYPE_CHECKING:
    from deployguard.model.guard import GuardFile
    from deployguard.model.target import TargetView
    from deployguard.wiring.guard import Rig


def guarded(kube: Kube, file: GuardFile) -> ClusterWorkload:
    """The workload that a guard names, in the namespace of the connection."""
    target = file.spec.target
    return ClusterWorkload(
        kube,
        Guarded(
            ref=WorkloadRef(target.kind, kube.namespace, target.name),
            config=tuple(ConfigRef(source.kind, source.name) for source in file.spec.config),
            port=target.port,
            service=target.service,
            capacity=target.capacity,
            pool=target.pool,
        ),
    )


def placed(place: dict[str, Any], kube: Kube) -> ClusterWorkload:
    """The workload of a saved rollout, asked through `kube`."""
    return ClusterWorkload(kube, Guarded.read(place))


def _cache(kube: Kube, namespace: str) -> Path:
    """Where this machine keeps recordings of the guards of a namespace."""
    return usual_directory() / "clusters" / hashlib.sha256(kube.server.encode()).hexdigest()[:10] / namespace


def _place(document: object) -> tuple[str, str, str] | None:
    """Kind, namespace and name of the workload that a saved document guards."""
    rollout = document.rollout if isinstance(document, Document) else None
    return (rollout.place["kind"], rollout.place["namespace"], rollout.place["name"]) if rollout is not None and rollout.place else None


class ClusterHome:
    """A namespace of a cluster; all of them with `everywhere`, where guards are called `namespace/name`."""

    hint = "name another namespace with `-n`, or another cluster with `--context`"

    def __init__(self, connect: Callable[[], Kube], flags: list[str], *, everywhere: bool = False) -> None:
        self._connect = connect
        self._flags = flags
        self._everywhere = everywhere
        self._owners: dict[str, dict[str, Any]] = {}
        self._labels = ""

    @functools.cached_property
    def kube(self) -> Kube:
        """The cluster; connected at first need."""
        return self._connect()

    @property
    def where(self) -> str:
        """What messages call it."""
        return "any namespace" if self._everywhere else f"namespace {self.kube.namespace}"

    def guards(self) -> list[str]:
        """The names of all guards with anything saved here, sorted."""
        namespace = None if self._everywhere else self.kube.namespace
        found = kube_store.documents(self.kube, namespace)
        if self._labels:
            chosen = {one for kind in paths.WORKLOADS for one in self._labelled(kind, namespace)}
            found = [one for one in found if _place(one[2]) in chosen]
        return sorted(f"{where}/{name}" if self._everywhere else name for where, name, _ in found)

    def select(self, labels: str) -> None:
        """From now on only guards of workloads that carry these labels are known."""
        self._labels = labels

    def _labelled(self, kind: str, namespace: str | None) -> list[tuple[str, str, str]]:
        path = paths.workloads(kind, namespace or "")
        found = self.kube.list(path, {"labelSelector": self._labels})
        return [(kind, one["metadata"]["namespace"], one["metadata"]["name"]) for one in found]

    def own(self, guard: str, workload: ClusterWorkload) -> None:
        """What is saved for the guard from now on belongs to its workload, and goes with it."""
        self._owners[guard] = workload.owner

    def store(self, guard: str) -> KubeStore:
        """What is saved for a guard, whether or not anything is yet. Recordings, which are large, stay on the machine that drives."""
        namespace, _, name = guard.rpartition("/")
        namespace = namespace or self.kube.namespace
        return KubeStore(self.kube, namespace, name, self._owners.get(guard), directory=_cache(self.kube, namespace) / name)

    def stopped(self) -> str:
        """Why every promotion is frozen; empty when none is."""
        return kube_stop.stopped(self.kube, self.kube.namespace)

    def stop(self, who: str, reason: str) -> None:
        """Every promotion is frozen."""
        kube_stop.stop(self.kube, self.kube.namespace, who, reason)

    def clear(self) -> None:
        """Promotions are free again."""
        kube_stop.clear(self.kube, self.kube.namespace)

    def view(self, document: Document) -> TargetView | None:
        """What runs now; None when the cluster does not answer for it."""
        if document.rollout is None or not document.rollout.place:
            return None
        try:
            return placed(document.rollout.place, self.kube).observe()
        except DeployguardError:
            return None

    def resumed(self, document: Document) -> Rig:
        """What drives the saved rollout, from the saved state alone. Raises `UserError` when there is none."""
        from deployguard.wiring.guard import resumed

        return resumed(self, document)

    def flags(self) -> list[str]:
        """The options by which another process finds this home."""
        named = self._flags if "--namespace" in self._flags else [*self._flags, "--namespace", self.kube.namespace]
        return list(named)
