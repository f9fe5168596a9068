"""Columns of plain text: aligned by spaces alone, so that they read the same in a log, a pipe and a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, gap: int = 2, indent: str = "") -> list[str]:
    """The rows as lines with aligned columns; cells never break a line, and no line ends with a space."""
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(max(map(len, cells), default=0))]
    return [(indent + (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))).rstrip() for row in cells]
