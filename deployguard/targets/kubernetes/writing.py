"""From what is wanted and what is there to the next write, one at a time, until nothing is left to write.

Every write is found by difference, so whoever comes after a crash between two of them goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from deployguard.errors import StaleView, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import AlreadyExists, Conflict, FailedPrecondition, NotFound
from deployguard.kube.patches import without_manager
from deployguard.model.target import Desired
from deployguard.targets.kubernetes import canary as canaries
from deployguard.targets.kubernetes import marks, promotion
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.looking import Scene, Source, shape_of
from deployguard.targets.kubernetes.marks import Json, WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent

MOST_WRITES = 40
_DISOWNING = 6


@dataclass(frozen=True, slots=True)
class Write:
    """One write, and what it is about: the workload, a canary, or a source."""

    verb: Literal["create", "patch", "delete"]
    path: str
    body: Any
    about: Literal["workload", "canary"] | ConfigRef
    uid: str = ""


class Writer:
    """Brings a Deployment to what it was told."""

    def __init__(self, kube: Kube, ref: WorkloadRef, contents: Contents, *, swaps: bool) -> None:
        self._kube = kube
        self._ref = ref
        self._contents = contents
        self._swaps = swaps
        self._path = paths.workload(ref.kind, ref.namespace, ref.name)

    def next(self, scene: Scene, desired: Desired, until: int | None) -> Write | None:
        """The next write towards `desired`; None when nothing is left, or must wait for the cluster.

        What exposes comes after the fence, and so does every deletion; before the fence comes only what has no effect.
        """
        exposing = promotion.exposing(desired)
        mine = canaries.of(scene, desired)
        if exposing and mine is None:
            stranger = canaries.named(scene, desired)
            if stranger is not None:
                return self._deletion(stranger)
            collection = paths.workloads("Deployment", self._ref.namespace)
            return Write("create", collection, canaries.body(scene.workload, desired, self._contents, until), "canary")
        reckoning = promotion.reckoned(scene, desired, self._contents, swaps=self._swaps)
        if operations := promotion.patch_of(scene.workload, reckoning):
            return Write("patch", self._path, operations, "workload")
        if exposing and mine is not None and not canaries.exposed(mine, desired):
            return Write("patch", self._canary_path(mine), canaries.exposing_patch(mine, desired, until), "canary")
        if stray := canaries.unwanted(scene, desired, runs=reckoning.runs):
            return self._deletion(stray)
        for source, content in reckoning.sources:
            return self._source_write(source, content, desired.fence)
        self._refuse_foreign(desired, reckoning)
        return None

    def _refuse_foreign(self, desired: Desired, reckoning: promotion.Reckoning) -> None:
        """Raise `WorldError` when a promotion would have to overwrite a source that somebody else edited meanwhile."""
        if desired.full and reckoning.foreign:
            raise WorldError(
                f"could not promote {self._ref}: {', '.join(map(str, reckoning.foreign))} was edited since the rollout began",
                hint="put the source back as it was, or take the rollout back and begin anew",
            )

    def bring(self, scene: Scene, desired: Desired, until: int | None) -> Scene:
        """Every write that can be made now is made; the scene after them.

        Raises `StaleView` when something is no longer as it was read, `WorldError` when the API server says no.
        """
        for _n in range(MOST_WRITES):
            write = self.next(scene, desired, until)
            if write is None:
                break
            scene = self._written(scene, write)
        self._disown(scene)
        return scene

    def disowned(self, scene: Scene) -> bool:
        """Whether nothing of the user's is ours by managed fields."""
        objects = [scene.workload, *(s.obj for s in scene.sources.values() if s.obj is not None)]
        return not any(True for obj in objects for _field in promotion.owned(obj))

    def delete_pod(self, pod: Json) -> None:
        """The pod is told to end; another one of its name is left alone."""
        try:
            self._kube.delete(paths.pod(self._ref.namespace, marks.name(pod)), uid=marks.uid(pod))
        except (NotFound, Conflict):
            return

    def patch_canary(self, canary: Json, operations: list[dict[str, Any]]) -> Json:
        """The canary after a patch. Raises `StaleView` when it is no longer as it was read."""
        try:
            return self._kube.patch(self._canary_path(canary), operations)
        except (FailedPrecondition, Conflict, NotFound) as error:
            raise StaleView(f"the canary of {self._ref} has changed since it was seen: {error.message}") from error

    def _canary_path(self, canary: Json) -> str:
        return paths.workload("Deployment", self._ref.namespace, marks.name(canary))

    def _deletion(self, canary: Json) -> Write:
        return Write("delete", self._canary_path(canary), None, "canary", marks.uid(canary))

    def _source_write(self, source: Source, content: ConfigContent, fence: int) -> Write:
        ref = source.ref
        if source.obj is None:
            body = {
                "apiVersion": "v1",
                "kind": ref.kind,
                "metadata": {"name": ref.name, "labels": {marks.FENCE: str(fence)}},
                **content.fields(ref.kind),
            }
            return Write("create", paths.contents(ref.kind, self._ref.namespace), body, ref)
        path = paths.content(ref.kind, self._ref.namespace, ref.name)
        return Write("patch", path, promotion.source_patch(source, content, fence), ref)

    def _written(self, scene: Scene, write: Write) -> Scene:
        try:
            if write.verb == "delete":
                self._kube.delete(write.path, uid=write.uid)
                return _without(scene, write.uid)
            found = (self._kube.create if write.verb == "create" else self._kube.patch)(write.path, write.body)
        except NotFound as error:
            if write.verb == "delete":
                return _without(scene, write.uid)
            raise StaleView(f"{self._ref} has changed since it was seen: {error.message}") from error
        except (FailedPrecondition, Conflict, AlreadyExists) as error:
            raise StaleView(f"{self._ref} has changed since it was seen: {error.message}") from error
        if write.about == "workload":
            if any(op["op"] == "replace" and op["path"] == "/spec/template" for op in write.body):
                self._check(found)
            return replace(scene, workload=found)
        if write.about == "canary":
            return replace(_without(scene, marks.uid(found)), canaries=(*_without(scene, marks.uid(found)).canaries, found))
        assert isinstance(write.about, ConfigRef)
        digest = self._contents.digest_of(write.about, ConfigContent.of({"kind": write.about.kind, **found}))
        return replace(scene, sources={**scene.sources, write.about: Source(write.about, found, digest)})

    def _check(self, workload: Json) -> None:
        """Raise `WorldError` if the server did not store the template that was sent."""
        known = marks.told(workload)
        stored = shape_of(workload["spec"]["template"], self._contents)
        if known is not None and known.template != stored:
            raise WorldError(
                f"the API server changed the pod template of {self._ref} while it was written: it became {stored.release}",
                hint="an admission policy or webhook rewrites it; let it leave guarded workloads alone",
            )

    def _disown(self, scene: Scene) -> None:
        """The user's fields are nobody's again, so that their next apply meets no conflict with us. What fails now is tried again later."""
        known: list[tuple[str, Json]] = [(self._path, scene.workload)]
        for ref, source in scene.sources.items():
            if source.obj is not None:
                known.append((paths.content(ref.kind, self._ref.namespace, ref.name), source.obj))
        for path, obj in known:
            for _attempt in range(_DISOWNING):
                if not any(True for _field in promotion.owned(obj)):
                    break
                try:
                    self._kube.patch(path, without_manager(obj))
                    break
                except (FailedPrecondition, Conflict):
                    obj = self._kube.get(path)  # its status has changed meanwhile, as it often does in a rolling update
                except NotFound:
                    break


def _without(scene: Scene, uid: str) -> Scene:
    return replace(scene, canaries=tuple(one for one in scene.canaries if marks.uid(one) != uid))
