"""Deciding again what was decided: the same pure functions over a recording, and every result beside the ledger, byte for byte."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deployguard.engine import begin, claims
from deployguard.engine.recording import Closed, Loaded, Looked, Lost, Record, digest
from deployguard.engine.step import step
from deployguard.model.base import encode
from deployguard.model.document import Document
from deployguard.model.rollout import Entry

if TYPE_CHECKING:
    from deployguard.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision made again, at `at`: the document it left, and the entries that it added to the ledger.

    `same`: the document is the saved one, by its digest; None where nothing moved, so that none was recorded.
    """

    at: dt.datetime
    document: Document
    entries: tuple[Entry, ...]
    same: bool | None = None


def replayed(policy: Policy, records: Iterable[Record]) -> Iterator[Decided | Loaded | Lost]:
    """Every tick of the recording, decided again from what the driver of the tick had then.

    Documents that drivers loaded are handed through: what was decided in a tick that a crash cut off stands in them alone.
    """
    held: dict[str, tuple[str, Document]] = {}
    for record in records:
        match record:
            case Loaded():
                held[record.by] = (record.holder, record.document)
                yield record
            case Lost():
                held.pop(record.by, None)
                yield record
            case Looked() if record.by in held:
                holder, before = held[record.by]
                document, same = _ticked(policy, holder, before, record)
                held[record.by] = (holder, document)
                yield Decided(record.at, document, added(before, document), same)
            case Closed():
                document = begin.closed(record.document, record.view, record.at)
                yield Decided(record.at, document, added(record.document, document))
            case _:
                pass


def _ticked(policy: Policy, holder: str, document: Document, tick: Looked) -> tuple[Document, bool | None]:
    """What `Driver.tick` does with a document, without the world: the claim, the step, the claim of the save."""
    if document.claim is None or document.claim.holder != holder:
        document = claims.claimed(document, holder, tick.at)
    document = step(policy, document, tick.seen, tick.at).document
    if tick.saved:
        document = claims.claimed(document, holder, tick.at)
    return document, digest(document) == tick.digest if tick.digest else None


def added(before: Document, after: Document) -> tuple[Entry, ...]:
    """The entries that a rollout has got between two documents of it."""
    assert before.rollout is not None
    assert after.rollout is not None
    known = before.rollout.written
    return tuple(entry for entry in after.rollout.outbox if entry.n > known)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that came out otherwise. `n` is the number of the entry, 0 for a saved document; empty text: there is none."""

    n: int
    at: dt.datetime
    replayed: str
    recorded: str


@dataclass(slots=True)
class Comparison:
    """A replay beside the ledger.

    `ticks` were decided again; `entries` of them and `moves`, the saved documents of their transitions, came out identical. `carried`
    are numbers of entries that no recorded tick decided, but that a driver found in the document it loaded: those of the command that
    opened the rollout, and of a tick that a crash cut off. `missing` are entries of the ledger that the recording does not reach,
    `lost` the instants where records are missing. `documents` are those right after each entry, by its number.
    """

    ticks: int = 0
    entries: list[Entry] = field(default_factory=list)
    moves: int = 0
    carried: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    lost: list[dt.datetime] = field(default_factory=list)
    until: dt.datetime | None = None
    difference: Difference | None = None
    document: Document | None = None
    documents: dict[int, Document] = field(default_factory=dict)
    versions: set[str] = field(default_factory=set)

    @property
    def identical(self) -> bool:
        """Whether all that was decided came out again, to the byte."""
        return self.difference is None and not self.missing


def compared(policy: Policy, records: Iterable[Record], ledger: Iterable[Entry], watch: Callable[[int], None] | None = None) -> Comparison:
    """The recording replayed, and its entries beside those of the ledger. `watch` is told how many ticks have been replayed."""
    found, loaded = Comparison(), 0
    recorded = {entry.n: entry for entry in ledger}
    again: dict[int, Entry] = {}
    for one in replayed(policy, records):
        if isinstance(one, Loaded):
            found.versions.add(one.version)
            loaded = max(loaded, one.document.rollout.written if one.document.rollout else 0)
            found.document = found.document or one.document
            continue
        if isinstance(one, Lost):
            found.lost.append(one.at)
            continue
        found.ticks, found.until, found.document = found.ticks + 1, one.at, one.document
        found.moves += one.same is True
        if watch is not None:
            watch(found.ticks)
        for entry in one.entries:
            again[entry.n] = entry
            found.documents[entry.n] = one.document
        if found.difference is None:
            found.difference = _first(one, recorded)
    found.entries = [entry for n, entry in sorted(again.items()) if n in recorded]
    unseen = [n for n in sorted(recorded) if n not in again]
    found.carried = tuple(n for n in unseen if n <= loaded)
    found.missing = tuple(n for n in unseen if n > loaded)
    return found


def _first(one: Decided, recorded: dict[int, Entry]) -> Difference | None:
    """The first entry of a decision that is not the ledger's; else whether the document is the one that was saved."""
    for entry in one.entries:
        mine = encode(entry).decode()
        theirs = encode(recorded[entry.n]).decode() if entry.n in recorded else ""
        if mine != theirs:
            return Difference(entry.n, one.at, mine, theirs)
    if one.same is False:
        return Difference(0, one.at, "a document with another digest", "the digest of the document that was saved")
    return None
