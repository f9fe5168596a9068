"""The format of a ledger line, and whether a file of such lines is still what was written.

A line is one JSON object: the fields of an `Entry`, its `id`, `prev` (the SHA-256 of the line before, as it stands in the
file without its newline; empty on the first) and, last, `hash` (the SHA-256 of the line without its `hash`). So a change is
found on the line itself, and a line that is missing, extra or out of order on the first line that does not follow.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from deployguard.model.base import Frozen, encode
from deployguard.model.rollout import Entry
from deployguard.stores import disk

_MARK = b',"hash":"'
_TAIL = len(_MARK) + 64 + len(b'"}')


class Line(msgspec.Struct, frozen=True):
    """A line as written; fields that later versions add are ignored, the hashes cover them all the same."""

    rollout: str
    n: int
    at: dt.datetime
    guard: str
    event: str
    phase: str
    text: str
    data: dict[str, Any]
    prev: str
    name: str = msgspec.field(name="id")

    def entry(self) -> Entry:
        """The entry that was appended."""
        return Entry(
            rollout=self.rollout,
            n=self.n,
            at=self.at,
            guard=self.guard,
            event=self.event,
            phase=self.phase,
            text=self.text,
            data=self.data,
        )


class Key(msgspec.Struct, frozen=True):
    """What identifies a line; much cheaper to read than the whole of it."""

    rollout: str
    n: int


class Verification(Frozen, frozen=True):
    """What a look at the whole chain found. `first_bad_line` counts from 1 and is 0 when every line fits."""

    lines: int
    ok: bool
    first_bad_line: int
    text: str


class Piece(NamedTuple):
    """A part of the file that ends at `end`: a line without its newline, or the torn rest of the file (`whole` is False)."""

    number: int
    start: int
    end: int
    line: bytes
    whole: bool


LINES: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
KEYS: msgspec.json.Decoder[Key] = msgspec.json.Decoder(Key)


def pack(entry: Entry, prev: str) -> bytes:
    """The line of `entry`, newline included, chained to the line whose digest is `prev`."""
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    body = encode(fields | {"id": entry.id, "prev": prev})
    return body[:-1] + _MARK + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def digest(line: bytes) -> str:
    """What the next line carries as `prev`."""
    return hashlib.sha256(line).hexdigest()


def pieces(path: Path, start: int = 0) -> Iterator[Piece]:
    """The lines of the file from offset `start` on, one at a time, numbered from 1 there; a torn rest comes last."""
    try:
        with path.open("rb", buffering=1 << 18) as file:
            file.seek(start)
            for number, raw in enumerate(file, 1):
                whole = raw.endswith(b"\n")
                yield Piece(number, start, start + len(raw), raw[:-1] if whole else raw, whole)
                start += len(raw)
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk.refused("read", path, error) from error


def fault(piece: Piece, prev: str) -> str:
    """What is wrong with a line that should follow the one with digest `prev`; empty when it fits."""
    number, line = piece.number, piece.line
    if not piece.whole:
        return f"line {number} is torn: its writer was cut off; the next append moves it aside and goes on"
    body, mark, seal = line[:-_TAIL] + b"}", line[-_TAIL : -_TAIL + len(_MARK)], line[-66:-2]
    if mark != _MARK or hashlib.sha256(body).hexdigest().encode() != seal:
        return f"line {number} was changed after it was written: its hash does not fit its content"
    try:
        found = LINES.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"line {number} is not an entry of a ledger: {error}"
    if found.prev == prev:
        return ""
    if not prev:
        return f"line {number} is not the first that was written: lines before it are missing or moved"
    return f"line {number} ({found.name}) does not follow line {number - 1}: a line was removed, inserted, moved or changed here"


def verify(path: Path, rollout: str = "", written: int = 0) -> Verification:
    """Whether every line of a file is as it was written and where it was written; see `verified`."""
    return verified(pieces(path), rollout, written)


def verified(found: Iterable[Piece], rollout: str = "", written: int = 0, before: str = "", first: int = 1) -> Verification:
    """Whether every line is as it was written and where it was written; if not, the first that is not.

    A chain alone cannot show that its end was cut off. Who knows that the ledger held entry `written` of `rollout` says so,
    and its absence is found too. A chain whose beginning was collected starts with line `first`, after the one with digest `before`.
    """
    prev, last, bad, text, highest = before, first - 1, 0, "", 0
    for piece in found:
        last = piece.number
        if bad:
            continue
        if text := fault(piece, prev):
            bad = last
            continue
        prev = digest(piece.line)
        key = KEYS.decode(piece.line)
        if key.rollout == rollout:
            highest = max(highest, key.n)
    if not bad and highest < written:
        bad = last + 1
        text = f"line {bad} is missing: entry {rollout}/{written} was written, and the last one found is {rollout}/{highest}"
    lines = last - first + 1
    collected = f"; the first {first - 1} are no longer kept" if first > 1 else ""
    return Verification(lines, not bad, bad, text or f"{lines} lines, every one as it was written{collected}")
