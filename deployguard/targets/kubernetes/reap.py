"""Taking back canaries that nobody drives any more: a pipeline leaves no supervisor beside its pods."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from deployguard.errors import StaleView
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import Conflict, FailedPrecondition, Forbidden, NotFound
from deployguard.kube.patches import Operation, add, pointer, replace, test, without_manager
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.marks import Json, WorkloadRef
from deployguard.targets.kubernetes.promotion import exposing, owned
from deployguard.targets.kubernetes.workload import IN_PLACE, in_place_target

GRACE = dt.timedelta(seconds=60)
"""A canary that says nothing of who drives it is left alone for so long: it may have been made a moment ago."""
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Reaped:
    """A canary that was taken back. `fence` is the one it was exposed under; `replicas` what it had."""

    workload: WorkloadRef
    canary: str
    fence: int
    replicas: int
    why: str


def reap(kube: Kube, namespaces: Iterable[str], now: dt.datetime) -> list[Reaped]:
    """Every canary whose time has passed, or whose workload is gone, is deleted; what was taken back.

    The workload then carries that its fence has retreated, before the canary goes: whoever drove it can never expose it again under
    that fence. A promotion that nobody drives goes on by itself; only its canary is taken away.
    """
    taken: list[Reaped] = []
    for namespace in namespaces:
        found = {kind: _marked(kube, kind, namespace) for kind in ("Deployment", *IN_PLACE)}
        refusals = [marked for marked in found.values() if isinstance(marked, Forbidden)]
        if len(refusals) == len(found):
            raise refusals[0]
        for kind, marked in found.items():
            if isinstance(marked, Forbidden):
                continue  # a reaper whose rights were printed for other kinds
            for one in marked:
                reaped = _reaped(kube, one, now) if kind == "Deployment" else _reaped_in_place(kube, kind, one, now)
                taken += [reaped] if reaped is not None else []
    return taken


def _marked(kube: Kube, kind: str, namespace: str) -> list[Json] | Forbidden:
    """The workloads of a kind that may have to be taken back: canaries, or workloads whose candidates run in place of stable pods."""
    wanted = (marks.CANARY,) if kind == "Deployment" else (marks.UNTIL, marks.RETREATED)
    try:
        found = [one for mark in wanted for one in kube.list(paths.workloads(kind, namespace), {"labelSelector": mark})]
    except Forbidden as error:
        return error
    return list({marks.uid(one): one for one in found}.values())


def lapsed(canary: Json, now: dt.datetime) -> str:
    """Why a canary counts as driven by nobody, in words; empty while somebody may drive it."""
    until = marks.number(canary, marks.UNTIL)
    if until is not None:
        at = dt.datetime.fromtimestamp(until, dt.UTC)
        return f"nobody has driven it since {at:%Y-%m-%d %H:%M:%S} UTC" if now.timestamp() >= until else ""
    born = dt.datetime.fromisoformat(canary["metadata"]["creationTimestamp"])
    idle = not canary["spec"].get("replicas", 1) and now - born >= GRACE
    return "it was made and never exposed" if idle else ""


def _reaped(kube: Kube, canary: Json, now: dt.datetime) -> Reaped | None:
    namespace, owner = canary["metadata"]["namespace"], marks.owner(canary)
    ref = WorkloadRef(owner.get("kind", "Deployment"), namespace, owner.get("name", marks.labels(canary)[marks.CANARY]))
    for _attempt in range(_ATTEMPTS):
        workload = _owner(kube, ref, owner.get("uid", ""))
        why = lapsed(canary, now) if workload is not None else "its workload is gone"
        if not why:
            return None
        try:
            if workload is not None:
                _retreat(kube, ref, workload, canary)
            kube.delete(paths.workload("Deployment", namespace, marks.name(canary)), uid=marks.uid(canary))
        except FailedPrecondition:
            continue  # the workload has changed since it was read
        except (NotFound, Conflict):
            return None  # it is gone already, or another one has its name
        return Reaped(ref, marks.name(canary), marks.fence_of(canary), canary["spec"].get("replicas", 1), why)
    raise StaleView(f"could not take back {marks.name(canary)} of {ref}: the workload changes all the time")


def _reaped_in_place(kube: Kube, kind: str, workload: Json, now: dt.datetime) -> Reaped | None:
    """What was taken back of a workload whose candidates run in place of stable pods: by its lease, or in a retreat not yet complete."""
    until, known = marks.number(workload, marks.UNTIL), marks.told(workload)
    if known is None or (until is not None and now.timestamp() < until):
        return None
    if until is None and marks.number(workload, marks.RETREATED) != known.desired.fence:
        return None
    ref = WorkloadRef(kind, workload["metadata"]["namespace"], marks.name(workload))
    target = in_place_target(kube, ref)
    try:
        back = target.retreat()
    except (FailedPrecondition, Conflict, NotFound) as error:
        raise StaleView(f"could not take back the candidates of {ref}: it has changed since it was read") from error
    finally:
        target.close()
    if not back:
        return None
    why = lapsed(workload, now) if until is not None else "it was not yet back where it was"
    return Reaped(ref, ref.name, marks.fence_of(workload), known.desired.count, why)


def _owner(kube: Kube, ref: WorkloadRef, uid: str) -> Json | None:
    """The workload that owns a canary, if it still lives."""
    try:
        found = kube.get(paths.workload(ref.kind, ref.namespace, ref.name))
    except NotFound:
        return None
    return found if marks.uid(found) == uid else None


def _retreat(kube: Kube, ref: WorkloadRef, workload: Json, canary: Json) -> None:
    """The workload carries that its fence has retreated, and instances that made room come back."""
    fence, told, meta = marks.fence_of(workload), marks.told(workload), workload["metadata"]
    exposed = canary["spec"].get("replicas", 1) > 0
    if not exposed or not fence or (told is not None and not exposing(told.desired)):
        return
    operations: list[Operation] = [test("/metadata/uid", meta["uid"]), test("/metadata/labels", meta.get("labels"))]
    operations.append(add(pointer("metadata", "labels", marks.RETREATED), str(fence)))
    if told is not None and told.swap is not None:
        record = msgspec.structs.replace(told, swap=None)
        operations.append(add(pointer("metadata", "annotations", marks.TOLD), marks.written(record)))
        if workload["spec"].get("replicas", 1) == told.swap.left:
            operations += [test("/spec/replicas", told.swap.left), replace("/spec/replicas", told.swap.replicas)]
    path = paths.workload(ref.kind, ref.namespace, ref.name)
    found = kube.patch(path, operations)
    if any(True for _field in owned(found)):
        with contextlib.suppress(FailedPrecondition, Conflict):
            kube.patch(path, without_manager(found))
