"""A Deployment as a target: candidates run in a sibling beside it, a promotion is its own rolling update.

The view says what pods really run, by the templates of their ReplicaSets; never what a spec asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from deployguard import clock
from deployguard.errors import RefusedError, StaleView, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import NotFound
from deployguard.model.target import Desired, Instance, TargetView
from deployguard.model.version import Version
from deployguard.targets.kubernetes import canary as canaries
from deployguard.targets.kubernetes import marks, promotion
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.looking import Eyes, Ground, Made, Scene, shape_of
from deployguard.targets.kubernetes.marks import Json, WorkloadRef
from deployguard.targets.kubernetes.pods import address_of, instance, leaving, port_of, unborn
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.writing import Writer

RENEW_BELOW = 2 / 3
"""Of a lease: with less than this left it is renewed, so that not every tick writes."""


class DeploymentTarget:
    """The Target port for one Deployment. Raises `StaleView` and `WorldError` as the port says.

    `capacity` is `surge` (canaries come on top) or `swap` (in place of as many). `direct`: pods are reached by their own addresses.
    """

    def __init__(
        self,
        kube: Kube,
        ref: WorkloadRef,
        config: tuple[ConfigRef, ...],
        *,
        contents: Contents,
        port: int | str | None,
        capacity: str,
        direct: bool,
    ) -> None:
        self._kube = kube
        self._ref = ref
        self._contents = contents
        self._port = port
        self._swaps = capacity == "swap"
        self._direct = direct
        self._eyes = Eyes(kube, ref, config, contents)
        self._writer = Writer(kube, ref, contents, swaps=self._swaps)
        self._was_ready: set[str] = set()
        self._last: Scene | None = None

    def observe(self) -> TargetView:
        """What runs where now, in a few reads side by side."""
        scene, pods = self._eyes.all()
        self._last = scene
        workload, told = scene.workload, marks.told(scene.workload)
        ground = promotion.ground_of(scene, self._contents)
        current = shape_of(workload["spec"]["template"], self._contents)
        swap = told.swap if told is not None else None
        sized = workload["spec"].get("replicas", 1)
        return TargetView(
            fence=marks.fence_of(workload),
            basis=basis_of(scene),
            wanted=swap.replicas if swap is not None and swap.left == sized else sized,
            told=told.desired if told is not None else None,
            instances=self._instances(scene, pods, ground, told),
            retreated=marks.number(workload, marks.RETREATED),
            adopted=ground.version(current),
            surge=not self._swaps,
            pending=self._pending(scene, pods, told),
            superseded=promotion.superseded_words(scene, self._ref) if promotion.superseded(scene, self._contents) else "",
            source_changed=promotion.source_changed_words(scene, told, self._contents),
            source=Version(current.release, scene.config),
        )

    def shift(self, desired: Desired, basis: str) -> None:
        """Accept `desired`, durably, and make every write towards it that can be made now."""
        scene = self._eyes.scene()
        accept(scene, desired, basis, self._ref)
        if self._swaps and promotion.exposing(desired):
            self._refuse_autoscaled()
        scene = self._writer.bring(scene, desired, until_of(desired.lease))
        self._last = scene
        for name in desired.restart:
            if (pod := self._pod(name)) is not None and not leaving(pod):
                self._writer.delete_pod(pod)

    def renew(self, fence: int, lease: float) -> None:
        """Keep the canary for `lease` seconds more; written only when a good part of the last lease has gone."""
        scene = self._last or self._eyes.scene()
        workload, told = scene.workload, marks.told(scene.workload)
        if marks.fence_of(workload) != fence or marks.number(workload, marks.RETREATED) == fence or told is None:
            raise StaleView(f"fence {fence} may not renew: {self._ref} carries {marks.fence_of(workload)}")
        mine = canaries.of(scene, told.desired)
        until = until_of(lease)
        if mine is None or until is None:
            return
        if promotion.exposing(told.desired) and marks.fence_of(mine) != fence:
            raise StaleView(f"fence {fence} may not renew: the canary of {self._ref} carries {marks.fence_of(mine)}")
        left = (marks.number(mine, marks.UNTIL) or 0) - clock.now().timestamp()
        if left >= lease * RENEW_BELOW:
            return
        self._writer.patch_canary(mine, canaries.renewing_patch(mine, until))

    def close(self) -> None:
        """End the threads that look."""
        self._eyes.close()

    def _instances(self, scene: Scene, pods: Iterable[Json], ground: Ground, told: marks.Told | None) -> tuple[Instance, ...]:
        alive = [pod for pod in pods if not leaving(pod)]
        made = self._eyes.made(alive)
        uids = {marks.uid(scene.workload), *map(marks.uid, scene.canaries)}
        mine = [pod for pod in alive if self._belongs(pod, made, uids)]
        versions = {marks.uid(pod): _version(pod, made, ground) for pod in mine}
        candidate = told.desired.candidate if told is not None else None
        troubled = sorted((pod for pod in mine if in_trouble(pod)), key=lambda pod: versions[marks.uid(pod)] != candidate)
        events = self._eyes.events(troubled) if troubled else {}
        tails = self._eyes.tails(pod for pod in mine if versions[marks.uid(pod)] == candidate or marks.CANARY in marks.labels(pod))
        found = [self._instance(pod, versions[marks.uid(pod)], events, tails) for pod in mine]
        self._was_ready = {one.uid.partition("/")[0] for one in found if one.ready} | (self._was_ready & set(versions))
        return (*found, *self._unborn(scene, mine, made, versions, ground))

    def _belongs(self, pod: Json, made: Mapping[str, Made], uids: set[str]) -> bool:
        """Whether a pod is the workload's or a canary's. One of ours whose maker is gone still counts as exposure."""
        owner = _made_by(pod, made)
        return owner in uids or (not owner and marks.labels(pod).get(marks.CANARY) == marks.label_value(self._ref.name))

    def _instance(
        self, pod: Json, version: Version | None, events: Mapping[str, list[Json]], tails: Mapping[str, tuple[str, ...]]
    ) -> Instance:
        uid = marks.uid(pod)
        return instance(
            pod,
            version,
            events=events.get(uid, ()),
            address=address_of(pod, port_of(pod, self._port), direct=self._direct),
            seen_ready=uid in self._was_ready,
            now=clock.now(),
            tail=tails.get(uid, ()),
        )

    def _unborn(
        self, scene: Scene, pods: list[Json], made: Mapping[str, Made], versions: Mapping[str, Version | None], ground: Ground
    ) -> tuple[Instance, ...]:
        """What should be there and cannot be created, of each canary, and the next one of the workload's own."""
        found: list[Instance] = []
        for one in scene.canaries:
            names = [marks.name(pod) for pod in pods if _made_by(pod, made) == marks.uid(one)]
            version = ground.version(shape_of(one["spec"]["template"], self._contents))
            found += unborn(_conditions(one), (), one["spec"].get("replicas", 1), names, place=marks.name(one), version=version)
        own, name = marks.uid(scene.workload), marks.name(scene.workload)
        runs = ground.version(shape_of(scene.workload["spec"]["template"], self._contents))
        names = [marks.name(pod) for pod in pods if _made_by(pod, made) == own and versions[marks.uid(pod)] == runs]
        if len(names) < scene.workload["spec"].get("replicas", 1):
            found += unborn(_conditions(scene.workload), (), len(names) + 1, names, place=name, version=runs)
        return tuple(found)

    def _pending(self, scene: Scene, pods: Iterable[Json], told: marks.Told | None) -> bool:
        """Whether writes are left to make: at once, or when the controller has done its part."""
        if told is None:
            return False
        desired = told.desired
        if marks.number(scene.workload, marks.RETREATED) == desired.fence and promotion.exposing(desired):
            return False
        theirs = promotion.superseded(scene, self._contents)
        left = told.before is not None and not desired.full and (not theirs or told.before.paused)
        if left or (desired.full and scene.canaries and not theirs):
            return True
        if any(marks.name(pod) in desired.restart and not leaving(pod) for pod in pods) or not self._writer.disowned(scene):
            return True
        try:
            return self._writer.next(scene, desired, None) is not None
        except WorldError:
            return True  # something is left, and to write it fails: the shift says why

    def _pod(self, name: str) -> Json | None:
        try:
            return self._kube.get(paths.pod(self._ref.namespace, name))
        except NotFound:
            return None

    def _refuse_autoscaled(self) -> None:
        scaler = autoscaler(self._kube, self._ref)
        if scaler:
            raise RefusedError(
                f"could not swap instances of {self._ref}: the HorizontalPodAutoscaler {scaler} owns their number",
                hint="guard it with `capacity: surge`",
            )


def autoscaler(kube: Kube, ref: WorkloadRef) -> str:
    """The name of the HorizontalPodAutoscaler that sizes the workload; empty when none does."""
    for one in kube.list(paths.autoscalers(ref.namespace)):
        aim = one["spec"]["scaleTargetRef"]
        if (aim.get("kind"), aim.get("name")) == (ref.kind, ref.name):
            return marks.name(one)
    return ""


def accept(scene: Scene, desired: Desired, basis: str, ref: WorkloadRef) -> None:
    """Raise `StaleView` for a word that is outdated, or that would expose more under the same fence."""
    fence, told = marks.fence_of(scene.workload), marks.told(scene.workload)
    if desired.fence < fence:
        raise StaleView(f"fence {desired.fence} is outdated: {ref} follows fence {fence}")
    if basis != basis_of(scene):
        raise StaleView(f"{ref} has changed since it was seen")
    if desired.fence > fence or desired.candidate is None:
        return
    if marks.number(scene.workload, marks.RETREATED) == fence:
        raise StaleView(f"fence {fence} has retreated: nobody drove the canary of {ref}, and it exposes nothing again")
    if told is None or told.desired == desired:
        return
    before = told.desired
    more = promotion.exposing(desired) and (before.candidate != desired.candidate or (not before.full and desired.count > before.count))
    if more or (desired.full and not before.full):
        raise StaleView(f"fence {fence} was already used for less: more exposure needs a higher fence")


def basis_of(scene: Scene) -> str:
    """What a conditional write must still find. Status changes do not count: a rolling update makes dozens of them."""
    workload = scene.workload
    said = {
        "uid": marks.uid(workload),
        "labels": {key: value for key, value in marks.labels(workload).items() if key in (marks.FENCE, marks.RETREATED)},
        "told": marks.notes(workload).get(marks.TOLD),
        "template": workload["spec"]["template"],
        "canaries": sorted([marks.uid(one), one["metadata"]["generation"], marks.fence_of(one)] for one in scene.canaries),
    }
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:24]


def until_of(lease: float) -> int | None:
    """Until when a lease that begins now lasts, in seconds since 1970; None for none."""
    return int(clock.now().timestamp() + lease + 0.999) if lease > 0 else None


def _made_by(pod: Json, made: Mapping[str, Made]) -> str:
    """The uid of the Deployment that a pod belongs to; empty when nobody can tell."""
    found = made.get(marks.owner(pod).get("uid", ""))
    return found.owner if found is not None else ""


def _version(pod: Json, made: Mapping[str, Made], ground: Ground) -> Version | None:
    found = made.get(marks.owner(pod).get("uid", ""))
    return ground.version(found.shape) if found is not None else None


def in_trouble(pod: Json) -> bool:
    """Whether a pod's events may say more than its status does."""
    return not any(c.get("type") == "Ready" and c.get("status") == "True" for c in (pod.get("status") or {}).get("conditions") or [])


def _conditions(deployment: Json) -> list[Json]:
    found: list[Json] = (deployment.get("status") or {}).get("conditions") or []
    return found
