"""Reads only the wanted series from a metrics page, because a poll each second of many large pages must cost little.

The Prometheus text format 0.0.4 and OpenMetrics 1.0 write sample lines alike: `name{label="value"} 1.5 [time] [# exemplar]`.
A page may have a hundred thousand lines of which a check wants three, so the page is searched for the wanted names and
nothing else is looked at. What is looked at is read strictly: a torn or strange line must not become a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(,|$)')
_BRACES = re.compile(rb'[ \t]*\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"'}
_BLANK = (b" ", b"\t")
_AFTER_NAME = (b" ", b"{", b"\t", b"\r", b"\n", b"")
_MEMO_LIMIT = 50_000


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A metric name and its labels; one object per series as long as the memo lives."""

    name: str
    labels: dict[str, str]


class Sample(NamedTuple):
    """One value of one series."""

    series: Series
    value: float


class Memo:
    """Remembers series by the bytes that name them: at every poll the same names come again, only the values differ."""

    def __init__(self) -> None:
        self._known: dict[bytes, Series] = {}

    def series(self, name: str, head: bytes, line: bytes) -> Series:
        """The series that `head`, all of the line before the value, names."""
        known = self._known.get(head)
        if known is None:
            if len(self._known) >= _MEMO_LIMIT:
                self._known.clear()
            known = self._known[head] = Series(name, _labels(name, head, line))
        return known


def parse_page(page: bytes, wanted: Iterable[str], memo: Memo | None = None) -> list[Sample]:
    """All samples of the `wanted` metric names. Raises ValueError naming the line when one of them is malformed."""
    memo = memo or Memo()
    return [sample for name in wanted for sample in _samples(page, name, memo)]


def openmetrics(content_type: str) -> bool:
    """Whether the page says that it is OpenMetrics, which ends with `# EOF` when it is whole."""
    return content_type.partition(";")[0].strip().lower() == "application/openmetrics-text"


def _samples(page: bytes, name: str, memo: Memo) -> Iterator[Sample]:
    """The samples of `name`; where it stands in comments, label values and longer names is passed over."""
    key = name.encode()
    size, plain = len(key), _plain(key)
    at = page.find(key)
    while at >= 0:
        if not _begins_line(page, at) or page[at + size : at + size + 1] not in _AFTER_NAME:
            at = page.find(key, at + size)
            continue
        if match := plain.match(page, at):
            end = match.end()
            head = page[at : match.start(1) - 1]
            yield Sample(memo.series(name, head, head), float(match[1]))
        else:
            end = page.find(b"\n", at)
            end = len(page) if end < 0 else end
            yield _sample(name, page[at:end].rstrip(b"\r"), memo)
        at = page.find(key, end)


def _begins_line(page: bytes, at: int) -> bool:
    if at == 0 or page[at - 1] == 0x0A:
        return True
    return not page[page.rfind(b"\n", 0, at) + 1 : at].strip(b" \t")


@lru_cache(maxsize=256)
def _plain(name: bytes) -> re.Pattern[bytes]:
    """The line as clients nearly always write it: no time, no exemplar, a finite value."""
    return re.compile(re.escape(name) + rb"(?:\{[^#\n]*\})? (\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=\n)")


def _sample(name: str, line: bytes, memo: Memo) -> Sample:
    head_end = _head_end(len(name), line)
    series = memo.series(name, line[:head_end], line)
    rest = line[head_end:]
    if rest[:1] not in _BLANK and head_end == len(name):
        raise _malformed(line, "no value")
    mark = rest.find(b"#")
    fields = (rest if mark < 0 else rest[:mark]).split()
    if not 1 <= len(fields) <= 2:
        raise _malformed(line, "expected one value and at most a time after the name")
    for field in fields:
        _number(field, line)
    return Sample(series, _number(fields[0], line))


def _head_end(name_end: int, line: bytes) -> int:
    """Where name and labels end."""
    if line[name_end:].lstrip(b" \t")[:1] != b"{":
        return name_end
    if b"#" not in line:
        end = line.rfind(b"}")
        if end < 0:
            raise _malformed(line, "the labels are not closed")
        return end + 1
    # A `#` begins an exemplar, which has braces of its own, or stands inside a label's value: only a full look tells.
    match = _BRACES.match(line, name_end)
    if not match:
        raise _malformed(line, "the labels are not closed")
    return match.end()


def _labels(name: str, head: bytes, line: bytes) -> dict[str, str]:
    text = _text(head[len(name) :], line).strip(" \t")
    if not text:
        return {}
    inner, labels, at = text[1:-1].strip(" \t"), {}, 0
    while at < len(inner):
        match = _LABEL.match(inner, at)
        if not match:
            raise _malformed(line, 'expected label="value"')
        value = match[2]
        labels[match[1]] = _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[0]), value) if "\\" in value else value
        at = match.end()
    return labels


def _text(raw: bytes, line: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _malformed(line, "it is not UTF-8") from error


def _number(field: bytes, line: bytes) -> float:
    try:
        if b"_" in field:  # float() reads 1_000, the formats do not
            raise ValueError
        return float(field)
    except ValueError as error:
        raise _malformed(line, f"`{field[:40].decode(errors='replace')}` is not a number") from error


def _malformed(line: bytes, why: str) -> ValueError:
    return ValueError(f"cannot read the metrics line `{line[:160].decode(errors='replace')}`: {why}")
