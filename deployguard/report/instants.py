"""Instants and durations as people read them. All clock times are UTC, and say so."""

from __future__ import annotations

import datetime as dt

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def iso(at: dt.datetime | None) -> str | None:
    """The instant as RFC 3339 text in UTC; None for none."""
    return None if at is None else at.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def instant(text: str | None) -> dt.datetime | None:
    """The instant that `iso` wrote; None for none."""
    return None if text is None else dt.datetime.fromisoformat(text)


def age(span: dt.timedelta | float) -> str:
    """The span in its largest unit: `3d`, `2m`, `12s`; never negative."""
    seconds = max(0.0, span.total_seconds() if isinstance(span, dt.timedelta) else span)
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def running(span: dt.timedelta | float) -> str:
    """The span as a running clock: `3:10`, `1:03:10`; never negative."""
    seconds = int(max(0.0, span.total_seconds() if isinstance(span, dt.timedelta) else span))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def spell(seconds: float) -> str:
    """The span in a sentence: `0.4 s`, `8 s`, `2 min 5 s`, `1 h 10 min`, `3 d 2 h`."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    for big, small, names in ((86400, 3600, ("d", "h")), (3600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if whole >= big:
            count, rest = whole // big, whole % big // small
            return f"{count} {names[0]} {rest} {names[1]}" if rest else f"{count} {names[0]}"
    return f"{whole} s"


def time_of_day(at: dt.datetime, now: dt.datetime, *, seconds: bool = True) -> str:
    """`14:03:22 UTC`, with the date before it when it is not today's."""
    at, now = at.astimezone(dt.UTC), now.astimezone(dt.UTC)
    form = "%H:%M:%S UTC" if seconds else "%H:%M UTC"
    return at.strftime(form if at.date() == now.date() else f"%Y-%m-%d {form}")
