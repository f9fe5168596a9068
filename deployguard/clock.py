"""The only reader of the time.

Everything else takes `now` as an argument, so that an hour of a rollout can run in a millisecond of a test.
Decisions use UTC instants (`now`); durations inside one process use `monotonic`, which nobody can set back.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What a driver needs of time."""

    def now(self) -> dt.datetime:
        """The present instant, aware, in UTC."""
        ...

    def wait(self, seconds: float, until: threading.Event) -> bool:
        """Return after `seconds`, or as soon as `until` is set; True when it is set."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> dt.datetime:
        return now()

    def wait(self, seconds: float, until: threading.Event) -> bool:
        return until.wait(max(0.0, seconds))


def now() -> dt.datetime:
    """The present instant, aware, in UTC."""
    return dt.datetime.now(dt.UTC)


def monotonic() -> float:
    """Seconds on a clock that only moves forward; comparable within one process only."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Return after `seconds`."""
    time.sleep(max(0.0, seconds))
