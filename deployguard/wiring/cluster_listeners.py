"""Where users of an arm, and of the whole workload, are served: what a probe walks to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.model.target import CANDIDATE, STABLE, Desired, Instance, TargetView
from deployguard.targets.kubernetes.marks import WorkloadRef
from deployguard.targets.kubernetes.workload import KubeTarget

ALL = "all"


class ListeningTarget:
    """The workload, with the addresses of its arms and of its Service in every view."""

    def __init__(self, kube: Kube, target: KubeTarget, service: str | None) -> None:
        self._kube, self._target, self._service = kube, target, service
        self._entrance: str | None = None

    def observe(self) -> TargetView:
        """What runs where now, and where it is asked."""
        view = self._target.observe()
        return msgspec.structs.replace(view, listeners=self._listeners(view))

    def shift(self, desired: Desired, basis: str) -> None:
        """Accept `desired`, durably, and begin to bring it about."""
        self._target.shift(desired, basis)

    def renew(self, fence: int, lease: float) -> None:
        """Keep the candidate for `lease` seconds more."""
        self._target.renew(fence, lease)

    def _listeners(self, view: TargetView) -> dict[str, str]:
        """The addresses of each arm, several after commas; an arm without a ready pod has none."""
        candidate = view.told.candidate if view.told is not None else None
        arms: dict[str, list[Instance]] = {STABLE: [], CANDIDATE: []}
        for one in view.instances:
            if one.ready and one.address:
                arms[CANDIDATE if candidate is not None and one.assigned == candidate else STABLE].append(one)
        found = {arm: ",".join(one.address for one in sorted(ones, key=lambda i: i.id)) for arm, ones in arms.items() if ones}
        if self._entrance is None:
            self._entrance = entrance(self._kube, self._target.ref, self._service)
        return found | ({ALL: self._entrance} if self._entrance else {})


def entrance(kube: Kube, ref: WorkloadRef, named: str | None) -> str:
    """The address of the Service before the workload: the named one, or the first whose selector takes its pods; empty for none.

    Raises `KubeError` when nobody can tell: without it a journey would be walked by fewer ways, and nobody would know.
    """
    if named is not None:
        return _address(kube, kube.get(f"{paths.services(ref.namespace)}/{named}"))
    workload = kube.get(paths.workload(ref.kind, ref.namespace, ref.name))
    labels = (workload["spec"]["template"].get("metadata") or {}).get("labels") or {}
    found = [one for one in kube.list(paths.services(ref.namespace)) if _takes(one, labels)]
    return _address(kube, min(found, key=lambda one: str(one["metadata"]["name"]))) if found else ""


def _takes(service: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    selector = service["spec"].get("selector") or {}
    return bool(selector) and bool(service["spec"].get("ports")) and all(labels.get(key) == value for key, value in selector.items())


def _address(kube: Kube, service: Mapping[str, Any]) -> str:
    """Straight to its address in the cluster, through the API server from elsewhere."""
    spec, meta = service["spec"], service["metadata"]
    port = spec["ports"][0]["port"]
    if kube.in_cluster and spec.get("clusterIP") not in (None, "", "None"):
        return f"http://{spec['clusterIP']}:{port}"
    return f"kube-service://{meta['namespace']}/{meta['name']}:{port}"
