"""The ledger in a file: append-only, hash-chained JSON lines, and what can be read back from them.

It is the record that outlives everything else, so an append never rewrites a byte and a torn end is moved aside, not deleted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from deployguard.model.rollout import Entry, Rollout
from deployguard.stores import disk, past
from deployguard.stores.chain import KEYS, Verification, digest, pack, pieces, verify
from deployguard.stores.past import Numbers, Summary

__all__ = ["Ledger", "Summary", "Verification", "entries", "history", "told", "verify"]

log = logging.getLogger(__name__)


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
    """The entries of a ledger file; see `past.entries`."""
    return past.entries(pieces(path), str(path), rollout, limit)


def told(path: Path, rollout: str, present: Rollout | None) -> list[Entry]:
    """All entries of `rollout`, oldest first: those in the ledger file, and those of the `present` rollout that are not there yet."""
    return past.told(entries(path, rollout), rollout, present)


def history(path: Path) -> list[Summary]:
    """What became of every rollout in a ledger file, the newest first. The file is read once and never held as a whole."""
    return past.history(entries(path))
