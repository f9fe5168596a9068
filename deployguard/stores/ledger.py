"""The ledger: append-only, hash-chained JSON lines, and what can be read back from them.

It is the record that outlives everything else, so an append never rewrites a byte and a torn end is moved aside, not
deleted. Readers stream: a ledger of years is larger than memory should have to hold.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from deployguard.model.base import Frozen, encode
from deployguard.model.rollout import TERMINAL, Entry, Rollout
from deployguard.stores import disk
from deployguard.stores.chain import KEYS, LINES, Piece, Verification, digest, pack, pieces, verify

__all__ = ["Ledger", "Numbers", "Summary", "Verification", "entries", "history", "verify"]

log = logging.getLogger(__name__)
_ENDS = frozenset(str(phase.__struct_config__.tag) for phase in TERMINAL)


class Summary(Frozen, frozen=True):
    """One rollout as its ledger lines tell it. `ended` is None while it runs; `outcome` is the last phase it entered."""

    rollout: str
    started: dt.datetime
    ended: dt.datetime | None
    candidate: str
    outcome: str
    text: str
    entries: int


class Numbers:
    """Which entry numbers of one rollout are there: all up to `low`, and those in `beyond`, which is empty but for gaps."""

    __slots__ = ("beyond", "low")

    def __init__(self) -> None:
        self.low = 0
        self.beyond: set[int] = set()

    def add(self, n: int) -> None:
        """`n` is there."""
        if n > self.low:
            self.beyond.add(n)
        while self.low + 1 in self.beyond:
            self.low += 1
            self.beyond.remove(self.low)

    def __contains__(self, n: int) -> bool:
        return n <= self.low or n in self.beyond

    @property
    def highest(self) -> int:
        """The highest number that is there; 0 when there is none."""
        return max(self.beyond, default=self.low)


class Ledger:
    """The writing end of one ledger file. It remembers what it has read and reads again only what others appended."""

    def __init__(self, path: Path, lock: Path, *, lock_seconds: float = disk.LOCK_SECONDS) -> None:
        self.path = path
        self._lock = lock
        self._seconds = lock_seconds
        self._mutex = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._inode = -1
        self._start = 0
        self._end = 0
        self._last = ""
        self._seen: dict[str, Numbers] = {}

    def append(self, new: tuple[Entry, ...]) -> None:
        """Every entry is in the file, durable and chained; ids already there are left alone. After an error none was added."""
        with disk.locked(self._lock, f"append to {self.path}", self._seconds), self._mutex:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise disk.refused("open the ledger", self.path, error) from error
            try:
                self._catch_up(fd)
                self._move_torn_aside(fd)
                self._write(fd, new)
            except OSError as error:
                raise disk.refused("append to the ledger", self.path, error) from error
            finally:
                os.close(fd)

    def highest(self, rollout: str) -> int:
        """The highest entry number of `rollout` that is durable in the file; 0 when there is none."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise disk.refused("open the ledger", self.path, error) from error
        with disk.locked(self._lock, f"read {self.path}", self._seconds), self._mutex:
            try:
                fd = os.open(self.path, os.O_RDONLY)
            except OSError as error:
                raise disk.refused("open the ledger", self.path, error) from error
            try:
                before = self._end
                self._catch_up(fd)
                if self._end != before:
                    # Its writer may have died between the write and the sync.
                    disk.sync(fd)
            except OSError as error:
                raise disk.refused("read the ledger", self.path, error) from error
            finally:
                os.close(fd)
            return self._seen[rollout].highest if rollout in self._seen else 0

    def _catch_up(self, fd: int) -> None:
        """What is remembered fits the file: all of it up to the last line that was written whole."""
        found = os.fstat(fd)
        if found.st_ino != self._inode or found.st_size < self._end or not self._still_there(fd):
            self._forget()
            self._inode = found.st_ino
        for piece in pieces(self.path, self._end):
            if not piece.whole:
                break
            try:
                key = KEYS.decode(piece.line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # Rubbish in the middle is kept and chained over, `verify` names it; rubbish at the very end is a torn write.
                continue
            self._remember(piece.start, piece.end, piece.line, key.rollout, key.n)

    def _still_there(self, fd: int) -> bool:
        line = os.pread(fd, max(0, self._end - self._start - 1), self._start)
        return not self._end or digest(line) == self._last

    def _remember(self, start: int, end: int, line: bytes, rollout: str, n: int) -> None:
        self._start, self._end, self._last = start, end, digest(line)
        self._seen.setdefault(rollout, Numbers()).add(n)

    def _move_torn_aside(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size <= self._end:
            return
        n = 1
        while (aside := self.path.with_name(f"{self.path.stem}.torn-{n}")).exists():
            n += 1
        disk.replace(aside, os.pread(fd, size - self._end, self._end))
        os.ftruncate(fd, self._end)
        log.warning("the last %d bytes of %s were torn by a crash; moved to %s", size - self._end, self.path, aside.name)

    def _write(self, fd: int, new: tuple[Entry, ...]) -> None:
        start, last, lines, wanted = self._end, self._last, [], set[str]()
        for entry in new:
            if entry.id in wanted or (entry.rollout in self._seen and entry.n in self._seen[entry.rollout]):
                continue
            wanted.add(entry.id)
            line = pack(entry, last)
            last = digest(line[:-1])
            lines.append((entry, line))
        try:
            os.lseek(fd, start, os.SEEK_SET)
            disk.write_all(fd, b"".join(line for _, line in lines))
            # Also when nothing is new: whoever wrote these lines may have died before its sync.
            disk.sync(fd)
            if not start:
                disk.sync_directory(self.path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, start)
            raise
        for entry, line in lines:
            self._remember(start, start + len(line), line[:-1], entry.rollout, entry.n)
            start += len(line)


def entries(path: Path, rollout: str | None = None, limit: int | None = None) -> Iterator[Entry]:
    """The entries of a ledger file, oldest first: of one rollout if named, and only the newest `limit` if given.

    A torn end is passed over silently, an unreadable line in the middle with a warning in the log.
    """
    found = _matching(path, rollout)
    return found if limit is None else iter(deque(found, maxlen=limit))


def told(path: Path, rollout: str, present: Rollout | None) -> list[Entry]:
    """All entries of `rollout`, oldest first: those in the ledger file, and those of the `present` rollout that are not there yet."""
    known = {entry.n: entry for entry in entries(path, rollout)}
    if present is not None and present.id == rollout:
        known = {entry.n: entry for entry in present.outbox} | known
    return [entry for _, entry in sorted(known.items())]


def _matching(path: Path, rollout: str | None) -> Iterator[Entry]:
    # Most lines of a long ledger belong to other rollouts: a search of the bytes is far cheaper than reading them.
    needle = b'"rollout":' + encode(rollout) if rollout is not None else b""
    for piece in pieces(path):
        if piece.whole and needle in piece.line:
            entry = _entry(path, piece)
            if entry is not None and (rollout is None or entry.rollout == rollout):
                yield entry


def _entry(path: Path, piece: Piece) -> Entry | None:
    try:
        return LINES.decode(piece.line).entry()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("left out line %d of %s, which cannot be read: %s", piece.number, path, error)
        return None


def history(path: Path) -> list[Summary]:
    """What became of every rollout in a ledger file, the newest first. The file is read once and never held as a whole.

    The candidate is the text under `candidate` in the data of the first entry that has it.
    """
    found: dict[str, Summary] = {}
    for entry in entries(path):
        old = found.get(entry.rollout)
        over = entry.at if entry.phase in _ENDS else None
        candidate = entry.data.get("candidate", "")
        found[entry.rollout] = Summary(
            rollout=entry.rollout,
            started=old.started if old else entry.at,
            ended=(old.ended if old else None) or over,
            candidate=(old.candidate if old else "") or (candidate if isinstance(candidate, str) else ""),
            outcome=entry.phase or (old.outcome if old else ""),
            text=entry.text if entry.event == "transition" or not old else old.text,
            entries=(old.entries if old else 0) + 1,
        )
    return sorted(found.values(), key=lambda s: s.started, reverse=True)
