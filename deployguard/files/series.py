"""Series in promtool's notation: what a signal reads at each poll of a scenario.

`7` is one poll; `7x3` is `7 7 7 7` (the first and three more, as in promtool); `1+2x3` is `1 3 5 7`; `_` is a poll
without an answer, `_x3` three of them; `stale` is `_`; `NaN` is an answer that is not a number. `(0x8 5)x2` is the group
in brackets and twice more, which promtool does not have.
"""

from __future__ import annotations

import math
import re

LONGEST = 100_000
"""Polls; a day and a night at one a second."""
Series = list[float | None]
"""One value for each poll, None where there was no answer."""

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?"
_ITEM = re.compile(rf"(-?{_NUMBER})(?:([+-]{_NUMBER})?x(\d{{1,6}}))?")
_GAP = re.compile(r"_(?:x(\d{1,6}))?")
_PIECE = re.compile(r"\(([^()]*)\)x(\d{1,6})(?=\s|$)|\S+")
_RIGHT = "write `7`, `7x3`, `1+2x3`, `_`, `_x3`, `NaN` or `(0x8 5)x3`"


def expand(text: str, *, signed: bool = False) -> Series:
    """One value for each poll, None where there is no answer. Raises ValueError that says what would be right.

    `signed`: the values may be negative, as those of a gauge may; what a poll counts may not.
    """
    values: Series = []
    for piece in _PIECE.finditer(text):
        values += _repeated(piece, signed) if piece[2] else _item(piece[0], signed=signed)
        if len(values) > LONGEST:
            raise _too_long(text)
    if not values:
        raise ValueError("the series is empty; write a value for each poll, as in `45x600`")
    return values


def _repeated(piece: re.Match[str], signed: bool) -> Series:
    inner, times = expand(piece[1], signed=signed), int(piece[2]) + 1
    if len(inner) * times > LONGEST:
        raise _too_long(piece[0])
    return inner * times


def _item(item: str, *, signed: bool) -> Series:
    if item == "stale":
        return [None]
    if item.lower() == "nan":
        return [math.nan]
    if gap := _GAP.fullmatch(item):
        return [None] * int(gap[1] or 1)
    match = _ITEM.fullmatch(item)
    if not match:
        raise ValueError(f"`{_short(item)}` is not in promtool's notation; {_RIGHT}")
    first, step, more = float(match[1]), float(match[2] or 0), int(match[3] or 0)
    if more > LONGEST:
        raise _too_long(item)
    if not signed and min(first, first + step * more) < 0:
        raise ValueError(f"`{item}` falls below 0; what a poll counts is never negative")
    return [first + step * count for count in range(more + 1)]


def _too_long(text: str) -> ValueError:
    return ValueError(f"`{_short(text)}` is longer than {LONGEST:,} polls; write a shorter series")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
