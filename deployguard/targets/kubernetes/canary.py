"""The sibling Deployment that runs a candidate beside the workload: made without effect, then exposed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployguard.errors import Bug
from deployguard.kube.patches import Operation, add, pointer, remove, replace, test
from deployguard.model.target import Desired
from deployguard.model.version import Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.looking import Scene
from deployguard.targets.kubernetes.marks import Json
from deployguard.targets.kubernetes.promotion import complete, exposing
from deployguard.targets.kubernetes.template import canary as canary_template


def body(workload: Json, desired: Desired, contents: Contents, until: int | None) -> Json:
    """A canary without replicas: owned by the workload, selected by the Services that select the workload, and by nothing of ours yet.

    Its selector is the workload's and a label of our own, so that neither takes the other's pods.
    """
    candidate = desired.candidate
    if candidate is None:
        raise Bug("a canary was to be made of no candidate")
    name = marks.name(workload)
    mine = {marks.CANARY: marks.label_value(name)}
    chosen = workload["spec"]["selector"]
    selector = {**chosen, "matchLabels": {**(chosen.get("matchLabels") or {}), **mine}}
    template = canary_template(
        contents.template(candidate.release), pins=contents.pins(candidate.config), labels=mine, config_digest=candidate.config
    )
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": marks.uid(workload), "controller": True}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": marks.canary_name(name, candidate),
            "labels": {**mine, **({marks.UNTIL: str(until)} if until is not None else {})},
            "ownerReferences": [owner],
        },
        "spec": {"replicas": 0, "revisionHistoryLimit": 0, "selector": selector, "template": template},
    }


def of(scene: Scene, desired: Desired) -> Json | None:
    """The canary of the wanted candidate, if it is there and belongs to this very workload."""
    found = named(scene, desired)
    return found if found is not None and marks.owner(found).get("uid") == marks.uid(scene.workload) else None


def named(scene: Scene, desired: Desired) -> Json | None:
    """What has the name of the wanted candidate's canary, whoever it belongs to."""
    if desired.candidate is None:
        return None
    name = marks.canary_name(marks.name(scene.workload), desired.candidate)
    return next((one for one in scene.canaries if marks.name(one) == name), None)


def unwanted(scene: Scene, desired: Desired, *, runs: Version) -> Json | None:
    """A canary that shall go: of another candidate, of another workload's life, or one whose candidate the workload `runs` by now.

    During a promotion it stays until the last batch has been watched.
    """
    promoted = desired.full and runs == desired.candidate and complete(scene.workload)
    keep = of(scene, desired) if exposing(desired) or (desired.full and not promoted) else None
    return next((one for one in scene.canaries if one is not keep), None)


def exposed(canary: Mapping[str, Any], desired: Desired) -> bool:
    """Whether it has as many replicas as are wanted, under this fence."""
    return marks.fence_of(canary) == desired.fence and canary["spec"].get("replicas", 1) == desired.count


def exposing_patch(canary: Mapping[str, Any], desired: Desired, until: int | None) -> list[Operation]:
    """The patch that exposes a canary, or sizes it anew, under the word's fence; refused if it is no longer as it was read."""
    present = canary["spec"].get("replicas", 1)
    label = pointer("metadata", "labels", marks.UNTIL)
    lease = [add(label, str(until))] if until is not None else [remove(label)] if marks.UNTIL in marks.labels(canary) else []
    return [
        *_tests(canary),
        test("/spec/replicas", present),
        add(pointer("metadata", "labels", marks.FENCE), str(desired.fence)),
        *lease,
        replace("/spec/replicas", desired.count),
    ]


def renewing_patch(canary: Mapping[str, Any], until: int) -> list[Operation]:
    """The patch that keeps a canary until then, refused if another fence rules it."""
    return [*_tests(canary), add(pointer("metadata", "labels", marks.UNTIL), str(until))]


def _tests(canary: Mapping[str, Any]) -> list[Operation]:
    fence = test(pointer("metadata", "labels", marks.FENCE), marks.labels(canary).get(marks.FENCE))
    return [test("/metadata/uid", marks.uid(canary)), fence]
