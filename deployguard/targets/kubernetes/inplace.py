"""Workloads whose candidates run in place of stable pods: what their template, strategy and sources shall be. Pure decisions.

Stable pods go on reading the sources of their configuration, and so does one that comes back. So while not all pods are candidates the
candidate's template names immutable copies; when all are, it has the user's names again and the sources hold its content. Where the
configuration changes, that makes two templates, and candidates of earlier stages start a second time at the last one: the lesser evil,
for names that stayed in the user's template would be taken away, unguarded, by the next apply. Only sources whose content changes are
pinned: a release with the configuration of before has one template, and no second start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from deployguard.errors import WorldError
from deployguard.kube.patches import Operation, add, replace, test
from deployguard.model.target import Desired
from deployguard.model.version import NOTHING, Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes import promotion as promotions
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.looking import Ground, Scene, shape_of
from deployguard.targets.kubernetes.marks import Before, Json, Shape, Told
from deployguard.targets.kubernetes.promotion import Reckoning
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.template import canary, config_of, digest, merged, plain, promoted


@dataclass(frozen=True, slots=True)
class Hold:
    """What a kind of workload needs while candidates are tried in place.

    `strategy`: its update strategy then. `tried`: its template is the candidate's now. `done`: no pod is left to be replaced.
    """

    strategy: Json
    tried: bool
    done: bool


def ours(desired: Desired) -> bool:
    """Whether a candidate is wanted, on some pods or on all."""
    return desired.candidate is not None and (desired.full or desired.count > 0)


def reckoned(scene: Scene, desired: Desired, contents: Contents, hold: Hold) -> Reckoning:
    """What `desired` makes of the workload and the sources, as they are now. Raises `WorldError` when content is missing."""
    workload = scene.workload
    current = shape_of(workload["spec"]["template"], contents)
    known = marks.record(workload)
    same = known is not None and known.desired.by == desired.by
    theirs = same and known is not None and promotions.is_theirs(workload, known, current)
    record = promotions.record_for(scene, desired, known, current)
    if known is not None and known.before is not None and known.template == current and not same:
        # A trial that nobody ended is still on it: what was there before that is what comes back.
        record = msgspec.structs.replace(record, was=known.was, put=known.put)
    runs = _ground(record).version(current)
    away = desired.candidate is None and not theirs and runs != desired.stable
    back = away and promotions.asked_back(workload, known, desired, runs)
    if away and not (same or back or record.was is not None):
        theirs = True
        record = msgspec.structs.replace(record, template=Shape(""))
    asked = desired.full or back or record.was is not None or (ours(desired) and hold.tried)
    template, shape = _template(record, desired, contents, tried=hold.tried) if asked else (workload["spec"]["template"], current)
    differs = asked and not theirs and not alike(workload["spec"]["template"], template)
    if differs or desired.full:
        record = _begun(record, desired, current, back=back, put=runs.config)
    reads_sources = asked and not promotions.exposing(desired) and not (desired.full and theirs)
    sources, foreign = promotions.sources_for(scene, desired, record, contents) if reads_sources else ((), ())
    operations: list[Operation] = []
    waits = bool(sources) or (desired.full and bool(foreign))
    if ours(desired) and not theirs and not waits:
        record = _held(operations, record, workload, desired, hold.strategy)
    if differs and not waits:
        record = _written(operations, record, workload, desired, template, shape)
    elif record.before is not None and not (ours(desired) or waits or differs) and (theirs or hold.done):
        if theirs and known is not None and not record.put:
            _freed(operations, known, workload, desired.stable, contents)
        record = _given_back(operations, record, workload, record.before)
    return Reckoning(runs, record, tuple(operations), sources, foreign)


def patch_of(workload: Json, reckoning: Reckoning, until: int | None) -> list[Operation]:
    """The patch that makes the workload be what was reckoned; empty when it is already. The lease ends with the exposure."""
    operations = promotions.patch_of(workload, reckoning)
    exposes = promotions.exposing(reckoning.record.desired)
    present = marks.labels(workload)
    if not operations and (exposes or marks.UNTIL not in present):
        return []
    if not operations:
        operations = [test("/metadata/uid", marks.uid(workload)), test("/metadata/labels", present), add("/metadata/labels", present)]
    for at, one in enumerate(operations):
        if one["op"] == "add" and one["path"] == "/metadata/labels":
            labels = {key: value for key, value in one["value"].items() if exposes or key != marks.UNTIL}
            operations[at] = add("/metadata/labels", labels | ({marks.UNTIL: str(until)} if exposes and until is not None else {}))
    return operations


def alike(template: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two templates make the same pods, by the very names that they use."""
    return digest(template) == digest(other) and (config_of(template) or "") == (config_of(other) or "")


def tried_template(desired: Desired, contents: Contents) -> Json:
    """The candidate's template while stable pods still read the sources: it names copies of what differs from stable."""
    assert desired.candidate is not None
    return _tried(desired.candidate, desired.stable, contents)


def _tried(candidate: Version, stable: Version, contents: Contents) -> Json:
    template, pins = contents.template(candidate.release), _pins(candidate, stable, contents)
    if not pins:
        return promoted(template, candidate.config)
    return canary(template, pins=pins, labels={}, config_digest=candidate.config)


def warnings(kind: str, workload: Mapping[str, Any], config: Collection[ConfigRef]) -> Iterator[str]:
    """What a person should know before a rollout in place, a sentence each."""
    spec = workload["spec"]
    strategy = spec.get("updateStrategy") or {}
    yield "its candidates take the place of stable pods: while one is replaced there is a pod less"
    if kind == "StatefulSet":
        replicas = spec.get("replicas", 1)
        yield f"its controller replaces one pod at a time: a promotion is {replicas} starts in a row, each watched, within `advance_within`"
        if (strategy.get("rollingUpdate") or {}).get("partition"):
            yield f"its partition is {strategy['rollingUpdate']['partition']}: a promotion goes below it, and puts it back"
    if strategy.get("type") == "OnDelete":
        yield "its strategy is OnDelete: a rollout replaces pods by itself all the same, and puts the strategy back"
    if config:
        yield "a rollout that changes its configuration starts its first candidates twice: with a copy, then with the source"


def _pins(candidate: Version, stable: Version, contents: Contents) -> dict[ConfigRef, str]:
    """The copies of the sources whose content the candidate changes; of all sources when nobody can tell any more."""
    try:
        before = contents.digests(stable.config)
    except WorldError:
        before = {}
    now = contents.digests(candidate.config)
    return {ref: copy for ref, copy in contents.pins(candidate.config).items() if now[ref] != before.get(ref)}


def _template(record: Told, desired: Desired, contents: Contents, *, tried: bool) -> tuple[Json, Shape]:
    """The template that the workload shall have now, and in short."""
    if tried and promotions.exposing(desired) and desired.candidate is not None:
        return tried_template(desired, contents), _shape(desired.candidate, desired.candidate.config)
    version, was = promotions.main(desired), record.was
    # A template that carried no config digest must come back without one, or its revision is not used again.
    config = was.config if was is not None and _ground(record).version(was) == version else version.config
    return promoted(contents.template(version.release), config), _shape(version, config)


def _ground(record: Told) -> Ground:
    return Ground(record.base, record.foreign)


def _shape(version: Version, config: str) -> Shape:
    return Shape(version.release, config if config != NOTHING else "")


def _begun(record: Told, desired: Desired, current: Shape, *, back: bool, put: str) -> Told:
    """From here on the template is ours to write: a trial, a promotion, or a return that somebody asked for, has begun."""
    if desired.full and desired.candidate is not None:
        return msgspec.structs.replace(record, was=record.was or current, put=desired.candidate.config)
    if back:
        return msgspec.structs.replace(record, was=record.was or current, put=put)
    return msgspec.structs.replace(record, was=record.was or current)


def _before(record: Told, workload: Json) -> Before:
    """What the user had, as it was kept, or as it is now."""
    least = workload["spec"].get("minReadySeconds", 0)
    return record.before or Before(min_ready=least, put=least)


def _held(operations: list[Operation], record: Told, workload: Json, desired: Desired, strategy: Json) -> Told:
    """The update strategy is the one that holds candidates back, and a promotion paces itself; what the user had is kept."""
    spec, before = workload["spec"], record.before
    present = spec["updateStrategy"]
    if _holds(present) != _holds(strategy):
        before = _before(record, workload)
        before = before if before.strategy is not None else msgspec.structs.replace(before, strategy=present)
        if "replicas" in spec:
            operations.append(test("/spec/replicas", spec["replicas"]))
        operations += [test("/spec/updateStrategy", present), replace("/spec/updateStrategy", strategy)]
    record = msgspec.structs.replace(record, before=before)
    return _paced(operations, record, workload, max(_before(record, workload).min_ready, desired.pace)) if desired.full else record


def _paced(operations: list[Operation], record: Told, workload: Json, least: int) -> Told:
    """A pod counts as available after `least` seconds."""
    before = _before(record, workload)
    if workload["spec"].get("minReadySeconds", 0) != least:
        operations.append(add("/spec/minReadySeconds", least))
        record = msgspec.structs.replace(record, before=msgspec.structs.replace(before, put=least))
    return record


def _holds(strategy: Json) -> tuple[str, int]:
    """What of a strategy holds pods back; the server may add other fields of its own."""
    return strategy.get("type", ""), (strategy.get("rollingUpdate") or {}).get("partition", 0)


def _written(operations: list[Operation], record: Told, workload: Json, desired: Desired, template: Json, shape: Shape) -> Told:
    """The workload has this template; the way back does not wait for pods to be watched."""
    present = workload["spec"]["template"]
    operations += [test("/spec/template", present), replace("/spec/template", template)]
    record = msgspec.structs.replace(record, template=shape, before=_before(record, workload))
    return record if ours(desired) else _paced(operations, record, workload, 0)


def _freed(operations: list[Operation], known: Told, workload: Json, stable: Version, contents: Contents) -> None:
    """What somebody else made of a template on trial is made of the stable one instead, before their rollout is let go.

    Their change is kept; an untested candidate must not come to every pod with it.
    """
    present = workload["spec"]["template"]
    wanted = _without_trial(present, known, stable, contents)
    if not alike(present, wanted):
        operations += [test("/spec/template", present), replace("/spec/template", wanted)]


def at_rest(workload: Json, contents: Contents) -> Json:
    """The workload's template without what is on trial in it: what its owner asked for."""
    present: Json = workload["spec"]["template"]
    known = marks.record(workload)
    if known is None or known.before is None or known.was is None or known.put:
        return present
    return _without_trial(present, known, _ground(known).version(known.was), contents)


def _without_trial(present: Json, known: Told, stable: Version, contents: Contents) -> Json:
    left = _ground(known).version(known.template)
    if left == stable or not left.release:
        return present
    tried = plain(_tried(left, stable, contents))
    mine = merged(tried, plain(present), plain(contents.template(stable.release)))
    return promoted(mine, known.was.config if known.was is not None else "")


def _given_back(operations: list[Operation], record: Told, workload: Json, before: Before) -> Told:
    """The user's own strategy and pace are back."""
    spec = workload["spec"]
    if before.strategy is not None and spec["updateStrategy"] != before.strategy:
        operations += [test("/spec/updateStrategy", spec["updateStrategy"]), replace("/spec/updateStrategy", before.strategy)]
    if spec.get("minReadySeconds", 0) == before.put != before.min_ready:
        operations.append(add("/spec/minReadySeconds", before.min_ready))
    return msgspec.structs.replace(record, before=None)
