"""A transcript beside what was expected of it: by instant and beginning of the text, in order, and a difference that explains itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployguard.model.evidence import Finding
from deployguard.model.units import format_duration

MOST_TEXT = 120


@dataclass(frozen=True, slots=True)
class Line:
    """What happened at an instant, counted from the start: the phase that was entered, and its text."""

    at: dt.timedelta
    text: str

    def __str__(self) -> str:
        short = self.text if len(self.text) <= MOST_TEXT else self.text[: MOST_TEXT - 3].rstrip() + "..."
        return f"{format_duration(self.at)} {short}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that did not come out as expected, where it was expected. `at` is its instant, if it has one."""

    path: str
    line: int
    text: str
    at: dt.timedelta | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def matches(expected: Sequence[tuple[dt.timedelta, str]], lines: Sequence[Line], tolerance: dt.timedelta) -> list[int | None]:
    """For each expected line the number of the line that fulfils it; None where none does. The order of both is kept."""
    found: list[int | None] = []
    position = 0
    for at, prefix in expected:
        hit = next((n for n in range(position, len(lines)) if _fits(lines[n], at, prefix, tolerance)), None)
        found.append(hit)
        position = position if hit is None else hit + 1
    return found


def _fits(line: Line, at: dt.timedelta, prefix: str, tolerance: dt.timedelta) -> bool:
    return abs(line.at - at) <= tolerance and line.text.startswith(prefix)


def nearest(at: dt.timedelta, prefix: str, lines: Sequence[Line], taken: Iterable[int | None]) -> str:
    """What came instead of an expected line that did not: the same text at another instant, or another text at this one."""
    free = [line for n, line in enumerate(lines) if n not in set(taken)]
    same = [line for line in free if line.text.startswith(prefix)]
    if same:
        return f"it came at {format_duration(min(same, key=lambda line: abs(line.at - at)).at)}"
    phase = prefix.split(maxsplit=1)[0]
    alike = [line for line in free if line.text.split()[0] == phase]
    if alike:
        return f"there was `{min(alike, key=lambda line: abs(line.at - at))}`"
    before = [line for line in lines if line.at <= at]
    return f"at {format_duration(at)} it stood at `{before[-1]}`" if before else "nothing had happened by then"


def difference(expected: Sequence[tuple[dt.timedelta, str]], lines: Sequence[Line], found: Sequence[int | None]) -> list[str]:
    """The transcript as a diff: `-` was expected and did not come, `+` came and was not expected, both with their instants."""
    rows: list[tuple[str, Line]] = []
    position = 0
    for (at, prefix), hit in zip(expected, found, strict=True):
        end = hit if hit is not None else next((n for n in range(position, len(lines)) if lines[n].at > at or n in found), len(lines))
        rows += [("+", line) for line in lines[position:end]]
        rows.append((" ", lines[hit]) if hit is not None else ("-", Line(at, prefix)))
        position = end + 1 if hit is not None else end
    rows += [("+", line) for line in lines[position:]]
    width = max((len(format_duration(line.at)) for _, line in rows), default=0)
    return [f"{sign} {format_duration(line.at):<{width}}  {str(line).partition(' ')[2]}" for sign, line in rows]


def numbers(findings: Iterable[Finding]) -> list[str]:
    """One line per check with every number of its verdict."""
    found = []
    for finding in findings:
        text = finding.text
        if finding.value is not None and finding.needed is not None:
            text += f"; evidence {_figure(finding.value)} of {_figure(finding.needed)} against {finding.limit}"
        verdict = finding.verdict + (f" ({finding.reason.replace('_', ' ')})" if finding.reason else "")
        found.append(f"{text}: {verdict}")
    return found


def _figure(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"
