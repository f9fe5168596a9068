"""What the workload itself and the sources of its configuration shall be: pure decisions over what was read.

Somebody else's change is never undone: the template is written only while it is what the record says we left, and sources only while
they hold what they held when the rollout began, or what a promotion of ours put there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployguard.errors import WorldError
from deployguard.kube.errors import KubeError
from deployguard.kube.patches import MANAGER, Operation, add, pointer, remove, replace, test
from deployguard.model.target import Desired
from deployguard.model.version import NOTHING, Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.looking import Ground, Scene, Source, shape_of
from deployguard.targets.kubernetes.marks import Before, Foreign, Shape, Swap, Told, WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent
from deployguard.targets.kubernetes.template import promoted

_DEADLINE = 600


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What a word makes of the workload.

    `runs` is the version of its template now, `record` is what it will say, `spec` the operations on its spec, with their tests first;
    `sources` are the config sources that are to be written, with their content, before the template is. `foreign` are sources that
    somebody else edited meanwhile.
    """

    runs: Version
    record: Told
    spec: tuple[Operation, ...] = ()
    sources: tuple[tuple[Source, ConfigContent], ...] = ()
    foreign: tuple[ConfigRef, ...] = ()


@dataclass(slots=True)
class _Draft:
    """A reckoning while it is made."""

    record: Told
    tests: list[Operation] = field(default_factory=list)
    writes: list[Operation] = field(default_factory=list)

    def change(self, **fields: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **fields)


def main(desired: Desired) -> Version:
    """The version that the workload itself shall run."""
    return desired.candidate if desired.full and desired.candidate is not None else desired.stable


def exposing(desired: Desired) -> bool:
    """Whether candidates are wanted beside the workload."""
    return desired.candidate is not None and not desired.full and desired.count > 0


def superseded(scene: Scene, contents: Contents) -> bool:
    """Whether the workload's template is not what its record says we left, or an undo brought an old record back with it."""
    known = marks.record(scene.workload)
    return known is not None and is_theirs(scene.workload, known, shape_of(scene.workload["spec"]["template"], contents))


def is_theirs(workload: Mapping[str, Any], known: Told, current: Shape) -> bool:
    """Whether what the workload says is not what its record left."""
    return known.template != current or known.desired.fence < marks.fence_of(workload)


def ground_of(scene: Scene, contents: Contents) -> Ground:
    """What tells the versions of the workload's pods now. A template of somebody else came with what the sources hold."""
    known = marks.record(scene.workload)
    if known is None:
        return Ground(scene.config)
    current = shape_of(scene.workload["spec"]["template"], contents)
    foreign = Foreign(current, scene.config) if is_theirs(scene.workload, known, current) else known.foreign
    return Ground(known.base, foreign)


def complete(workload: Mapping[str, Any]) -> bool:
    """Whether the controller has seen the last change and every replica is updated, and available for as long as was asked."""
    status, wanted = workload.get("status") or {}, workload["spec"].get("replicas", 1)
    counts = {status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")}
    return seen(workload) and counts == {wanted}


def rolled(workload: Mapping[str, Any]) -> bool:
    """Whether the controller has seen the last change and no pod of another template is left."""
    status = workload.get("status") or {}
    return seen(workload) and status.get("replicas", 0) == status.get("updatedReplicas", 0)


def seen(workload: Mapping[str, Any]) -> bool:
    """Whether the controller has seen the last change of the workload."""
    return int((workload.get("status") or {}).get("observedGeneration", 0)) >= int(workload["metadata"]["generation"])


def reckoned(scene: Scene, desired: Desired, contents: Contents, *, swaps: bool) -> Reckoning:
    """What `desired` makes of the workload and the sources, as they are now. Raises `WorldError` when content is missing."""
    workload = scene.workload
    current = shape_of(workload["spec"]["template"], contents)
    known = marks.record(workload)
    same = known is not None and known.desired.by == desired.by
    theirs = same and known is not None and is_theirs(workload, known, current)
    draft = _Draft(record_for(scene, desired, known, current))
    runs = Ground(draft.record.base, draft.record.foreign).version(current)
    back = desired.candidate is None and not theirs and runs != desired.stable and asked_back(workload, known, desired, runs)
    if not (same or back) and desired.candidate is None and runs != desired.stable:
        theirs = True
        draft.change(template=Shape(""))
    asked = desired.full or back or draft.record.was is not None
    differs = asked and not theirs and runs != main(desired)
    _begin(draft, desired, current if differs else None, back=back, put=runs.config)
    sources, foreign = sources_for(scene, desired, draft.record, contents) if asked and not (desired.full and theirs) else ((), ())
    if differs and not sources and not (desired.full and foreign):
        _write_template(draft, workload, desired, contents)
    elif (
        draft.record.before is not None
        and not (desired.full or sources or differs)
        and may_give_back(workload, draft.record.before, theirs)
    ):
        _give_back(draft, workload, draft.record.before)
    _size(draft, scene, desired, swaps=swaps)
    return Reckoning(runs, draft.record, (*draft.tests, *draft.writes), sources, foreign)


def asked_back(workload: Mapping[str, Any], known: Told | None, desired: Desired, runs: Version) -> bool:
    """Whether a word that names only a stable version means the template: a return, which is paced, a rung that names another stable
    version than the word before, or a word after a record was lost while a version of ours `runs`.

    A rollout that exposed nothing yet and is taken back leaves what runs as it is: then somebody else has put it there.
    """
    if known is None:
        return desired.pace > 0 or (marks.fence_of(workload) > 0 and runs in desired.keep)
    return desired.stable != known.desired.stable if known.desired.by == desired.by else desired.pace > 0


def record_for(scene: Scene, desired: Desired, known: Told | None, current: Shape) -> Told:
    """The record for `desired` before anything of the spec is changed."""
    if known is not None and known.desired.by == desired.by:
        # An old record came back by an undo: whatever the template is now, it is not what we left.
        if known.desired.fence < marks.fence_of(scene.workload):
            before = known.before or _left_behind(scene.workload, known)
            return msgspec.structs.replace(known, desired=desired, template=Shape(""), before=before)
        return msgspec.structs.replace(known, desired=desired)
    sources = {f"{ref.kind}/{ref.name}": source.digest for ref, source in scene.sources.items()}
    if known is not None:
        theirs = Foreign(current, scene.config) if is_theirs(scene.workload, known, current) else None
        left = known.foreign if known.foreign is not None and known.foreign.shape == current else None
        return Told(
            desired,
            known.base,
            current,
            sources=sources,
            foreign=theirs or left,
            before=known.before,
            swap=known.swap,
            user=_of_user(scene.workload, known.before),
        )
    base = desired.stable.config if desired.candidate is not None else scene.config
    return Told(desired, base, current, sources=sources, user=_of_user(scene.workload, None))


def _of_user(workload: Mapping[str, Any], before: Before | None) -> Before:
    """How the user paces and pauses the workload, whatever a promotion has put there."""
    spec = workload["spec"]
    return msgspec.structs.replace(before, put=0) if before else Before(spec.get("minReadySeconds", 0), bool(spec.get("paused")))


def _left_behind(workload: Mapping[str, Any], known: Told) -> Before | None:
    """What is to be given back after an undo in the middle of a promotion: it brought a record back that knows of none."""
    present = workload["spec"].get("minReadySeconds", 0)
    if known.user is None or (present <= known.user.min_ready and not known.user.paused):
        return None
    return msgspec.structs.replace(known.user, put=present)


def _begin(draft: _Draft, desired: Desired, current: Shape | None, *, back: bool, put: str) -> None:
    """From here on the template is ours to write: a promotion, or a return that somebody asked for, has begun."""
    if desired.full and desired.candidate is not None:
        # Without a record of what was there before, it is stable that must come back.
        was = draft.record.was or current or Shape(desired.stable.release, desired.stable.config)
        draft.change(was=was, put=desired.candidate.config)
    elif back and current is not None and draft.record.was is None:
        draft.change(was=current, put=put)


def sources_for(
    scene: Scene, desired: Desired, record: Told, contents: Contents
) -> tuple[tuple[tuple[Source, ConfigContent], ...], tuple[ConfigRef, ...]]:
    """The sources that do not hold what the workload's version reads: those that may be written, and those that others edited.

    One that holds it already but could be written by a word before this one is written all the same, for its fence: a driver that
    slept between its look and its write then meets another resourceVersion.
    """
    want = main(desired).config
    if not scene.sources or want == NOTHING or (not desired.full and want == record.put):
        return (), ()
    ours = [_known(contents, config) for config in _undone(desired, record)]
    write, foreign = [], []
    for ref, digest in contents.digests(want).items():
        source = scene.sources.get(ref)
        if source is None:
            continue
        holds = source.digest == digest
        contested = any(digests.get(ref, digest) != digest for digests in ours)
        if holds and (not contested or (source.obj is not None and marks.fence_of(source.obj) >= desired.fence)):
            continue
        began = record.sources.get(f"{ref.kind}/{ref.name}")
        if holds or any(digests.get(ref) == source.digest for digests in ours) or (desired.full and source.digest == began):
            write.append((source, contents.config(want)[ref].content))
        else:
            foreign.append(ref)
    return tuple(write), tuple(foreign)


def _undone(desired: Desired, record: Told) -> list[str]:
    """The configurations that sources may hold because of us: on the way there stable's, on the way back what was promoted."""
    if desired.full:
        return [desired.stable.config]
    known = (record.put, *(version.config for version in desired.keep)) if record.put else ()
    return [config for config in known if config != main(desired).config]


def _known(contents: Contents, config: str) -> dict[ConfigRef, str]:
    try:
        return contents.digests(config)
    except KubeError:
        raise
    except WorldError:
        return {}  # an older configuration may be kept no more: then nothing can be told by it


def _write_template(draft: _Draft, workload: Mapping[str, Any], desired: Desired, contents: Contents) -> None:
    """The workload gets the template of its version, and the pace at which the controller replaces pods."""
    record, spec, version = draft.record, workload["spec"], main(desired)
    if desired.full:
        # No promotion without its way back: both are read, and verified, before anything is replaced.
        contents.template(desired.stable.release)
        contents.config(desired.stable.config)
    was = record.was
    # A template that carried no config digest must come back without one, or its ReplicaSet is not used again.
    config = was.config if was is not None and Ground(record.base, record.foreign).version(was) == version else version.config
    template = promoted(contents.template(version.release), config)
    user = record.before or Before(spec.get("minReadySeconds", 0), bool(spec.get("paused")))
    paces = desired.full or desired.pace > 0
    least = min(max(user.min_ready, desired.pace), (spec.get("progressDeadlineSeconds") or _DEADLINE) - 1) if paces else 0
    draft.tests.append(test("/spec/template", spec["template"]))
    draft.writes += [replace("/spec/template", template), add("/spec/minReadySeconds", least)]
    if spec.get("paused"):
        draft.writes.append(remove("/spec/paused"))
    shape = Shape(version.release, config if config != NOTHING else "")
    draft.change(template=shape, before=msgspec.structs.replace(user, put=least))


def may_give_back(workload: Mapping[str, Any], before: Before, theirs: bool) -> bool:
    """Whether the user's pace and pause may come back: a pause would keep whatever pods there are, those of a candidate too."""
    return rolled(workload) or (theirs and not before.paused)


def _give_back(draft: _Draft, workload: Mapping[str, Any], before: Before) -> None:
    """The user's own pace and pause are back, unless somebody changed them meanwhile."""
    spec = workload["spec"]
    present = spec.get("minReadySeconds", 0)
    if present == before.put != before.min_ready:
        draft.writes.append(add("/spec/minReadySeconds", before.min_ready))
    if before.paused and not spec.get("paused"):
        draft.writes.append(add("/spec/paused", True))
    draft.change(before=None)


def _size(draft: _Draft, scene: Scene, desired: Desired, *, swaps: bool) -> None:
    """With a swap, as many instances make room as there are candidates; all come back when the candidates go.

    In a promotion they come back last, into the room that the canary leaves.
    """
    swap, present = draft.record.swap, scene.workload["spec"].get("replicas", 1)
    if swap is not None and present != swap.left:
        swap = None  # somebody else has sized it since: theirs is what counts
    wanted = present
    if swaps and exposing(desired):
        whole = swap.replicas if swap is not None else present
        wanted = max(0, whole - desired.count)
        swap = Swap(whole, wanted)
    elif swap is not None and (not desired.full or (complete(scene.workload) and not scene.canaries)):
        wanted, swap = swap.replicas, None
    _resize(draft, present, wanted)
    draft.change(swap=swap)


def _resize(draft: _Draft, present: int, wanted: int) -> None:
    if present != wanted:
        draft.tests.append(test("/spec/replicas", present))
        draft.writes.append(replace("/spec/replicas", wanted))


def patch_of(workload: Mapping[str, Any], reckoning: Reckoning) -> list[Operation]:
    """The patch that makes the workload say and be what was reckoned; empty when it does already.

    It tests the uid and all labels as read, so that a fence that grew, or a retreat, refuses it.
    """
    meta, fence = workload["metadata"], reckoning.record.desired.fence
    known = marks.told(workload)
    if known == reckoning.record and marks.fence_of(workload) == fence and not reckoning.spec:
        return []
    tests = [op for op in reckoning.spec if op["op"] == "test"]
    writes = [op for op in reckoning.spec if op["op"] != "test"]
    return [
        test("/metadata/uid", meta["uid"]),
        test("/metadata/labels", meta.get("labels")),
        *tests,
        add("/metadata/labels", {**marks.labels(workload), marks.FENCE: str(fence)}),
        *([] if meta.get("annotations") else [test("/metadata/annotations", None), add("/metadata/annotations", {})]),
        add(pointer("metadata", "annotations", marks.TOLD), marks.written(reckoning.record)),
        *writes,
    ]


def source_patch(source: Source, content: ConfigContent, fence: int) -> list[Operation]:
    """The patch that puts a content into a source, and the fence that wanted it, if the source is still as it was read."""
    assert source.obj is not None
    obj, fields = source.obj, content.fields(source.ref.kind)
    operations = [test("/metadata/resourceVersion", obj["metadata"]["resourceVersion"]), test("/metadata/uid", obj["metadata"]["uid"])]
    for name in ("data", "binaryData"):
        if fields.get(name):
            operations.append(add(f"/{name}", fields[name]))
        elif name in obj:
            operations.append(remove(f"/{name}"))
    return [*operations, add("/metadata/labels", {**marks.labels(obj), marks.FENCE: str(fence)})]


def owned(obj: Mapping[str, Any]) -> Iterator[str]:
    """The user's own fields of an object that are ours by its managed fields: an apply of its owner would end in a conflict."""
    for entry in obj["metadata"].get("managedFields") or []:
        if entry.get("manager") == MANAGER:
            yield from (name for name in entry.get("fieldsV1") or {} if name != "f:metadata")


def superseded_words(scene: Scene, ref: WorkloadRef) -> str:
    """That somebody else changed the template, and who."""
    who = last_writer(scene.workload)
    return f"somebody else changed the pod template of {ref}" + (f" ({who})" if who else "")


def source_changed_words(scene: Scene, told: Told | None, contents: Contents) -> str:
    """Which sources hold neither what they held when the rollout began nor what stable or the candidate has there; empty when none."""
    if told is None or told.desired.candidate is None or not scene.sources:
        return ""
    known = [_known(contents, version.config) for version in (told.desired.stable, told.desired.candidate)]
    changed = [
        str(ref)
        for ref, source in scene.sources.items()
        if source.digest not in (told.sources.get(f"{ref.kind}/{ref.name}"), *(digests.get(ref) for digests in known))
    ]
    return f"{', '.join(changed)} was edited since the rollout began" if changed else ""


def last_writer(workload: Mapping[str, Any]) -> str:
    """Who wrote the workload's template last, as far as its managed fields tell, in words; empty when they do not."""
    entries = [
        entry
        for entry in workload["metadata"].get("managedFields") or []
        if "f:template" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}) and entry.get("manager") != MANAGER
    ]
    newest = max(entries, key=lambda entry: entry.get("time") or "", default=None)
    return f"{newest['manager']} at {newest.get('time', '')}" if newest else ""
