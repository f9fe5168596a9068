"""Columns of plain text: aligned by spaces alone, so that they read the same in a log, a pipe and a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def plain(text: str) -> str:
    """The text on one line and without control characters: what a service logged must not steer a terminal."""
    return _CONTROL.sub(" ", text)


def table(rows: Sequence[Sequence[str]], *, gap: int = 2, indent: str = "") -> list[str]:
    """The rows as lines with aligned columns; cells never break a line, and no line ends with a space."""
    cells = [[" ".join(plain(cell).split()) for cell in row] for row in rows]
    widths = [max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(max(map(len, cells), default=0))]
    return [(indent + (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))).rstrip() for row in cells]
