"""What versions are made of, kept in the cluster: pod templates and immutable copies of configurations, named by content.

They are owned by no workload: `kubectl replace --force` would take along what a rollback needs. Secrets are read by name only and their
digests are keyed, so that nobody can try values against them.
"""

from __future__ import annotations

import base64
import math
import secrets
import threading
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from deployguard import clock
from deployguard.errors import UserError, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import AlreadyExists, Conflict, FailedPrecondition, Invalid, KubeError, NotFound
from deployguard.kube.patches import add, pointer, replace, test
from deployguard.kube.patience import patiently
from deployguard.model.version import NOTHING, Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.marks import Json, WorkloadRef
from deployguard.targets.kubernetes.references import CONFIG_MAP, SECRET, ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent, Copy, Entry, config_digest, content_digest, entries_of
from deployguard.targets.kubernetes.template import digest as template_digest
from deployguard.targets.kubernetes.template import plain

KEY_SECRET = "deployguard-key"
GRACE = 3600.0
"""Seconds for which what was admitted is kept although nothing names it yet."""
_TEMPLATE = "template.json"
_INDEX = "config.json"
_ATTEMPTS = 3


class Contents:
    """The content of one workload's versions. Safe for threads; what it has read once, and cannot change, it remembers.

    `shapes` are templates seen lately in short, by their bytes.
    """

    def __init__(self, kube: Kube, ref: WorkloadRef) -> None:
        self.shapes: dict[bytes, marks.Shape] = {}
        self._kube = kube
        self._ref = ref
        self._lock = threading.Lock()
        self._key: bytes | None = None
        self._templates: dict[str, Json] = {}
        self._indexes: dict[str, tuple[Entry, ...]] = {}
        self._configs: dict[str, dict[ConfigRef, Copy]] = {}

    def admit_template(self, template: Mapping[str, Any]) -> str:
        """The template is kept as the API server would store it, defaults and all; its digest.

        Raises `UserError` when the server does not take such a template.
        """
        known = template_digest(template)
        stored = plain(template) if known in self._templates else plain(self._as_stored(template))
        digest = template_digest(stored)
        body = {_TEMPLATE: msgspec.json.encode(stored, order="sorted").decode()}
        self._keep(CONFIG_MAP, marks.release_name(self._ref.name, digest), digest, {"data": body}, self._own("release"))
        self._templates[digest] = stored
        return digest

    def template(self, digest: str) -> Json:
        """The template of that digest. Raises `WorldError` when it is not kept, or is not what its name says."""
        if digest not in self._templates:
            found = self._kept(marks.release_name(self._ref.name, digest), "release", digest)
            stored = _decoded(found, _TEMPLATE)
            if not isinstance(stored, dict) or template_digest(stored) != digest:
                raise _damaged(found, digest)
            self._templates[digest] = stored
        return self._templates[digest]

    def admit_config(self, contents: Mapping[ConfigRef, ConfigContent]) -> str:
        """Every content is kept as an immutable copy, and the pairs of source and copy under one digest, which comes back.

        `NOTHING` when there is none. The index comes first: a collector that runs meanwhile then knows what is needed.
        """
        entries = tuple(
            Entry(ref.kind, ref.name, marks.copy_name(ref.name, digest), digest)
            for ref, digest in ((ref, self.digest_of(ref, contents[ref])) for ref in sorted(contents))
        )
        if not entries:
            return NOTHING
        digest = config_digest({e.ref: e.digest for e in entries})
        body = {"data": {_INDEX: msgspec.json.encode(entries, order="sorted").decode()}}
        self._keep(CONFIG_MAP, marks.index_name(self._ref.name, digest), digest, body, self._own("config"))
        for entry in entries:
            content = contents[entry.ref]
            mine = {marks.CONTENT: "copy", marks.COPY_OF: marks.label_value(entry.name)}
            self._keep(entry.kind, entry.copy, entry.digest, content.fields(entry.kind), mine)
        self._indexes[digest] = entries
        self._configs[digest] = {e.ref: Copy(e.copy, contents[e.ref]) for e in entries}
        return digest

    def digests(self, digest: str) -> dict[ConfigRef, str]:
        """The digest of each source's content in a configuration. Raises `WorldError` when the configuration is not kept."""
        return {entry.ref: entry.digest for entry in self._entries(digest)}

    def pins(self, digest: str) -> dict[ConfigRef, str]:
        """The name of the copy for each source of a configuration."""
        return {entry.ref: entry.copy for entry in self._entries(digest)}

    def config(self, digest: str) -> dict[ConfigRef, Copy]:
        """The copies of a configuration with their content. Raises `WorldError` when one is gone, or is not what its name says."""
        if digest not in self._configs:
            found = {}
            for entry in self._entries(digest):
                try:
                    content = ConfigContent.of(self._kube.get(paths.content(entry.kind, self._ref.namespace, entry.copy)))
                except NotFound as error:
                    raise WorldError(
                        f"the copy {entry.copy} of {entry.ref} in {self._ref.namespace} is gone: {error.message}",
                        hint="admit the configuration again with `deployguard run`",
                    ) from error
                if self.digest_of(entry.ref, content) != entry.digest:
                    raise WorldError(
                        f"digest mismatch: {entry.kind} {entry.copy} in {self._ref.namespace} is not the content it was made from",
                        hint=f"it was made anew by somebody else, or the Secret {KEY_SECRET} was; delete the copy and run again",
                    )
                found[entry.ref] = Copy(entry.copy, content)
            self._configs[digest] = found
        return self._configs[digest]

    def digest_of(self, ref: ConfigRef, content: ConfigContent) -> str:
        """The digest of one content: keyed for Secrets."""
        return content_digest(content, self._secret_key() if ref.kind == SECRET else None)

    def collect(self, keep: Collection[Version], dropped: Collection[Version] = ()) -> list[str]:
        """Gone: everything kept for this workload that no version in `keep` names, and copies that nobody's index names. Their names.

        What was admitted lately stays, unless it is of a `dropped` version. A delete names what was read, so that what is admitted
        meanwhile is not lost.
        """
        before = clock.now().timestamp() - GRACE
        unwanted = {v.release for v in dropped} | {v.config for v in dropped}
        copies = self._listed(f"{marks.CONTENT}=copy")
        indexes = self._listed(f"{marks.CONTENT}=config")
        mine = [*self._listed(self._selector("release")), *self._listed(self._selector("config"))]
        wanted = {v.release for v in keep} | {v.config for v in keep}
        digests = {marks.uid(obj): marks.notes(obj).get(marks.DIGEST, "") for obj in mine}
        free = [obj for obj in mine if digests[marks.uid(obj)] not in wanted]
        doomed = [obj for obj in free if _admitted(obj) < before or digests[marks.uid(obj)] in unwanted]
        gone_uids = {marks.uid(obj) for obj in doomed}
        named = {(e.kind, e.copy) for index in indexes if marks.uid(index) not in gone_uids for e in entries_of(index, _INDEX)}
        theirs = {(e.kind, e.copy): digests[marks.uid(i)] in unwanted for i in doomed for e in entries_of(i, _INDEX)}
        orphans = [copy for copy in copies if (CONFIG_MAP, marks.name(copy)) not in named]
        doomed += [copy for copy in orphans if _admitted(copy) < before or theirs.get((CONFIG_MAP, marks.name(copy)))]
        gone = [marks.name(obj) for obj in doomed if self._gone(CONFIG_MAP, obj)]
        kept_secrets = {name: at_once for (kind, name), at_once in sorted(theirs.items()) if kind == SECRET and (kind, name) not in named}
        return [*gone, *(name for name, at_once in kept_secrets.items() if self._secret_gone(name, math.inf if at_once else before))]

    def _as_stored(self, template: Mapping[str, Any]) -> Json:
        """The template with the server's defaults and what its admission makes of it; nothing is written."""
        operations = [replace("/spec/template", plain(template))]
        try:
            found = self._kube.patch(paths.workload(self._ref.kind, self._ref.namespace, self._ref.name), operations, {"dryRun": "All"})
        except Invalid as error:
            raise UserError(f"the API server does not take this pod template for {self._ref}: {error.api_message}") from error
        except KubeError as error:
            if error.status == 400 and "dry run" in error.api_message:
                return dict(template)  # a webhook that cannot be tried: then nobody can tell beforehand
            raise
        stored: Json = found["spec"]["template"]
        return stored

    def _own(self, content: str) -> dict[str, str]:
        return {marks.CONTENT: content, marks.WORKLOAD: marks.label_value(self._ref.name), marks.KIND: self._ref.kind}

    def _selector(self, content: str) -> str:
        return ",".join(f"{key}={value}" for key, value in self._own(content).items())

    def _listed(self, selector: str) -> list[Json]:
        return self._kube.list(paths.configmaps(self._ref.namespace), {"labelSelector": selector})

    def _entries(self, digest: str) -> tuple[Entry, ...]:
        if digest == NOTHING:
            return ()
        if digest not in self._indexes:
            found = self._kept(marks.index_name(self._ref.name, digest), "config", digest)
            entries = entries_of(found, _INDEX)
            if config_digest({e.ref: e.digest for e in entries}) != digest:
                raise _damaged(found, digest)
            self._indexes[digest] = entries
        return self._indexes[digest]

    def _kept(self, name: str, part: str, digest: str) -> Json:
        try:
            return self._kube.get(paths.configmap(self._ref.namespace, name))
        except NotFound as error:
            raise WorldError(
                f"the {part} {digest} of {self._ref} is not kept: there is no ConfigMap {name}",
                hint="admit it again with `deployguard run`",
            ) from error

    def _keep(self, kind: str, name: str, digest: str, fields: Json, labels: Mapping[str, str]) -> None:
        """An immutable object with this content is there, and was asked for now."""
        now = str(int(clock.now().timestamp()))
        body: Json = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name, "labels": {**labels, marks.ADMITTED: now}, "annotations": {marks.DIGEST: digest}},
            "immutable": True,
            **fields,
        }
        for _attempt in range(_ATTEMPTS):
            try:
                patiently(lambda: self._kube.create(paths.contents(kind, self._ref.namespace), body))
            except AlreadyExists:
                if self._touched(kind, name, digest, now):
                    return
            else:
                return
        raise WorldError(f"could not keep {kind} {name} in {self._ref.namespace}: it comes and goes", hint="who else deletes it?")

    def _touched(self, kind: str, name: str, digest: str, now: str) -> bool:
        """Whether what is there has this digest, and a collector now knows that it is needed; False when it has just gone."""
        path = paths.content(kind, self._ref.namespace, name)
        label = pointer("metadata", "labels", marks.ADMITTED)
        try:
            self._kube.patch(path, [test(pointer("metadata", "annotations", marks.DIGEST), digest), add(label, now)])
        except NotFound:
            return False
        except FailedPrecondition as error:
            raise WorldError(
                f"{kind} {name} in {self._ref.namespace} is not the content that its name says: {digest}",
                hint="it was made by somebody else; delete it",
            ) from error
        return True

    def _gone(self, kind: str, obj: Json) -> bool:
        path = paths.content(kind, self._ref.namespace, marks.name(obj))
        try:
            self._kube.delete(path, uid=marks.uid(obj), resource_version=obj["metadata"]["resourceVersion"])
        except (NotFound, Conflict):
            return False
        return True

    def _secret_gone(self, name: str, before: float) -> bool:
        try:
            found = self._kube.get(paths.secret(self._ref.namespace, name))
        except NotFound:
            return False
        return _admitted(found) < before and marks.labels(found).get(marks.CONTENT) == "copy" and self._gone(SECRET, found)

    def _secret_key(self) -> bytes:
        """The key of the namespace, made at first need."""
        with self._lock:
            if self._key is None:
                self._key = self._read_key() or self._make_key()
            return self._key

    def _read_key(self) -> bytes | None:
        try:
            found = self._kube.get(paths.secret(self._ref.namespace, KEY_SECRET))
        except NotFound:
            return None
        return base64.b64decode((found.get("data") or {}).get("key", "")) or None

    def _make_key(self) -> bytes:
        key = secrets.token_bytes(32)
        body: Json = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": KEY_SECRET},
            "immutable": True,
            "data": {"key": base64.b64encode(key).decode()},
        }
        try:
            self._kube.create(paths.secrets(self._ref.namespace), body)
        except AlreadyExists:
            other = self._read_key()
            if other is None:
                raise WorldError(
                    f"the Secret {KEY_SECRET} in {self._ref.namespace} holds no key", hint="delete it; it is then made anew"
                ) from None
            return other
        return key


def _admitted(obj: Json) -> int:
    return marks.number(obj, marks.ADMITTED) or 0


def _decoded(found: Json, key: str) -> Any:
    try:
        return msgspec.json.decode((found.get("data") or {}).get(key, ""))
    except msgspec.DecodeError:
        return None


def _damaged(found: Json, digest: str) -> WorldError:
    return WorldError(
        f"digest mismatch: ConfigMap {marks.name(found)} is not {digest}",
        hint="it was made anew by somebody else; delete it and run again",
    )
