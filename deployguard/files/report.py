"""Faults as they reach a person: one line each, no control characters, and not more than anybody reads."""

from __future__ import annotations

from collections.abc import Iterable

from deployguard.errors import Fault, FileError
from deployguard.files.yaml_lines import Document, Place, dotted

MOST = 100
"""Faults of one file that are shown."""
_LONGEST = 400


def fault(document: Document, place: Place, found: str, right: str) -> Fault:
    """A fault at a place of a document, in text that is safe to print."""
    return Fault(document.line_of(place), printable(dotted(place)), printable(found), printable(right))


def file_error(path: str, faults: Iterable[Fault]) -> FileError:
    """The error with these faults, sorted by line; the hint counts those that are left out."""
    ordered = sorted(faults, key=lambda one: one.line)
    hint = f"{len(ordered) - MOST:,} more faults are not shown" if len(ordered) > MOST else ""
    shown = [Fault(one.line, printable(one.field), printable(one.found), printable(one.right)) for one in ordered[:MOST]]
    return FileError(path, shown, hint=hint)


def printable(text: str) -> str:
    """The text on one line, cut where it is very long, with control characters written as escapes."""
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)
