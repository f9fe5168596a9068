"""The readings log: the recordings from which decisions are replayed. Large, and never needed to decide anything.

So it is buffered and not synced: a crash loses the last seconds of it. Trouble with it is logged once and stops no rollout.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import msgspec

from deployguard.errors import DeployguardError
from deployguard.stores import disk

log = logging.getLogger(__name__)
KEPT = 50
_BUFFER = 64 * 1024


def _marked(file: BinaryIO, mark: bytes, back: int) -> int:
    """Where the `back`-th last line begins that starts with `mark`; 0 when there are fewer."""
    if not os.fstat(file.fileno()).st_size:
        return 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        at = len(whole)
        for _ in range(back):
            at = whole.rfind(b"\n" + mark, 0, at)
            if at < 0:
                return 0
        return at + 1


class FileReadings:
    """JSON lines per rollout in `readings/` of the guard's directory, at most `limit_bytes` each, for the last 50 rollouts."""

    def __init__(self, directory: Path, *, limit_bytes: int = 64 * 1024 * 1024, kept: int = KEPT) -> None:
        self.directory = directory / "readings"
        self._guard = directory
        self._limit = limit_bytes
        self._kept = kept
        self._mutex = threading.Lock()
        self._rollout = ""
        self._lines: list[bytes] = []
        self._buffered = 0
        self._size = 0
        self._ready = False
        self._full = False
        self._quiet: set[str] = set()
        self._losses = 0

    @property
    def losses(self) -> int:
        """How often records that were appended did not get into the files."""
        return self._losses

    def append(self, rollout: str, record: dict[str, Any]) -> None:
        """The record will be in the log of `rollout` after the next flush; trouble is logged once and never raised."""
        # Not sorted: in what order a map was read may decide the last digit of a sum.
        line = msgspec.json.encode(record) + b"\n"
        with self._mutex:
            if rollout != self._rollout:
                self._flush()
                self._rollout, self._size, self._ready, self._full = rollout, self._size_of(rollout), False, False
            if self._full:
                return
            if self._size + self._buffered + len(line) > self._limit:
                # Also what would still fit: it could not be understood without this one.
                self._full = True
                self._losses += 1
                self._once(f"{rollout} limit", f"the readings of {rollout} have reached {self._limit} bytes; later ones are not kept")
                return
            self._lines.append(line)
            self._buffered += len(line)
            if self._buffered >= _BUFFER:
                self._flush()

    def flush(self) -> None:
        """What was appended can be read by other processes."""
        with self._mutex:
            self._flush()

    def close(self) -> None:
        """What was appended is in the files; nothing is kept open."""
        self.flush()

    def rollouts(self) -> list[str]:
        """The rollouts whose readings are kept, the newest first."""
        self.flush()
        try:
            return [unquote(path.stem) for path in self._newest_first()]
        except OSError as error:
            raise disk.refused("list", self.directory, error) from error

    def read(self, rollout: str, mark: str = "", back: int = 1) -> Iterator[dict[str, Any]]:
        """The records of `rollout`, oldest first, one at a time; a line that a crash cut off is passed over.

        With `mark`, from the `back`-th last record on whose line begins with it; all when there are fewer.
        """
        self.flush()
        path = self._path(rollout)
        try:
            with path.open("rb") as file:
                if mark:
                    file.seek(_marked(file, mark.encode(), back))
                for line in file:
                    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                        yield msgspec.json.decode(line, type=dict[str, Any])
        except FileNotFoundError:
            return
        except OSError as error:
            raise disk.refused("read", path, error) from error

    def _size_of(self, rollout: str) -> int:
        try:
            return self._path(rollout).stat().st_size
        except OSError:
            return 0

    def _path(self, rollout: str) -> Path:
        return self.directory / f"{disk.safe_name(rollout)}.jsonl"

    def _newest_first(self) -> list[Path]:
        dated: list[tuple[int, str, Path]] = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.directory.glob("*.jsonl"):
                with contextlib.suppress(FileNotFoundError):
                    dated.append((path.stat().st_mtime_ns, path.name, path))
        return [path for _, _, path in sorted(dated, reverse=True)]

    def _flush(self) -> None:
        if not self._lines:
            return
        data, self._lines, self._buffered = b"".join(self._lines), [], 0
        try:
            path = self._path(self._rollout)
            disk.make_directory(self.directory, self._guard)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    # The writer before was cut off in the middle of a line; do not lose ours with it.
                    data = b"\n" + data
                # One write for whole lines: a second driver may append to the same file.
                disk.write_all(fd, data)
            finally:
                os.close(fd)
            self._size = size + len(data)
            self._prune()
        except (OSError, DeployguardError) as error:
            self._losses += 1
            self._once(self._rollout, f"could not keep readings of {self._rollout}, the rollout goes on without them: {error}")

    def _prune(self) -> None:
        if not self._ready:
            self._ready = True
            for path in self._newest_first()[self._kept :]:
                path.unlink(missing_ok=True)

    def _once(self, key: str, text: str) -> None:
        if key not in self._quiet:
            self._quiet.add(key)
            log.warning("%s", text)
