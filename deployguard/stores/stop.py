"""The global stop switch: while it is set, no guard below the state directory promotes anything; the way back stays open.

It is a file that an operator can also make with `touch STOP` when nothing else works, so any file of that name counts.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from deployguard import clock
from deployguard.errors import ForeignState, WorldError
from deployguard.model.base import Frozen, decode, encode
from deployguard.stores import disk

NAME = "STOP"


class Stop(Frozen, frozen=True):
    """Who stopped everything, when, and why."""

    who: str
    at: dt.datetime
    reason: str = ""


def stop(state: Path, who: str, reason: str) -> None:
    """Every promotion below `state` is frozen, also after a crash."""
    disk.make_directory(state)
    disk.replace(state / NAME, encode(Stop(who=who, at=clock.now(), reason=reason)))


def clear(state: Path) -> None:
    """Promotions may go on; harmless when nothing was stopped."""
    try:
        (state / NAME).unlink(missing_ok=True)
    except OSError as error:
        raise disk.refused("remove", state / NAME, error) from error


def stopped(state: Path) -> str:
    """Why everything is stopped, in one sentence; empty when it is not. A switch that cannot be read is a switch that is set."""
    path = state / NAME
    try:
        data = disk.read(path)
        if data is None:
            return ""
        found = decode(data, Stop)
    except ForeignState:
        return f"stopped by the file {path}, which does not say by whom"
    except WorldError as error:
        return f"treated as stopped: {error.message}"
    return f"stopped by {found.who} at {found.at:%Y-%m-%d %H:%M:%S} UTC" + (f": {found.reason}" if found.reason else "")
