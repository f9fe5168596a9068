"""What made the pods of a StatefulSet or a DaemonSet: the ControllerRevision that their label names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import NotFound
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.looking import shape_of
from deployguard.targets.kubernetes.marks import Json, Shape, WorkloadRef
from deployguard.targets.kubernetes.template import digest

HASH = "controller-revision-hash"
_DIRECTIVE = "$patch"


@dataclass(frozen=True, slots=True)
class Revision:
    """A pod template as its pods were made from it: in short, and the digest with the very names that it uses."""

    shape: Shape
    form: str


class Revisions:
    """The revisions of one workload. One that was read once cannot change."""

    def __init__(self, kube: Kube, ref: WorkloadRef, contents: Contents) -> None:
        self._kube = kube
        self._ref = ref
        self._contents = contents
        self._known: dict[tuple[str, str], Revision | None] = {}

    def of(self, workload: Json, pods: Iterable[Json]) -> dict[str, Revision | None]:
        """The revision of each pod, by the pod's uid; None for those that nobody can tell any more."""
        found, owner = {}, marks.uid(workload)
        for pod in pods:
            key = (owner, self._name(pod))
            if key not in self._known:
                self._known[key] = self._read(key[1], owner)
            found[marks.uid(pod)] = self._known[key]
        wanted = {(owner, self._name(pod)) for pod in pods}
        # What is gone may come back under its old name, by an undo.
        self._known = {key: revision for key, revision in self._known.items() if key in wanted and revision is not None}
        return found

    def _name(self, pod: Json) -> str:
        """A StatefulSet's pods name the whole revision, a DaemonSet's only its hash."""
        said = marks.labels(pod).get(HASH, "")
        return said if self._ref.kind == "StatefulSet" else f"{self._ref.name}-{said}"

    def _read(self, name: str, owner: str) -> Revision | None:
        if not name:
            return None
        try:
            found = self._kube.get(paths.revision(self._ref.namespace, name))
        except NotFound:
            return None
        if marks.owner(found).get("uid") != owner:
            return None
        return of_template(found["data"]["spec"]["template"], self._contents)


def of_template(template: Json, contents: Contents) -> Revision:
    """A template as pods made from it would show it."""
    said = {key: value for key, value in template.items() if key != _DIRECTIVE}
    return Revision(shape_of(said, contents), digest(said))
