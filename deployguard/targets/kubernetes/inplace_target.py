"""What StatefulSets and DaemonSets have in common as targets: candidates take the place of stable pods, one kind of pod set for both arms.

The view says what pods really run, by the templates of their ControllerRevisions; never what a spec asks for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from deployguard import clock
from deployguard.errors import StaleView, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import Conflict, FailedPrecondition, NotFound
from deployguard.kube.patches import add, pointer, test
from deployguard.model.target import Desired, Instance, TargetView
from deployguard.model.version import Version
from deployguard.targets.kubernetes import inplace, marks, promotion
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.deployment import RENEW_BELOW, accept, basis_of, in_trouble, until_of
from deployguard.targets.kubernetes.inplace import Hold
from deployguard.targets.kubernetes.looking import Eyes, Scene, shape_of
from deployguard.targets.kubernetes.marks import Json, Told, WorkloadRef
from deployguard.targets.kubernetes.pods import address_of, instance, leaving, port_of, unborn
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.revisions import Revision, Revisions
from deployguard.targets.kubernetes.writing import Write, Writer


@dataclass(frozen=True, slots=True)
class Member:
    """A pod of the workload that is not on its way out. `version` and `revision` are what it was made from, None when nobody can tell."""

    pod: Json
    version: Version | None
    revision: Revision | None

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        return not in_trouble(self.pod)

    @property
    def name(self) -> str:
        """Its pod's name."""
        return marks.name(self.pod)


Crew = tuple[Member, ...]


class InPlaceWriter(Writer):
    """Brings a workload and the sources of its configuration to what it was told; pods are deleted by the target itself."""

    def __init__(self, kube: Kube, ref: WorkloadRef, contents: Contents, hold: Callable[[Scene, Desired], Hold]) -> None:
        super().__init__(kube, ref, contents, swaps=False)
        self._hold = hold

    def next(self, scene: Scene, desired: Desired, until: int | None) -> Write | None:
        """The next write towards `desired`; None when nothing is left to write now."""
        reckoning = inplace.reckoned(scene, desired, self._contents, self._hold(scene, desired))
        if operations := inplace.patch_of(scene.workload, reckoning, until):
            return Write("patch", self._path, operations, "workload")
        for source, content in reckoning.sources:
            return self._source_write(source, content, desired.fence)
        self._refuse_foreign(desired, reckoning)
        return None

    def _check(self, workload: Json) -> None:
        known = marks.told(workload)
        if known is not None and known.before is not None:
            super()._check(workload)  # without it the template is somebody else's, freed of what was on trial


class InPlaceTarget(ABC):
    """The Target port for one workload without surge. Raises `StaleView` and `WorldError` as the port says."""

    def __init__(
        self, kube: Kube, ref: WorkloadRef, config: tuple[ConfigRef, ...], *, contents: Contents, port: int | str | None, direct: bool
    ) -> None:
        self._kube = kube
        self._ref = ref
        self._path = paths.workload(ref.kind, ref.namespace, ref.name)
        self._contents = contents
        self._port = port
        self._direct = direct
        self._eyes = Eyes(kube, ref, config, contents)
        self._revisions = Revisions(kube, ref, contents)
        self._writer = InPlaceWriter(kube, ref, contents, lambda scene, desired: self._hold(scene, desired, self._crew))
        self._crew: Crew = ()
        self._was_ready: set[str] = set()
        self._last: Scene | None = None

    @abstractmethod
    def _wanted(self, workload: Json) -> int:
        """How many pods there shall be."""

    @abstractmethod
    def _hold(self, scene: Scene, desired: Desired, crew: Crew) -> Hold:
        """How candidates are held back, and whether all is done."""

    @abstractmethod
    def _victims(self, scene: Scene, desired: Desired, crew: Crew) -> Crew:
        """The pods that must be deleted now, because no controller replaces them."""

    @abstractmethod
    def _absent(self, workload: Json, told: Told | None, runs: Version) -> Version:
        """The version that pods which should be there would run; `runs` is that of the template."""

    def observe(self) -> TargetView:
        """What runs where now, in a few reads side by side."""
        scene, told = self._look()
        workload, ground = scene.workload, promotion.ground_of(scene, self._contents)
        current = shape_of(workload["spec"]["template"], self._contents)
        theirs = promotion.superseded(scene, self._contents)
        # While candidates are tried the template is theirs at times; what the workload's owner asked for is what was there before.
        trial = told is not None and not theirs and promotion.exposing(told.desired)
        asked = told.was if told is not None and told.was is not None and trial else current
        return TargetView(
            fence=marks.fence_of(workload),
            basis=basis_of(scene),
            wanted=self._wanted(workload),
            told=told.desired if told is not None else None,
            instances=self._instances(scene, ground.version(current), told),
            retreated=marks.number(workload, marks.RETREATED),
            adopted=ground.version(asked),
            surge=False,
            pending=self._pending(scene, told, theirs=theirs),
            superseded=promotion.superseded_words(scene, self._ref) if theirs else "",
            source_changed=promotion.source_changed_words(scene, told, self._contents),
            source=Version(asked.release, scene.config),
        )

    def shift(self, desired: Desired, basis: str) -> None:
        """Accept `desired`, durably, and make every write towards it that can be made now."""
        scene, _told = self._look()
        accept(scene, desired, basis, self._ref)
        fresh = marks.fence_of(scene.workload) != desired.fence
        self._bring(scene, desired, until_of(desired.lease))
        if fresh:
            # A pod keeps its name here, so only the first word of a fence may restart it.
            for one in self._crew:
                if one.name in desired.restart:
                    self._writer.delete_pod(one.pod)

    def renew(self, fence: int, lease: float) -> None:
        """Keep the candidates for `lease` seconds more; written only when a good part of the last lease has gone."""
        workload = (self._last or self._eyes.scene()).workload
        told, until = marks.told(workload), until_of(lease)
        if marks.fence_of(workload) != fence or marks.number(workload, marks.RETREATED) == fence or told is None:
            raise StaleView(f"fence {fence} may not renew: {self._ref} carries {marks.fence_of(workload)}")
        left = (marks.number(workload, marks.UNTIL) or 0) - clock.now().timestamp()
        if until is None or not promotion.exposing(told.desired) or left >= lease * RENEW_BELOW:
            return
        label = pointer("metadata", "labels", marks.FENCE)
        operations = [
            test("/metadata/uid", marks.uid(workload)),
            test(label, str(fence)),
            test(pointer("metadata", "labels", marks.RETREATED), marks.labels(workload).get(marks.RETREATED)),
            add(pointer("metadata", "labels", marks.UNTIL), str(until)),
        ]
        try:
            found = self._kube.patch(self._path, operations)
        except (FailedPrecondition, Conflict, NotFound) as error:
            raise StaleView(f"fence {fence} may not renew: {self._ref} has changed since it was seen: {error.message}") from error
        if self._last is not None:
            self._last = replace(self._last, workload=found)

    def retreat(self) -> bool:
        """Candidates are taken back under the fence they have, and nobody exposes them again under it; whether anything was to be done.

        The workload carries that the fence has retreated before anything else is written.
        """
        scene, told = self._look()
        if told is None:
            return False
        if promotion.exposing(told.desired):
            operations = [test("/metadata/uid", marks.uid(scene.workload)), test("/metadata/labels", marks.labels(scene.workload))]
            label = add(pointer("metadata", "labels", marks.RETREATED), str(told.desired.fence))
            self._kube.patch(self._path, [*operations, label])
            scene, told = self._look()
        elif marks.number(scene.workload, marks.RETREATED) != told.desired.fence or not self._pending(scene, told, theirs=False):
            return False
        assert told is not None
        self._bring(scene, msgspec.structs.replace(told.desired, candidate=None, count=0, lease=0.0, full=False, restart=()), None)
        return True

    def close(self) -> None:
        """End the threads that look."""
        self._eyes.close()

    def _look(self) -> tuple[Scene, Told | None]:
        scene, pods = self._eyes.all()
        alive = [pod for pod in pods if not leaving(pod) and marks.owner(pod).get("uid") == marks.uid(scene.workload)]
        made, ground = self._revisions.of(scene.workload, alive), promotion.ground_of(scene, self._contents)
        found = ((pod, made[marks.uid(pod)]) for pod in alive)
        self._crew = tuple(Member(pod, ground.version(made.shape) if made is not None else None, made) for pod, made in found)
        self._last = scene
        return scene, marks.told(scene.workload)

    def _bring(self, scene: Scene, desired: Desired, until: int | None) -> None:
        """Every write that can be made now is made, and every pod that must go now is told to."""
        self._last = scene = self._writer.bring(scene, desired, until)
        if not promotion.superseded(scene, self._contents):
            for one in self._victims(scene, desired, self._crew):
                self._writer.delete_pod(one.pod)

    def _pending(self, scene: Scene, told: Told | None, *, theirs: bool) -> bool:
        """Whether writes are left to make: at once, or when the controller has done its part."""
        if told is None:
            return False
        desired = told.desired
        if marks.number(scene.workload, marks.RETREATED) == desired.fence and promotion.exposing(desired):
            return False
        if (told.before is not None and not inplace.ours(desired) and not theirs) or not self._writer.disowned(scene):
            return True
        try:
            if self._writer.next(scene, desired, None) is not None:
                return True
            return not theirs and bool(self._victims(scene, desired, self._crew))
        except WorldError:
            return True  # something is left, and to write it fails: the shift says why

    def _instances(self, scene: Scene, runs: Version, told: Told | None) -> tuple[Instance, ...]:
        workload, crew = scene.workload, self._crew
        candidate = told.desired.candidate if told is not None else None
        troubled = sorted((one for one in crew if not one.ready), key=lambda one: one.version != candidate)
        missing = len(crew) < self._wanted(workload)
        asked = [workload] if missing else []
        events = self._eyes.events([*asked, *(one.pod for one in troubled)]) if asked or troubled else {}
        tails = self._eyes.tails(one.pod for one in crew if one.version == candidate)
        now = clock.now()
        found = [
            instance(
                one.pod,
                one.version,
                events=events.get(marks.uid(one.pod), ()),
                address=address_of(one.pod, port_of(one.pod, self._port), direct=self._direct),
                seen_ready=marks.uid(one.pod) in self._was_ready,
                now=now,
                tail=tails.get(marks.uid(one.pod), ()),
            )
            for one in crew
        ]
        uids = {marks.uid(one.pod) for one in crew}
        self._was_ready = {one.uid.partition("/")[0] for one in found if one.ready} | (self._was_ready & uids)
        if missing:
            failed = _recent(events.get(marks.uid(workload), []), crew)
            names = [one.name for one in crew]
            version = self._absent(workload, told, runs)
            found += unborn((), (), self._wanted(workload), names, place=marks.name(workload), version=version, events=failed)
        return tuple(found)


def _recent(events: Iterable[Json], crew: Crew) -> list[Json]:
    """The events since the youngest pod was made: a failure before that is over."""
    youngest = max((one.pod["metadata"].get("creationTimestamp") or "" for one in crew), default="")
    return [event for event in events if (event.get("lastTimestamp") or event.get("eventTime") or "") >= youngest]
