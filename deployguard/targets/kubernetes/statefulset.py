"""A StatefulSet as a target: candidates by partition, from the highest ordinal down.

The controller replaces pods one at a time and keeps to the partition also when a pod is lost. What it does not do is replace a changed pod
that never became ready, not even when its template is taken back: under OrderedReady it waits for that very pod. So the way back deletes
those. Candidates that are ready are taken back by the controller, one after another; the partition stays until all are.
"""

from __future__ import annotations

from deployguard.model.target import Desired
from deployguard.model.version import Version
from deployguard.targets.kubernetes import inplace, marks, promotion
from deployguard.targets.kubernetes.inplace import Hold
from deployguard.targets.kubernetes.inplace_target import Crew, InPlaceTarget
from deployguard.targets.kubernetes.looking import Scene
from deployguard.targets.kubernetes.marks import Json, Told

_INDEX = "apps.kubernetes.io/pod-index"


class StatefulSetTarget(InPlaceTarget):
    """The Target port for one StatefulSet.

    Where the configuration changes, candidates of earlier stages start a second time at the last one: see `inplace`.
    """

    def _wanted(self, workload: Json) -> int:
        return int(workload["spec"].get("replicas", 1))

    def _hold(self, scene: Scene, desired: Desired, crew: Crew) -> Hold:
        workload = scene.workload
        rolling = workload["spec"]["updateStrategy"].get("rollingUpdate") or {}
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling | {"partition": partition(desired, self._wanted(workload))}}
        done = promotion.rolled(workload) and all(one.version == promotion.main(desired) for one in crew)
        return Hold(strategy, tried=promotion.exposing(desired), done=done)

    def _victims(self, scene: Scene, desired: Desired, crew: Crew) -> Crew:
        if desired.full:
            return ()
        if not inplace.ours(desired):
            return tuple(one for one in crew if one.version != desired.stable and not one.ready)
        # A workload that grew has a higher partition: what is below it now is no candidate any more.
        least = partition(desired, self._wanted(scene.workload))
        return tuple(one for one in crew if one.version == desired.candidate and index(scene.workload, one.pod) < least)

    def _absent(self, workload: Json, told: Told | None, runs: Version) -> Version:
        if told is None or not promotion.exposing(told.desired):
            return runs
        wanted, there = self._wanted(workload), {index(workload, one.pod) for one in self._crew}
        highest = max((place for place in range(wanted) if place not in there), default=wanted)
        return told.desired.stable if highest < partition(told.desired, wanted) else runs


def partition(desired: Desired, wanted: int) -> int:
    """The lowest place that a candidate may have. Only a promotion may take them all, however small the workload has become."""
    if desired.full:
        return 0
    return max(wanted - desired.count, min(1, wanted), 0)


def index(workload: Json, pod: Json) -> int:
    """The place of a pod, counted from 0 whatever its workload's first ordinal is."""
    ordinal = marks.number(pod, _INDEX)
    if ordinal is None:
        ordinal = int(marks.name(pod).rpartition("-")[2])
    return ordinal - int((workload["spec"].get("ordinals") or {}).get("start", 0))
