"""What a benchmark gives: rows with their spread, and the sentence that says what is compared."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One number: median, least and largest of `runs` measurements."""

    what: str
    unit: str
    median: float
    least: float
    most: float
    runs: int


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of one subject. `compared` says in a sentence what stands beside what; `notes` follow the table."""

    subject: str
    compared: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def row(what: str, unit: str, values: Sequence[float]) -> Row:
    """The spread of `values`."""
    return Row(what, unit, statistics.median(values), min(values), max(values), len(values))


def microseconds(work: Callable[[], object], *, runs: int, inner: int = 10) -> list[float]:
    """Microseconds of this thread's processor time for one call, `runs` times; each is the mean of `inner` calls.

    Not the time on the wall: that would be the neighbours' as well. The garbage collector waits meanwhile.
    """
    work()
    found = []
    gc.disable()
    try:
        for _ in range(runs):
            begin = time.thread_time()
            for _ in range(inner):
                work()
            found.append((time.thread_time() - begin) / inner * 1e6)
    finally:
        gc.enable()
    return found


def number(value: float) -> str:
    """Three digits that mean something, no exponent."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def table(result: Result) -> str:
    """The table as it is printed."""
    heads = ("", "unit", "median", "min", "max", "runs")
    lines = [(r.what, r.unit, number(r.median), number(r.least), number(r.most), str(r.runs)) for r in result.rows]
    wide = [max(len(line[n]) for line in (heads, *lines)) for n in range(len(heads))]

    def drawn(line: tuple[str, ...]) -> str:
        left = f"{line[0]:<{wide[0]}}  {line[1]:<{wide[1]}}"
        return "  ".join((left, *(f"{cell:>{width}}" for cell, width in zip(line[2:], wide[2:], strict=True)))).rstrip()

    return "\n".join((f"{result.subject}: {result.compared}", "", *(drawn(line) for line in (heads, *lines)), *result.notes))
