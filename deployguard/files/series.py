"""Series in promtool's notation: what a signal reads at each poll of a scenario.

`7` is one poll; `7x3` is `7 7 7 7` (the first and three more, as in promtool); `1+2x3` is `1 3 5 7`; `_` is a poll
without an answer, `_x3` three of them; `stale` is `_`.
"""

from __future__ import annotations

import re

LONGEST = 100_000
"""Polls; a day and a night at one a second."""

_NUMBER = r"\d+(?:\.\d+)?"
_ITEM = re.compile(rf"({_NUMBER})(?:([+-]{_NUMBER})?x(\d{{1,6}}))?")
_GAP = re.compile(r"_(?:x(\d{1,6}))?")


def expand(text: str) -> list[float | None]:
    """One value for each poll, None where there is no answer. Raises ValueError that says what would be right."""
    values: list[float | None] = []
    for item in text.split():
        values.extend(_item(item))
        if len(values) > LONGEST:
            raise ValueError(f"`{_short(text)}` is longer than {LONGEST:,} polls; write a shorter series")
    if not values:
        raise ValueError("the series is empty; write a value for each poll, as in `45x600`")
    return values


def _item(item: str) -> list[float | None]:
    if item == "stale":
        return [None]
    if gap := _GAP.fullmatch(item):
        return [None] * int(gap[1] or 1)
    match = _ITEM.fullmatch(item)
    if not match:
        raise ValueError(f"`{_short(item)}` is not in promtool's notation; write `7`, `7x3`, `1+2x3`, `_` or `_x3`")
    first, step, more = float(match[1]), float(match[2] or 0), int(match[3] or 0)
    if more > LONGEST:
        raise ValueError(f"`{item}` is longer than {LONGEST:,} polls; write a shorter series")
    if first + step * more < 0:
        raise ValueError(f"`{item}` falls below 0; what a poll counts is never negative")
    return [first + step * count for count in range(more + 1)]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
