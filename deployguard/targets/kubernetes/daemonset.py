"""A DaemonSet as a target: candidates node by node, pool after pool, by deleting stable pods while its strategy is `OnDelete`.

The template is the candidate's only while a batch is being replaced and the stable one at all other times: a pod that is lost by chance
comes back stable. A promotion leaves the candidate's template in place and replaces what is left, batch by batch, each watched for the
promotion's pace. The user's own strategy returns with the last write, when every pod is of the template as it is then.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from deployguard import clock
from deployguard.kube.client import Kube
from deployguard.model.target import Desired, TargetView
from deployguard.model.version import Version
from deployguard.targets.kubernetes import inplace, promotion
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.doom import condition
from deployguard.targets.kubernetes.inplace import Hold
from deployguard.targets.kubernetes.inplace_target import Crew, InPlaceTarget, Member
from deployguard.targets.kubernetes.looking import Scene
from deployguard.targets.kubernetes.marks import Json, Told, WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.template import config_of, digest

_ON_DELETE = "OnDelete"
_NODES = "/api/v1/nodes"
_NODES_EVERY = 30.0
"""Seconds for which the nodes' labels are remembered."""


class DaemonSetTarget(InPlaceTarget):
    """The Target port for one DaemonSet. `pool` is the node label whose values are the pools, None for none.

    Where the configuration changes, candidates of earlier stages start a second time at the last one: see `inplace`.
    """

    def __init__(
        self,
        kube: Kube,
        ref: WorkloadRef,
        config: tuple[ConfigRef, ...],
        *,
        contents: Contents,
        port: int | str | None,
        direct: bool,
        pool: str | None,
    ) -> None:
        super().__init__(kube, ref, config, contents=contents, port=port, direct=direct)
        self._pool = pool
        self._pools: dict[str, str] = {}
        self._pools_read: float | None = None

    def observe(self) -> TargetView:
        """What runs where now. Where pools are named their nodes are read first: without the right to it nothing is begun."""
        self._pools_of_nodes()
        return super().observe()

    def _wanted(self, workload: Json) -> int:
        return int((workload.get("status") or {}).get("desiredNumberScheduled", 0))

    def _hold(self, scene: Scene, desired: Desired, crew: Crew) -> Hold:
        workload = scene.workload
        missing = max(0, self._wanted(workload) - len(crew))
        more = promotion.exposing(desired) and _room(desired, crew, missing) > 0
        replacing = promotion.exposing(desired) and missing > 0 and self._shows_candidate(workload, desired)
        done = not missing and promotion.seen(workload) and all(_exact(one, workload) for one in crew)
        return Hold({"type": _ON_DELETE}, tried=more or replacing, done=done)

    def _victims(self, scene: Scene, desired: Desired, crew: Crew) -> Crew:
        workload = scene.workload
        if workload["spec"]["updateStrategy"].get("type") != _ON_DELETE:
            return ()  # the user's own strategy: its controller replaces what must go
        missing = max(0, self._wanted(workload) - len(crew))
        if promotion.exposing(desired):
            if not self._shows_candidate(workload, desired):
                return ()
            stable = [one for one in crew if one.version != desired.candidate]
            return self._ordered(stable, crew, desired)[: max(0, _room(desired, crew, missing))]
        old = [one for one in crew if not _exact(one, workload)]
        broken, serving = [one for one in old if not one.ready], [one for one in old if one.ready]
        idle = missing + len([one for one in crew if _exact(one, workload) and not _watched(one, desired.pace)])
        room = max(0, desired.batch - idle - len(broken))
        return (*self._ordered(broken, crew, desired), *self._ordered(serving, crew, desired)[:room])

    def _absent(self, workload: Json, told: Told | None, runs: Version) -> Version:
        if told is None or not promotion.exposing(told.desired) or self._shows_candidate(workload, told.desired):
            return runs
        return told.desired.stable

    def _shows_candidate(self, workload: Json, desired: Desired) -> bool:
        return inplace.alike(workload["spec"]["template"], inplace.tried_template(desired, self._contents))

    def _ordered(self, members: Iterable[Member], crew: Crew, desired: Desired) -> Crew:
        """Pods as they are replaced: the pool that has begun first, then pool by pool, node by node."""
        pools = self._pools_of_nodes()
        begun = {pools.get(_node(one), "") for one in crew if one.version == desired.candidate}
        ranked = sorted(members, key=lambda one: (pools.get(_node(one), "") not in begun, pools.get(_node(one), ""), _node(one)))
        return tuple(ranked)

    def _pools_of_nodes(self) -> Mapping[str, str]:
        """The pool of each node; none at all when the guard names no pools."""
        now = clock.monotonic()
        if self._pool is not None and (self._pools_read is None or now - self._pools_read >= _NODES_EVERY):
            nodes: list[dict[str, Any]] = self._kube.list(_NODES)
            self._pools = {one["metadata"]["name"]: (one["metadata"].get("labels") or {}).get(self._pool, "") for one in nodes}
            self._pools_read = now
        return self._pools


def _room(desired: Desired, crew: Crew, missing: int) -> int:
    """How many more pods may be replaced now: as many as are wanted, and no more out of service at a time than a batch.

    A pod that is missing may come back as either; it counts as a candidate and as out of service.
    """
    candidates = [one for one in crew if one.version == desired.candidate]
    idle = missing + len([one for one in candidates if not one.ready])
    return min(desired.count - len(candidates) - missing, desired.batch - idle)


def _exact(one: Member, workload: Json) -> bool:
    """Whether a pod was made from the very template that the workload has now."""
    template = workload["spec"]["template"]
    return one.revision is not None and (one.revision.form, one.revision.shape.config) == (digest(template), config_of(template) or "")


def _watched(one: Member, pace: int) -> bool:
    """Whether a pod has served for `pace` seconds."""
    since = condition(one.pod, "Ready").get("lastTransitionTime")
    if not one.ready or not since:
        return False
    return clock.now() - dt.datetime.fromisoformat(since) >= dt.timedelta(seconds=pace)


def _node(one: Member) -> str:
    return (one.pod.get("spec") or {}).get("nodeName") or ""
