"""The store in a directory of files: what a guard on one machine, or in one pipeline, needs and nothing more.

    <state>/guards/<guard>/document.json   the saved document
                           ledger.jsonl    everything decided, append-only
                           lock            held for one save or one append, never for a drive
                           inbox/          requests of people
                           readings/       what the signals said, for replay

The revision is the SHA-256 of the document's bytes, not a counter: it needs no envelope, an edit by hand changes it
like any other save, and two saves that give the same revision have saved the same state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from deployguard.errors import Bug, ForeignState, StaleView
from deployguard.model.document import Document
from deployguard.model.rollout import Entry, Rollout
from deployguard.stores import disk, ledger, schema, stop
from deployguard.stores.inbox import FileInbox
from deployguard.stores.ledger import Ledger, Summary, Verification, verify

GUARDS = "guards"


def guard_directory(state: Path, guard: str) -> Path:
    """Where everything of one guard lies below the state directory."""
    return state / GUARDS / disk.safe_name(guard)


def guards(state: Path) -> list[str]:
    """The names of all guards with anything saved below `state`, sorted; none when there is no such directory."""
    try:
        return sorted(unquote(p.name) for p in (state / GUARDS).iterdir() if p.is_dir() and not p.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise disk.refused("list", state / GUARDS, error) from error


def revision_of(data: bytes) -> str:
    """The revision of a document with these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FileStore:
    """The document and the ledger of one guard, as files below the state directory. Safe for threads and processes."""

    def __init__(self, directory: Path, guard: str, *, lock_seconds: float = disk.LOCK_SECONDS) -> None:
        self.guard = guard
        self.state = directory
        self.directory = guard_directory(directory, guard)
        self.path = self.directory / "document.json"
        self._lock = self.directory / "lock"
        self._seconds = lock_seconds
        self.ledger = Ledger(self.directory / "ledger.jsonl", self._lock, lock_seconds=lock_seconds)

    def load(self) -> tuple[Document, str]:
        """The saved document and its revision; an empty document and `""` when nothing was saved. Creates nothing."""
        data = disk.read(self.path)
        if data is None:
            return Document(guard=self.guard), ""
        return schema.read(data, self.guard, str(self.path)), revision_of(data)

    def save(self, document: Document, expected: str) -> str:
        """The document is on the disk, whole, and its new revision is returned; see the port for what errors leave."""
        if document.guard != self.guard:
            raise Bug(f"a document of guard {document.guard!r} was to be saved for guard {self.guard!r}")
        data = schema.write(document)
        disk.make_directory(self.directory, self.state)
        with disk.locked(self._lock, f"save the document of guard {self.guard}", self._seconds):
            disk.sweep(self.directory)
            old = disk.read(self.path)
            found = "" if old is None else revision_of(old)
            if found != expected:
                raise StaleView(
                    f"could not save the document of guard {self.guard}: somebody saved in between "
                    f"(expected {expected[:17] or 'nothing'}, found {found[:17] or 'nothing'})",
                    hint="load it again and decide anew",
                )
            disk.replace(self.path, data)
        return revision_of(data)

    def append(self, entries: tuple[Entry, ...]) -> None:
        """The entries are in the ledger, durable and chained; those already there are left alone."""
        if entries:
            disk.make_directory(self.directory, self.state)
            self.ledger.append(entries)

    def ledgered(self, rollout: str) -> int:
        """The highest entry number of `rollout` in the ledger; 0 when there is none."""
        return self.ledger.highest(rollout)

    def inbox(self) -> FileInbox:
        """Requests of people to the guard."""
        return FileInbox(self.directory)

    def entries(self, rollout: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """The entries of the ledger, oldest first: of one rollout if named, and only the newest `limit` if given."""
        return ledger.entries(self.ledger.path, rollout, limit)

    def told(self, rollout: str, present: Rollout | None) -> list[Entry]:
        """All entries of `rollout`, oldest first: those in the ledger, and those of the `present` rollout that are not there yet."""
        return ledger.told(self.ledger.path, rollout, present)

    def history(self) -> list[Summary]:
        """What became of every rollout in the ledger, the newest first."""
        return ledger.history(self.ledger.path)

    def stopped(self) -> str:
        """Why every promotion is frozen; empty when none is."""
        return stop.stopped(self.state)

    def verify(self) -> Verification:
        """Whether the ledger is as it was written, up to the last entry that the saved document knows to be in it."""
        try:
            rollout = self.load()[0].rollout
        except ForeignState:
            rollout = None
        if rollout is None:
            return verify(self.ledger.path)
        known = rollout.outbox[0].n - 1 if rollout.outbox else rollout.written
        return verify(self.ledger.path, rollout.id, known)
