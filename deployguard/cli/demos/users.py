"""The users of the demo: the load generator as a process of its own, and what it has counted in a window of time."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployguard.errors import WorldError

RATE = 100
LONGEST_S = 300
"""Seconds after which the users go home by themselves, also when nobody is left to send them."""
_SECOND = dt.timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Felt:
    """What users got in one window: their requests, and those that failed as they would say it."""

    requests: int
    failed: int

    @property
    def share(self) -> float:
        """The failed share of the requests."""
        return round(self.failed / self.requests, 6) if self.requests else 0.0


class Users:
    """Users who come and go until they are sent home."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self._process = process
        self._out = out

    def lines(self) -> list[dict[str, Any]]:
        """Each second that is over. Raises `WorldError` when the users' process has ended unasked."""
        text = self._out.read_text(encoding="utf-8") if self._out.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [line for line in map(json.loads, whole) if "t" in line]

    def check(self) -> None:
        """Raises `WorldError` when the users' process has ended by itself."""
        if self._process.poll() is not None:
            raise WorldError(f"the load generator ended with exit code {self._process.returncode}", hint="what it said stands above")

    def felt(self, begin: dt.datetime, seconds: float) -> Felt:
        """What users got in every second that touches the window."""
        end = begin + dt.timedelta(seconds=seconds)
        touched = [line for line in self.lines() if dt.datetime.fromisoformat(line["t"]) + _SECOND > begin]
        counted = [line for line in touched if dt.datetime.fromisoformat(line["t"]) < end]
        return Felt(sum(line["requests"] for line in counted), sum(line["failed"] for line in counted))

    def total(self) -> Felt:
        """What users got since they came."""
        counted = self.lines()
        return Felt(sum(line["requests"] for line in counted), sum(line["failed"] for line in counted))

    def go_home(self, pause: Callable[[float], None]) -> None:
        """Every user has been answered or has given up, and the counts are complete."""
        self._process.send_signal(signal.SIGTERM)
        while self._process.poll() is None:
            pause(0.05)
