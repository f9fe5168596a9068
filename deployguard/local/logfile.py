"""Log files of processes that write to them directly.

The instances hold the file themselves, so that they never stop writing when the supervisor dies; in exchange a full file is
copied and emptied in place, which may lose a few lines written in that very moment.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

TAIL_LINES = 20
_TAIL_BYTES = 8192


def open_log(path: Path) -> int:
    """A descriptor to append to `path`, which only its owner may read."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def rotate(path: Path, size: int, keep: int) -> bool:
    """A log above `size` bytes has been moved to `path`.1 and is empty; at most `keep` older ones are left."""
    try:
        if path.stat().st_size <= size:
            return False
        for number in range(keep, 1, -1):
            older = _numbered(path, number - 1)
            if older.exists():
                older.rename(_numbered(path, number))
        if keep:
            first = _numbered(path, 1)
            shutil.copyfile(path, first)
            first.chmod(0o600)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def tail(path: Path, since: int) -> tuple[str, ...]:
    """The last lines written after the offset `since`; the log may have been emptied meanwhile."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = since if since <= end else 0
            file.seek(max(start, end - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip()[:400] for line in text.splitlines() if line.strip())[-TAIL_LINES:]


def size(path: Path) -> int:
    """How long the log is now."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
