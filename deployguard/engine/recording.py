"""The recording of a rollout: what each tick saw, so that the same decisions can be made again from it, to the byte.

It is a sequence of records, each a JSON object, by the word under `k`:

    document   a driver loaded this document from the store, and goes on from it
    tick       what one tick saw: its instant, the view, the answers, the requests of people, and what was saved of it
    whole      the same, told without reference to the tick before; a reader may begin here
    closed     the rollout was ended because another one began

Polls are much alike, so a tick tells its view and the answers of each check as text that is deflated with the text of the
driver's last tick as its dictionary; what is equal to it is left out. `by` tells drivers apart whose ticks lie in one recording,
and `n` counts the ticks of one driver since its document, so that a lost record is noticed.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployguard.errors import ForeignState
from deployguard.model.action import Observation
from deployguard.model.base import encode
from deployguard.model.document import Document, Request
from deployguard.model.reading import Answer, Missing
from deployguard.model.rollout import Phase, Rollout
from deployguard.model.target import TargetView

FORMAT = 2
WHOLE_EVERY = dt.timedelta(minutes=5)
DOCUMENT, TICK, WHOLE, CLOSED = "document", "tick", "whole", "closed"
_LEVEL = 3
"""Of the deflation: the higher ones take twice the time for a sixth of the size."""

_VIEW: msgspec.json.Decoder[TargetView] = msgspec.json.Decoder(TargetView)
_ANSWERS: msgspec.json.Decoder[dict[str, Answer]] = msgspec.json.Decoder(dict[str, Answer])
_HINT = "every decision it led to is still in the ledger: `deployguard why ROLLOUT` without `--replay`"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A driver, known as `holder` to its claims and as `by` in this recording, loaded `document` and goes on from it."""

    by: str
    at: dt.datetime
    holder: str
    document: Document
    version: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What a tick of driver `by` saw at `at`. `phase` and `seq` are those that it left the rollout with.

    `saved`: its document was saved. `digest` is that of the saved document when the tick moved, else empty.
    """

    by: str
    at: dt.datetime
    seen: Observation
    phase: Phase
    seq: int
    saved: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Another rollout began, and this one, saved as `document`, was ended."""

    at: dt.datetime
    document: Document
    view: TargetView


@dataclass(frozen=True, slots=True)
class Lost:
    """From here on records of driver `by` are lost, until it loads its document again; `at` is the first instant that is known of it."""

    by: str
    at: dt.datetime


Record = Loaded | Looked | Closed | Lost


def digest(document: Document) -> str:
    """What tells one saved document from another."""
    return hashlib.sha256(encode(document)).hexdigest()[:16]


def named(holder: str) -> str:
    """The short name of a driver in a recording."""
    return f"{zlib.crc32(holder.encode()):08x}"


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


class Recorder:
    """The writing end for one driver: it keeps the texts of its last tick, and nothing else."""

    def __init__(self, holder: str, version: str) -> None:
        self._holder, self._by, self._version = holder, named(holder), version
        self._texts: dict[str, bytes] = {}
        self._n = 0
        self._phase: Phase | None = None
        self._whole: dt.datetime | None = None

    def document(self, document: Document, at: dt.datetime) -> dict[str, Any]:
        """The record of a document that this driver goes on from; the next tick will be a whole one."""
        self._texts, self._n, self._phase, self._whole = {}, 0, None, None
        head = {"k": DOCUMENT, "by": self._by, "at": _plain(at), "format": FORMAT}
        return {**head, "version": self._version, "holder": self._holder, "document": _plain(document)}

    def tick(self, seen: Observation, at: dt.datetime, left: Rollout, *, saved: bool, digest: str) -> dict[str, Any]:
        """The record of a tick that left the rollout as `left`."""
        whole = self._whole is None or not dt.timedelta(0) <= at - self._whole < WHOLE_EVERY
        if whole:
            self._texts, self._phase, self._whole = {}, None, at
        record: dict[str, Any] = {"k": WHOLE if whole else TICK, "by": self._by, "n": self._n, "at": _plain(at)}
        if isinstance(seen.view, Missing):
            record["silent"] = _plain(seen.view)
        elif view := self._told("view", msgspec.json.encode(seen.view)):
            record["view"] = view
        if seen.answers:
            record["answers"] = {name: self._told(f"answers {name}", msgspec.json.encode(by)) for name, by in seen.answers.items()}
        if seen.requests:
            record["requests"] = _plain(seen.requests)
        if seen.stopped:
            record["stopped"] = seen.stopped
        if left.phase != self._phase:
            record["phase"] = _plain(left.phase)
        record["heard"] = [left.seq, seen.ledgered, seen.announced]
        if saved:
            record["saved"] = digest or True
        self._n, self._phase = self._n + 1, left.phase
        return record

    def _told(self, name: str, text: bytes) -> str | None:
        """The text as it is written: against the last one of this name; None when it is equal to it."""
        last = self._texts.get(name, b"")
        if text == last:
            return None
        self._texts[name] = text
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, last)
        return base64.b64encode(packer.compress(text) + packer.flush()).decode()


def closing(holder: str, document: Document, view: TargetView, at: dt.datetime) -> dict[str, Any]:
    """The record of a rollout, saved as `document`, that ended because another one began."""
    return {"k": CLOSED, "by": named(holder), "at": _plain(at), "format": FORMAT, "document": _plain(document), "view": _plain(view)}


@dataclass(slots=True)
class _Stream:
    """What is known of one driver while its records are read: the texts of its last tick, and what was made of them."""

    n: int = 0
    texts: dict[str, bytes] = field(default_factory=dict)
    made: dict[str, tuple[bytes, Any]] = field(default_factory=dict)
    phase: Phase | None = None
    told: dt.datetime | None = None

    def unpack(self, name: str, packed: str) -> None:
        """The text of this tick under `name`."""
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS, self.texts.get(name, b""))
        text = unpacker.decompress(base64.b64decode(packed))
        if not unpacker.eof:
            raise ValueError("a text is cut off")
        self.texts[name] = text

    def value(self, name: str, decoder: msgspec.json.Decoder[Any]) -> Any:
        """What the text under `name` says, decoded once for as long as it stays."""
        text = self.texts[name]
        if name not in self.made or self.made[name][0] is not text:
            self.made[name] = (text, decoder.decode(text))
        return self.made[name][1]


def read(records: Iterable[dict[str, Any]], rollout: str, every: dt.timedelta = dt.timedelta(0)) -> Iterator[Record]:
    """The recording of `rollout`, record by record. Raises `ForeignState` when it is not one that this version can read.

    A record that does not follow the driver's last one is told as `Lost`, and so is what would have to follow it. With `every`, of the
    ticks of a driver those are told that are at least so long after the one told before: they cost the most.
    """
    streams: dict[str, _Stream] = {}
    for number, record in enumerate(records, 1):
        word = _word(record, rollout, number)
        try:
            by, at = record["by"], msgspec.convert(record["at"], dt.datetime)
            if word == DOCUMENT:
                streams[by] = _Stream()
                yield Loaded(by, at, record["holder"], msgspec.convert(record["document"], Document), record["version"])
            elif word == CLOSED:
                yield Closed(at, msgspec.convert(record["document"], Document), msgspec.convert(record["view"], TargetView))
            elif word == WHOLE and by not in streams:
                streams[by] = _Stream(n=record["n"])
            if word in (TICK, WHOLE) and by in streams:
                stream = streams[by]
                _taken(stream, record)
                if stream.told is None or not dt.timedelta(0) <= at - stream.told < every:
                    stream.told = at
                    yield _looked(stream, record, by, at)
        except _Gap:
            del streams[by]
            yield Lost(by, at)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, zlib.error, binascii.Error) as error:
            raise _unreadable(rollout, f"record {number} is damaged: {type(error).__name__}: {error}") from error


class _Gap(Exception):
    """A record is missing before this one."""


def _word(record: dict[str, Any], rollout: str, number: int) -> str:
    word = record.get("k")
    if word is None and "answers" in record:
        raise _unreadable(rollout, "an older version of deployguard wrote it, which did not keep what a replay needs")
    if record.get("format", FORMAT) != FORMAT:
        raise _unreadable(rollout, f"it has format {record['format']}, and this version of deployguard reads format {FORMAT}")
    if word not in (DOCUMENT, TICK, WHOLE, CLOSED):
        raise _unreadable(rollout, f"record {number} is none of a recording")
    return str(word)


def _unreadable(rollout: str, why: str) -> ForeignState:
    return ForeignState(f"could not read the recording of `{rollout}`: {why}", hint=_HINT)


def _taken(stream: _Stream, record: dict[str, Any]) -> None:
    """The stream after a tick. Raises `_Gap` when the tick is not its next one."""
    if record["n"] != stream.n:
        raise _Gap
    stream.n += 1
    if record["k"] == WHOLE:
        stream.texts, stream.phase = {}, None
    if "view" in record:
        stream.unpack("view", record["view"])
    for name, packed in record.get("answers", {}).items():
        if packed is not None:
            stream.unpack(f"answers {name}", packed)
    if "phase" in record:
        stream.phase = msgspec.convert(record["phase"], Phase)


def _looked(stream: _Stream, record: dict[str, Any], by: str, at: dt.datetime) -> Looked:
    if stream.phase is None:
        raise ValueError("its phase is missing")
    silent = "silent" in record
    seq, ledgered, announced = map(int, record["heard"])
    seen = Observation(
        view=msgspec.convert(record["silent"], Missing) if silent else stream.value("view", _VIEW),
        answers={name: stream.value(f"answers {name}", _ANSWERS) for name in record.get("answers", ())},
        requests=msgspec.convert(record.get("requests", ()), tuple[Request, ...]),
        ledgered=ledgered,
        announced=announced,
        stopped=str(record.get("stopped", "")),
    )
    saved = record.get("saved", False)
    return Looked(by, at, seen, stream.phase, seq, bool(saved), saved if isinstance(saved, str) else "")
