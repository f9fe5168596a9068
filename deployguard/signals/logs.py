"""Counts lines of the instances' logs: each line once, however often it could be read.

What a log has lost before it was read (rotated away, or cut off) is not counted as nothing: that poll, the instance is unread and says why.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployguard.model.reading import Answer, Counter, Counters, Missing
from deployguard.model.target import Arm, Instance
from deployguard.signals.crew import missing, speaks, started
from deployguard.signals.fetch import Failure

if TYPE_CHECKING:
    from deployguard.model.check import LogsCheck

_MOST = 32 * 1024 * 1024
"""Bytes read from a file in one poll; what is left is read in the next ones."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines that were not read before, without their ends. `lost` says why there may have been more; empty when there were not."""

    lines: tuple[str, ...]
    lost: str = ""


class Logs(Protocol):
    """Where the logs of instances are."""

    def follow(self, instance: Instance, since: dt.datetime) -> Any:
        """The place in the log of this process from which it is to be read: what was written after `since`, if that can be told."""
        ...

    def pieces(self, places: Mapping[str, Any]) -> dict[str, Piece | Failure]:
        """By uid, what came since each place was read last. The places move on."""
        ...

    def close(self) -> None:
        """End what is kept running."""
        ...


@dataclass(slots=True)
class _Known:
    """One process: where its log is read on, and what was counted."""

    place: Any
    bad: float = 0.0
    total: float = 0.0
    fresh: bool = False


class LogsSource:
    """The numbers of one check on logs."""

    def __init__(self, check: LogsCheck, logs: Logs) -> None:
        self._bad = re.compile(check.bad)
        self._total = re.compile(check.total) if check.total is not None else None
        self._logs = logs
        self._known: dict[str, _Known] = {}
        self._turns: dict[Arm, threading.Lock] = {}

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:
        """The lines counted since each process was first met; one that is younger than `through` is counted from its start."""
        asked = started(instances)
        if not asked:
            return Missing("no_instance", f"no instance of the {arm} arm has started")
        with self._turns.setdefault(arm, threading.Lock()):
            met = [one for one in asked if one.uid not in self._known]
            for one in met:
                self._known[one.uid] = self._first(one, through, now)
            found = self._logs.pieces({one.uid: self._known[one.uid].place for one in asked})
            read, failed = dict[str, Counter](), dict[str, Failure]()
            for one in asked:
                answer = self._taken(self._known[one.uid], found[one.uid])
                if isinstance(answer, Failure):
                    failed[one.id] = answer
                else:
                    read[one.uid] = answer
        if not speaks(arm, asked, read):
            return missing(failed, len(asked))
        born = {one.uid: one.started for one in asked if one.uid in read and one.started is not None}
        return Counters(now, read, born, tuple(one.uid for one in asked if one.uid not in read))

    def close(self) -> None:
        """Nothing is read any more; a later read begins anew."""
        self._logs.close()

    def _first(self, one: Instance, through: dt.datetime | None, now: dt.datetime) -> _Known:
        assert one.started is not None
        if through is not None and one.started > through:
            return _Known(self._logs.follow(one, one.started))
        return _Known(self._logs.follow(one, through or now), fresh=True)

    def _taken(self, known: _Known, answer: Piece | Failure) -> Counter | Failure:
        """What the process has counted after this answer, or why that is not known."""
        if isinstance(answer, Failure):
            return answer
        self._count(known, answer.lines)
        if answer.lost:
            return Failure("lost", answer.lost)
        # What an older process wrote since `through` comes with the next poll, as the growth of a count that began at 0.
        fresh, known.fresh = known.fresh, False
        return Counter(0.0, 0.0) if fresh else Counter(known.bad, known.total)

    def _count(self, known: _Known, lines: tuple[str, ...]) -> None:
        for line in lines:
            if self._total is None or self._total.search(line):
                known.total += 1
                known.bad += bool(self._bad.search(line))


@dataclass(slots=True)
class _Offset:
    path: Path
    at: int
    older: tuple[int, int] | None


class FileLogs:
    """Log files on this machine, read from where they end when a process is first met: nobody knows which lines before are its own.

    A file that is copied to `.1` and emptied is read to its end there first.
    """

    def __init__(self, path_of: Callable[[Instance], Path]) -> None:
        self._path_of = path_of

    def follow(self, instance: Instance, since: dt.datetime) -> _Offset:  # noqa: ARG002
        path = self._path_of(instance)
        try:
            return _Offset(path, path.stat().st_size, _mark(_older(path)))
        except OSError:
            return _Offset(path, 0, None)  # what is in the way is said when it is read

    def pieces(self, places: Mapping[str, _Offset]) -> dict[str, Piece | Failure]:
        found: dict[str, Piece | Failure] = {}
        for uid, place in places.items():
            try:
                found[uid] = self._piece(place)
            except OSError as error:
                found[uid] = Failure("error", f"the log {place.path} cannot be read: {error.strerror}")
        return found

    def close(self) -> None:
        """Nothing is kept open."""

    def _piece(self, place: _Offset) -> Piece:
        size, older = place.path.stat().st_size, _mark(_older(place.path))
        rest, lost = b"", ""
        if older != place.older or size < place.at:
            kept = _older(place.path)
            if older == place.older or older is None or kept.stat().st_size < place.at:
                lost = f"{place.path} was emptied before it was read to its end"
            else:
                rest = _from(kept, place.at)
                rest += b"" if rest.endswith(b"\n") or not rest else b"\n"
            place.at, place.older = 0, older
        new = _from(place.path, place.at)
        whole = new[: new.rfind(b"\n") + 1]
        if len(new) == _MOST and not whole:
            place.at, lost = place.at + len(new), f"{place.path} holds a line that is too long to be read"
        place.at += len(whole)
        return Piece(tuple((rest + whole).decode(errors="replace").split("\n")[:-1]), lost)


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _mark(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _from(path: Path, at: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(_MOST)
