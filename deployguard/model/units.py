"""Durations and shares as people write them: `90s`, `1h30m`, `2 intervals`, `25%`.

Inside, a duration is a `timedelta` and a share is a fraction in [0, 1].
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def parse_duration(text: str) -> dt.timedelta:
    """`1h30m` as a timedelta of whole milliseconds. Raises ValueError that says what would be right."""
    compact = text.strip().replace(" ", "")
    if compact == "0":
        return dt.timedelta(0)
    if clock := _CLOCK.fullmatch(compact):
        raise ValueError(f"`{text}` is not a duration; write `{clock[1]}m{clock[2]}s`, or `{clock[1]}h{clock[2]}m` if hours were meant")
    if not _DURATION.fullmatch(compact):
        raise ValueError(f"`{text}` is not a duration; write a number with ms, s, m, h or d, as in `90s` or `1h30m`")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact))
    if seconds > 366 * 86400:
        raise ValueError(f"`{text}` is longer than a year; write at most `366d`")
    if 0 < seconds < 0.001:
        raise ValueError(f"`{text}` is shorter than a millisecond; write at least `1ms`")
    return dt.timedelta(milliseconds=round(seconds * 1000))


def format_duration(value: dt.timedelta) -> str:
    """The shortest text that `parse_duration` reads back: `1h30m`, `1.5s`, `0s`."""
    rest = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    if rest and rest < 1000 and not parts:
        parts.append(f"{rest}ms")
    elif rest or not parts:
        parts.append(f"{rest / 1000:g}s")
    return "".join(parts)


def parse_share(value: str | float) -> float:
    """`25%` or `0.25` as a fraction in [0, 1]. Raises ValueError that says what would be right."""
    if isinstance(value, str):
        match = _SHARE.fullmatch(value.strip())
        if not match:
            raise ValueError(f"`{value}` is not a share; write a percentage such as `25%`")
        # Decimal, so that what `format_share` wrote reads back as the same number.
        fraction = float(Decimal(match[1]) / 100)
    else:
        fraction = float(value)
        if fraction > 1:
            raise ValueError(f"{value:g} is more than the whole; write `{value:g}%` if per cent was meant")
    if not 0 <= fraction <= 1:
        raise ValueError(f"`{value}` is outside 0% to 100%; write a percentage such as `25%`")
    return fraction


def format_share(fraction: float) -> str:
    """The shortest text that `parse_share` reads back: `25%`, `0.02%`."""
    percent = Decimal(repr(float(fraction))) * 100
    return f"{percent.normalize():f}%"
