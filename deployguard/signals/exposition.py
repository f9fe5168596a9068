"""Reads only the wanted series from a metrics page, because a poll each second of many large pages must cost little.

The Prometheus text format 0.0.4 and OpenMetrics 1.0 write sample lines alike: `name{label="value"} 1.5 [time] [# exemplar]`.
A page may have a hundred thousand lines of which a check wants three, so the page is searched for the wanted names and
nothing else is looked at. What is looked at is read strictly: a torn or strange line must not become a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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


@dataclass(frozen=True, slots=True)
class Column:
    """The samples of one metric name in the order of the page: the series, and the value of each."""

    series: tuple[Series, ...] = ()
    values: tuple[float, ...] = ()


class Memo:
    """Remembers series by what names them: at every poll the same names come again, only the values differ."""

    def __init__(self) -> None:
        self._known: dict[object, Series] = {}

    def series(self, name: str, head: bytes, line: bytes) -> Series:
        """The series that `head`, all of the line before the value, names."""
        return self._known.get(head) or self.add(head, Series(name, _labels(name, head, line)))

    def run(self, name: str, heads: tuple[bytes, ...]) -> list[Series]:
        """As `series`, for many lines that are nothing but head and value."""
        known = self._known
        try:
            return [known[head] for head in heads]
        except KeyError:
            return [self.series(name, head, head) for head in heads]

    def labelled(self, name: str, labels: tuple[tuple[str, str], ...]) -> Series:
        """The series of this name with these labels."""
        key = (name, labels)
        return self._known.get(key) or self.add(key, Series(name, dict(labels)))

    def add(self, key: object, series: Series) -> Series:
        """`series`, which from now on is known by `key`."""
        if len(self._known) >= _MEMO_LIMIT:
            self._known.clear()
        self._known[key] = series
        return series


def parse_page(page: bytes, name: str, memo: Memo | None = None) -> Column:
    """All samples of the metric `name`. Raises ValueError naming the line when one of them is malformed.

    Where `name` stands in comments, label values and longer names is passed over.
    """
    memo, key = memo or Memo(), name.encode()
    size, plain = len(key), _plain(key)
    series: list[Series] = []
    values: list[float] = []
    at = page.find(key)
    while at >= 0:
        if page[at + size : at + size + 1] not in _AFTER_NAME or not _begins_line(page, at):
            at = page.find(key, at + size)
            continue
        if match := plain.match(page, at):
            # A run of plain lines is taken apart at once: line by line would cost three times as much.
            end = match.end()
            found = _run(name, page[at : end - 1].split(b"\n"), memo)
        else:
            end = page.find(b"\n", at)
            end = len(page) if end < 0 else end
            found = _sample(name, page[at:end].rstrip(b"\r"), memo)
        series += found[0]
        values += found[1]
        at = page.find(key, end)
    return Column(tuple(series), tuple(values))


def openmetrics(content_type: str) -> bool:
    """Whether the page says that it is OpenMetrics, which ends with `# EOF` when it is whole."""
    return content_type.partition(";")[0].strip().lower() == "application/openmetrics-text"


def _begins_line(page: bytes, at: int) -> bool:
    if at == 0 or page[at - 1] == 0x0A:
        return True
    return not page[page.rfind(b"\n", 0, at) + 1 : at].strip(b" \t")


@lru_cache(maxsize=256)
def _plain(name: bytes) -> re.Pattern[bytes]:
    """Lines as clients nearly always write them: no time, no exemplar, no brace in a label, a finite value."""
    return re.compile(rb"(?:" + re.escape(name) + rb"(?:\{[^}#\n]*+\})?+ [0-9][0-9.e+-]*+\n)++")


def _run(name: str, lines: list[bytes], memo: Memo) -> tuple[Sequence[Series], Sequence[float]]:
    heads, _, numbers = zip(*[line.rpartition(b" ") for line in lines], strict=True)
    try:
        return memo.run(name, heads), [float(number) for number in numbers]
    except ValueError:
        read = [_sample(name, line, memo) for line in lines]  # it says what is wrong with which line
    return [one for series, _ in read for one in series], [one for _, values in read for one in values]


def _sample(name: str, line: bytes, memo: Memo) -> tuple[Sequence[Series], Sequence[float]]:
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
    return (series,), (_number(fields[0], line),)


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
