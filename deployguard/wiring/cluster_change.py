"""From what a pipeline asks for to a candidate that lies in the cluster: its template, its configuration, and how both differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deployguard.errors import UserError
from deployguard.files.changes import image_change, set_change, with_images, with_settings
from deployguard.files.manifest import Manifest, candidate_of, load_manifest, others, others_words
from deployguard.files.sources import Source, config_sources, sources_of
from deployguard.model.version import NOTHING, Version
from deployguard.report.kube_diff import config_diff, keys_diff, template_diff
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent
from deployguard.targets.kubernetes.template import images
from deployguard.wiring.workload import Candidate, Change

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.wiring.cluster_workload import ClusterWorkload

Template = dict[str, Any]
Contents = Mapping[ConfigRef, ConfigContent]
MOST_YOURS = 5
KEPT = ("kubectl.kubernetes.io/restartedAt",)
"""Annotations of the template that commands leave there and no manifest writes: a manifest without them means them too."""


def made(workload: ClusterWorkload, change: Change, stable: Version, document: Document, *, differ: bool) -> Candidate:
    """The candidate that the change asks for. What is not given is the workload's own; a condemned configuration is stable's.

    Raises `UserError` for a change that this workload cannot take.
    """
    if change.release is not None:
        raise UserError(
            f"`--release` is for fleets of this machine, and the target is {workload.word}",
            hint="name an image with `--image`, a manifest with `--manifest`, or a field with `--set`",
        )
    notes: list[str] = []
    written = _manifests(change, workload, notes)
    template = with_settings(
        with_images(_template(workload, written), [image_change(one) for one in change.images]),
        [set_change(one) for one in change.settings],
    )
    contents = _contents(workload, change, written, stable, document, notes)
    store = workload.followed.contents()
    version = Version(store.admit_template(template), store.admit_config(contents) if contents else NOTHING)
    names = {version.release: _release_name(template, version.release, document)} | config_name(contents, version.config)
    if change.name:
        names[version.release if version.release != stable.release else version.config] = change.name
    return Candidate(version, names, _diff(workload, version, stable) if differ else (), tuple(notes))


def config_name(contents: Contents, digest: str) -> dict[str, str]:
    """What people call a configuration, by its digest: its sources, and the beginning of the digest. Empty where nothing is guarded."""
    return {} if digest == NOTHING else {digest: "+".join(ref.name for ref in sorted(contents)) + "@" + digest[7:13]}


def short_image(template: Mapping[str, Any]) -> str:
    """What people call a release: its images without their registry, as `web:1.9`."""
    found = list(dict.fromkeys(image.rsplit("/", 1)[-1].split("@")[0] for image in images(template).values()))
    return "+".join(found[:3])


def _release_name(template: Template, digest: str, document: Document) -> str:
    """What people call the release: its images, and its digest too when another release goes by the same images."""
    name = short_image(template)
    others_called = {known for other, known in document.names.items() if other != digest}
    return f"{name}~{digest[7:13]}" if name in others_called else name


def _manifests(change: Change, workload: ClusterWorkload, notes: list[str]) -> list[Manifest]:
    read = [load_manifest(path) for path in change.manifest]
    ref = workload.guarded.ref
    ours = [(ref.kind, ref.name), *((one.kind, one.name) for one in workload.guarded.config)]
    yours = [one for manifest in read for one in others(manifest, ours, ref.namespace)]
    if yours:
        notes.append(f"only {workload.word} and its guarded configuration are taken; yours to apply: {'; '.join(others_words(yours))}")
    return read


def _template(workload: ClusterWorkload, manifests: list[Manifest]) -> Template:
    """The pod template of the manifest; the workload's own when there is none."""
    live = workload.live.template
    if not manifests:
        return live
    ref = workload.guarded.ref
    written: Template = candidate_of(manifests[-1], ref.kind, ref.name, ref.namespace)["spec"]["template"]
    marks = (live.get("metadata") or {}).get("annotations") or {}
    kept = {key: value for key, value in marks.items() if key in KEPT}
    if not kept:
        return written
    meta = written.get("metadata") or {}
    return {**written, "metadata": {**meta, "annotations": {**kept, **(meta.get("annotations") or {})}}}


def _contents(
    workload: ClusterWorkload, change: Change, manifests: list[Manifest], stable: Version, document: Document, notes: list[str]
) -> dict[ConfigRef, ConfigContent]:
    """The content of every guarded source as the candidate shall read it."""
    guarded = workload.guarded.config
    base: Contents = workload.live.contents
    asked = workload.live.source.config
    if asked != stable.config and any(bad.digest == asked for bad in document.quarantine):
        base = {ref: copy.content for ref, copy in workload.followed.contents().config(stable.config).items()}
        notes.append(
            "the configuration's source still holds what was condemned; the candidate takes stable's configuration, "
            "and a promotion puts that into the source"
        )
    found = {ref: base[ref] for ref in guarded if ref in base}
    for manifest in manifests:
        given = sources_of(manifest, [(ref.kind, ref.name) for ref in guarded], workload.guarded.ref.namespace)
        found.update({ConfigRef(*key): _content(source, found.get(ConfigRef(*key))) for key, source in given.items()})
    for key, source in config_sources(change.configs).items():
        ref = ConfigRef(*key)
        if ref not in guarded:
            known = ", ".join(f"{one.kind}/{one.name}" for one in guarded) or "none"
            raise UserError(
                f"`--config {source.title}` is not a configuration that the guard of {workload.word} names; it names {known}",
                hint="add it to `spec.config` of the guard",
            )
        found[ref] = _content(source, found.get(ref))
        if source.skipped:
            notes.append(f"{source.title}: not taken from the directory: {', '.join(source.skipped[:MOST_YOURS])}")
    missing = [str(ref) for ref in guarded if ref not in found]
    if missing:
        raise UserError(
            f"could not read the configuration of {workload.word}: there is no {', '.join(missing)}",
            hint="create it, give its content with `--config KIND/NAME=PATH`, or take it out of `spec.config`",
        )
    return found


def _content(source: Source, present: ConfigContent | None) -> ConfigContent:
    body = {"kind": source.kind, **source.body()}
    if source.kind == "Secret" and "type" not in body:
        body["type"] = (present.type if present else "") or "Opaque"
    return ConfigContent.of(body)


def _diff(workload: ClusterWorkload, version: Version, stable: Version) -> tuple[str, ...]:
    store = workload.followed.contents()
    lines = template_diff(store.template(stable.release), store.template(version.release)) if version.release != stable.release else []
    if version.config == stable.config:
        return tuple(lines)
    old, new = store.config(stable.config), store.config(version.config)
    for ref in sorted({*old, *new}):
        before, after = (side[ref].content if ref in side else None for side in (old, new))
        if ref.kind == "Secret":
            lines += keys_diff(str(ref), before.binary if before else None, after.binary if after else None)
            continue
        lines += config_diff(str(ref), before.data if before else None, after.data if after else None)
        lines += keys_diff(f"{ref} (binary)", before.binary if before else {}, after.binary if after else {})
    return tuple(lines)
