"""The stores without a disk, for tests and scenarios: the same contract, and a place to let things go wrong.

Several stores share one `MemoryWorld` as several drivers share one directory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from deployguard.errors import Bug, StaleView
from deployguard.model.document import Document
from deployguard.model.rollout import Entry
from deployguard.stores import schema
from deployguard.stores.file import revision_of
from deployguard.stores.past import Numbers

Hook = Callable[[str], None]


def _nothing(operation: str) -> None:
    """Everything goes well."""


class MemoryWorld:
    """What survives the drivers: documents by guard, and ledgers by guard.

    `before` and `after` are called with `load`, `save`, `append` or `ledgered`; what they raise reaches the driver, from
    `before` as if nothing had happened, from `after` as if the answer had been lost. Neither runs inside the lock.
    """

    def __init__(self, before: Hook = _nothing, after: Hook = _nothing) -> None:
        self.before = before
        self.after = after
        self.documents: dict[str, bytes] = {}
        self.ledgers: dict[str, list[Entry]] = {}
        self.numbers: dict[tuple[str, str], Numbers] = {}
        self.lock = threading.Lock()


class MemoryStore:
    """One driver's view of a shared world. Documents pass through their bytes, as on a disk, so no two drivers share a value."""

    def __init__(self, world: MemoryWorld, guard: str) -> None:
        self.world = world
        self.guard = guard

    def load(self) -> tuple[Document, str]:
        """The saved document and its revision; an empty document and `""` when nothing was saved."""
        self.world.before("load")
        data = self.world.documents.get(self.guard)
        loaded = (schema.read(data, self.guard, "in memory"), revision_of(data)) if data is not None else (Document(guard=self.guard), "")
        self.world.after("load")
        return loaded

    def save(self, document: Document, expected: str) -> str:
        """The document is saved and its new revision returned, unless somebody saved in between."""
        self.world.before("save")
        if document.guard != self.guard:
            raise Bug(f"a document of guard {document.guard!r} was to be saved for guard {self.guard!r}")
        data = schema.write(document)
        with self.world.lock:
            old = self.world.documents.get(self.guard)
            if expected != ("" if old is None else revision_of(old)):
                raise StaleView(f"could not save the document of guard {self.guard}: somebody saved in between")
            self.world.documents[self.guard] = data
        self.world.after("save")
        return revision_of(data)

    def append(self, entries: tuple[Entry, ...]) -> None:
        """The entries are in the ledger; those already there are left alone."""
        self.world.before("append")
        with self.world.lock:
            for entry in entries:
                numbers = self.world.numbers.setdefault((self.guard, entry.rollout), Numbers())
                if entry.n not in numbers:
                    numbers.add(entry.n)
                    self.world.ledgers.setdefault(self.guard, []).append(entry)
        self.world.after("append")

    def ledgered(self, rollout: str) -> int:
        """The highest entry number of `rollout` in the ledger; 0 when there is none."""
        self.world.before("ledgered")
        numbers = self.world.numbers.get((self.guard, rollout))
        self.world.after("ledgered")
        return numbers.highest if numbers else 0
