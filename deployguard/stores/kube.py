"""The store in a cluster: one ConfigMap per guard beside the workload, whose resourceVersion is the revision.

    deployguard-<guard>               the document, under `document`, as `schema` writes it for files too
    deployguard-<guard>-inbox         requests of people
    deployguard-<guard>-ledger-0001   everything decided, in a chain of such objects
    deployguard-stop                  while it is there, nothing in the namespace is promoted

An object of a cluster holds 1 MiB at most, every write of it goes to every server of the cluster's database, and every watch
of ConfigMaps carries it; so the document stays below 256 KiB. It holds one rollout, three stable versions and bounded lists:
some 10 KiB as a rule. Above 128 KiB it is stored compressed (about a tenth), under `document.z`; one that were still too large
is refused with what to do, and the old one stays.
"""

from __future__ import annotations

import base64
import datetime as dt
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployguard.errors import Bug, ForeignState, StaleView, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from deployguard.kube.patience import patiently
from deployguard.model.document import Document
from deployguard.model.rollout import Entry, Rollout
from deployguard.stores import schema
from deployguard.stores.chain import Verification
from deployguard.stores.kube_inbox import KubeInbox
from deployguard.stores.kube_ledger import KubeLedger
from deployguard.stores.kube_objects import STATE, Looks, Object, get, guard_of, labels, new, object_name
from deployguard.stores.kube_stop import told as stop_told
from deployguard.stores.past import Summary

DRIVEN_UNTIL = "deployguard.dev/driven-until"
"""Annotation: until when the present driver has claimed the guard; for people."""
MOST_BYTES = 256 * 1024
PLAIN_BYTES = 128 * 1024
_PLAIN, _PACKED = "document", "document.z"


class KubeStore:
    """The document, the ledger and the inbox of one guard in a namespace. Safe for threads and processes.

    `owner` is the guarded workload as an owner reference: the document and the inbox go when it goes, the ledger stays.
    `directory` is where this machine keeps its recordings for the guard. `ledger` is another ledger than the guard's own.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        guard: str,
        owner: Object | None = None,
        *,
        ledger: KubeLedger | None = None,
        directory: Path = Path(),
    ) -> None:
        self.guard = guard
        self.namespace = namespace
        self.directory = directory
        self.ledger = ledger or KubeLedger(kube, namespace, guard)
        self._kube = kube
        self._owner = owner
        self._name = object_name(guard)
        self._path = paths.configmap(namespace, self._name)
        self._place = f"in ConfigMap {self._name} of {namespace}"
        self._looks = Looks(kube, namespace, guard)

    def load(self) -> tuple[Document, str]:
        """The saved document and its revision; an empty document and `""` when nothing was saved. Creates nothing."""
        # Without its labels, which somebody may have replaced, it is found by its name.
        found = self._looks.look().document or get(self._kube, self.namespace, self._name)
        if found is None:
            return Document(guard=self.guard), ""
        return schema.read(_stored(found, self._place), self.guard, self._place), str(found["metadata"]["resourceVersion"])

    def save(self, document: Document, expected: str) -> str:
        """The document is in the cluster and its new revision is returned; see the port for what errors leave."""
        if document.guard != self.guard:
            raise Bug(f"a document of guard {document.guard!r} was to be saved for guard {self.guard!r}")
        if expected == "0":
            # The server would take it for "whatever is there".
            raise Bug(f"the document of guard {self.guard} was to be saved over whatever is there")
        data = schema.write(document)
        body = self._body(document, self._packed(data), expected)
        try:
            if expected:
                saved = self._kube.merge(self._path, body)
            else:
                saved = patiently(lambda: self._kube.create(paths.configmaps(self.namespace), body))
        except (Conflict, AlreadyExists) as error:
            self.ledger.forget()
            raise self._stale(expected, "somebody saved in between") from error
        except NotFound as error:
            if not expected:
                raise
            raise self._stale(expected, "it is no longer there") from error
        except KubeError as error:
            if not error.uncertain:
                raise
            return self._landed(data, expected, error)
        return str(saved["metadata"]["resourceVersion"])

    def append(self, entries: tuple[Entry, ...]) -> None:
        """The entries are in the ledger, durable and chained; those already there are left alone."""
        if entries:
            self.ledger.append(entries)

    def ledgered(self, rollout: str) -> int:
        """The highest entry number of `rollout` in the ledger; 0 when there is none."""
        return self.ledger.highest(rollout)

    def inbox(self) -> KubeInbox:
        """Requests of people to the guard. In a tick that has loaded the document, looking costs no further request."""
        return KubeInbox(self._kube, self.namespace, self.guard, owner=self._owner, looks=self._looks)

    def stopped(self) -> str:
        """Why every promotion in the namespace is frozen; empty when none is. In a tick that has loaded the document it asks nothing."""
        try:
            return stop_told(self._looks.stop(), self.namespace)
        except WorldError as error:
            return f"treated as stopped: {error.message}"

    def entries(self, rollout: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """The entries of the ledger, oldest first: of one rollout if named, and only the newest `limit` if given."""
        return self.ledger.entries(rollout, limit)

    def told(self, rollout: str, present: Rollout | None) -> list[Entry]:
        """All entries of `rollout`, oldest first: those in the ledger, and those of the `present` rollout that are not there yet."""
        return self.ledger.told(rollout, present)

    def history(self) -> list[Summary]:
        """What became of every rollout in the ledger, the newest first."""
        return self.ledger.history()

    def verify(self) -> Verification:
        """Whether the ledger is as it was written, up to the last entry that the saved document knows to be in it."""
        try:
            rollout = self.load()[0].rollout
        except ForeignState:
            rollout = None
        if rollout is None:
            return self.ledger.verify()
        return self.ledger.verify(rollout.id, rollout.outbox[0].n - 1 if rollout.outbox else rollout.written)

    def _packed(self, data: bytes) -> dict[str, str | None]:
        packed: dict[str, str | None] = {_PLAIN: data.decode(), _PACKED: None}
        if len(data) > PLAIN_BYTES:
            small = base64.b64encode(zlib.compress(data, 9)).decode()
            if len(small) > MOST_BYTES:
                raise WorldError(
                    f"could not save the document of guard {self.guard}: it would take {len(small) // 1024} KiB even compressed, "
                    f"and an object of a cluster should hold {MOST_BYTES // 1024} KiB at most",
                    hint="a policy of very many checks or stages makes it large: split the guard; the old document is whole",
                )
            packed = {_PLAIN: None, _PACKED: small}
        return packed

    def _body(self, document: Document, data: dict[str, str | None], expected: str) -> Object:
        """What is created, or what is changed of it: whatever others have put on the object stays."""
        until = document.claim.until.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if document.claim else None
        if not expected:
            body = new(self._name, self.guard, "document", self._owner) | {
                "data": {key: text for key, text in data.items() if text is not None}
            }
            body["metadata"]["annotations"] = {DRIVEN_UNTIL: until} if until else {}
            return body
        metadata: Object = {"resourceVersion": expected, "labels": labels(self.guard, "document"), "annotations": {DRIVEN_UNTIL: until}}
        if self._owner is not None:
            metadata["ownerReferences"] = [self._owner]
        return {"metadata": metadata, "data": data}

    def _landed(self, data: bytes, expected: str, error: KubeError) -> str:
        """What became of a save whose answer was lost: it is there, or somebody else's is, or nobody can tell (then `error`)."""
        try:
            found = get(self._kube, self.namespace, self._name)
        except KubeError:
            raise error from None
        if found is not None and _stored(found, self._place) == data:
            return str(found["metadata"]["resourceVersion"])
        if (found["metadata"]["resourceVersion"] if found is not None else "") == expected:
            raise error
        raise self._stale(expected, "somebody saved in between") from error

    def _stale(self, expected: str, fact: str) -> StaleView:
        return StaleView(
            f"could not save the document of guard {self.guard} {self._place}: {fact} (expected revision {expected or 'nothing'})",
            hint="load it again and decide anew",
        )


def guards(kube: Kube, namespace: str | None) -> list[tuple[str, str]]:
    """Namespace and name of every guard with a saved document, sorted; of all namespaces when None."""
    return sorted((each["metadata"]["namespace"], guard_of(each)) for each in _documents(kube, namespace))


def documents(kube: Kube, namespace: str | None) -> list[tuple[str, str, Document | ForeignState]]:
    """Namespace, name and saved document of every guard, sorted, from one list; the error of one that cannot be read."""
    return sorted((_read(each) for each in _documents(kube, namespace)), key=lambda found: found[:2])


def _documents(kube: Kube, namespace: str | None) -> list[dict[str, Any]]:
    return kube.list(paths.configmaps(namespace or ""), {"labelSelector": f"{STATE}=document"})


def _read(obj: Object) -> tuple[str, str, Document | ForeignState]:
    namespace, guard = obj["metadata"]["namespace"], guard_of(obj)
    place = f"in ConfigMap {obj['metadata']['name']} of {namespace}"
    try:
        return namespace, guard, schema.read(_stored(obj, place), guard, place)
    except ForeignState as error:
        return namespace, guard, error


def _stored(obj: Object, place: str) -> bytes:
    """The bytes of the document in an object. Raises `ForeignState` when there are none."""
    data = obj.get("data") or {}
    if _PLAIN in data:
        return str(data[_PLAIN]).encode()
    try:
        return zlib.decompress(base64.b64decode(str(data[_PACKED]), validate=True))
    except (KeyError, ValueError, zlib.error) as error:
        raise ForeignState(
            f"could not read the saved document {place}: it holds none",
            hint="somebody else made or edited that ConfigMap; delete it, and the guard starts anew from what runs",
        ) from error
