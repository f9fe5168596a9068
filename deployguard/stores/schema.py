"""The saved document as bytes: the one place that knows how documents of other schema numbers are treated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from deployguard.errors import Bug, ForeignState
from deployguard.model.base import decode, encode
from deployguard.model.document import SCHEMA, Document

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

UPGRADES: dict[int, Upgrade] = {}
"""By schema number: the function that turns a document of that number into one of the next."""

_HINT = "`deployguard ledger verify` shows what the ledger still knows; move the file away and the guard starts anew from what runs"


class _Header(msgspec.Struct):
    schema: int


def write(document: Document) -> bytes:
    """The bytes of `document`, which `read` is known to understand."""
    data = encode(document)
    # JSON has no infinity: msgspec writes null for it, and a document that cannot be read back would lose the guard.
    try:
        decode(data, Document)
    except ForeignState as error:
        raise Bug(f"the document of guard {document.guard} would not be readable after the save: {error.message}") from error
    return data


def read(data: bytes, guard: str, place: str, upgrades: dict[int, Upgrade] | None = None) -> Document:
    """The document in `data`, brought to the present schema. Raises `ForeignState` that names `place` when there is none."""
    steps = UPGRADES if upgrades is None else upgrades
    try:
        found = msgspec.json.decode(data, type=_Header).schema
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ForeignState(f"could not read the saved document {place}: it is torn or was edited ({error})", hint=_HINT) from error
    if found > SCHEMA:
        raise ForeignState(
            f"could not read the saved document {place}: a newer deployguard wrote it (schema {found}; this one reads up to {SCHEMA})",
            hint="use that newer version of deployguard; nothing was changed",
        )
    if found < SCHEMA:
        data = _upgraded(data, found, place, steps)
    try:
        document = decode(data, Document)
    except ForeignState as error:
        raise ForeignState(f"could not read the saved document {place}: {error.message}", hint=_HINT) from error
    if document.guard != guard:
        raise ForeignState(
            f"could not read the saved document {place}: it belongs to guard {document.guard!r}, not to {guard!r}",
            hint="the directory was copied or renamed; put it back under its own name",
        )
    return document


def _upgraded(data: bytes, found: int, place: str, steps: dict[int, Upgrade]) -> bytes:
    raw: dict[str, Any] = msgspec.json.decode(data)
    while found < SCHEMA:
        if found not in steps:
            raise ForeignState(
                f"could not read the saved document {place}: it has schema {found}, which this version no longer reads",
                hint="open it once with an older version of deployguard that reads both",
            )
        raw = steps[found](raw)
        found += 1
        raw["schema"] = found
    return encode(raw)
