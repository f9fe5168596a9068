"""The few disk operations that must be right: replace a file whole, lock for one save, and say clearly what the disk refused.

A crash or an error at any point leaves either the old file or the new one, never a mixture.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from deployguard import clock
from deployguard.errors import UserError, WorldError

TEMPORARY = ".tmp-"
LOCK_SECONDS = 5.0
_PAUSE = 0.01

_FACTS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space; the old state is whole and nothing was lost"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or raise the quota; the old state is whole"),
    errno.EFBIG: ("the file would exceed the size limit of this process", "raise the limit (`ulimit -f`); the old state is whole"),
    errno.EROFS: ("the file system is read-only", "mount it writable, or choose another state directory"),
    errno.EACCES: ("permission denied", "the state directory must belong to the user who runs deployguard"),
    errno.EPERM: ("operation not permitted", "the state directory must belong to the user who runs deployguard"),
    errno.ENOTDIR: ("a part of the path is a file, not a directory", "move that file away, or choose another state directory"),
    errno.EISDIR: ("there is a directory where a file should be", "move that directory away, or choose another state directory"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "choose a shorter name"),
    errno.EMFILE: ("this process has no file handle left", "raise the limit (`ulimit -n`)"),
    errno.EIO: ("the disk reported an input/output error", "look at the system log: the disk may be failing"),
}


def refused(operation: str, path: Path, error: OSError) -> WorldError:
    """The error that names the operation, the path and what the disk said, with what to do about it."""
    fact, hint = _FACTS.get(error.errno or 0, (error.strerror or str(error), "look at the path and the disk, then try again"))
    return WorldError(f"could not {operation} {path}: {fact}", hint=hint)


def safe_name(name: str) -> str:
    """`name` as one file name: never a path, never hidden. Raises `UserError` when it cannot be one."""
    if not name or name.startswith("."):
        raise UserError(f"{name!r} cannot be the name of a file", hint="use letters, digits, `-` and `.`, and do not begin with a dot")
    return quote(name, safe="")


def make_directory(path: Path, above: Path | None = None) -> None:
    """`path` is a directory that survives a crash; what had to be made below `above`, or `path` alone, is private to the user."""
    top = above if above is not None else path
    try:
        top.parent.mkdir(parents=True, exist_ok=True)
        for each in [*reversed([p for p in path.parents if p.is_relative_to(top)]), path]:
            if not each.is_dir():
                each.mkdir(mode=0o700, exist_ok=True)
                sync_directory(each.parent)
    except OSError as error:
        # A file in the way makes mkdir say "exists", which would send the reader looking for the wrong thing.
        if error.errno == errno.EEXIST:
            error = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        raise refused("make the directory", path, error) from error


def sync(fd: int) -> None:
    """What was written to `fd` survives a crash of the machine."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        # macOS: fsync alone stops at the drive's cache. Some file systems refuse the stronger call.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, full)
            return
    os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Renames and new names in `path` survive a crash of the machine."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """All of `data` has been written, however many calls it took."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read(path: Path) -> bytes | None:
    """The whole file, or None when there is none. Raises `WorldError` when it is there and cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused("read", path, error) from error


def replace(path: Path, data: bytes) -> None:
    """`path` holds `data` and survives a crash; after an error it holds what it held before and nothing else is left.

    One exception: if only the last step fails, making the new name durable, the new content is already in place.
    """
    import tempfile  # readers, such as `status`, need it not

    temporary = ""
    try:
        fd, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        try:
            write_all(fd, data)
            sync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)  # noqa: PTH105 - the pair of strings is what mkstemp gives
        temporary = ""
        sync_directory(path.parent)
    except OSError as error:
        raise refused("save", path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def sweep(directory: Path) -> None:
    """No temporary file of a dead writer is left in `directory`. The caller holds its lock, so no living one is there."""
    with contextlib.suppress(OSError):
        for path in directory.glob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def locked(path: Path, operation: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Inside the block nobody else, thread or process, holds the lock file `path`.

    The kernel frees the lock of a process that dies. Raises `WorldError` after `seconds`, naming who holds it.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise refused(f"{operation}: open the lock", path, error) from error
    try:
        _take(fd, path, operation, seconds)
        yield
    finally:
        os.close(fd)


def _take(fd: int, path: Path, operation: str, seconds: float) -> None:
    deadline = clock.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if clock.monotonic() >= deadline:
                raise _held(fd, path, operation, seconds) from None
        except OSError as error:
            raise refused(f"{operation}: lock", path, error) from error
        clock.sleep(_PAUSE)
    # The name only serves the message of whoever waits; a full disk must not stop a holder for it.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)


def _held(fd: int, path: Path, operation: str, seconds: float) -> WorldError:
    try:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace")
    except OSError:
        holder = ""
    who = f"probably process {holder}" if holder else "another process"
    return WorldError(
        f"could not {operation}: {path} has been locked by {who} for more than {seconds:g} s",
        hint="a save takes milliseconds: that process hangs or is stopped; end it, and the lock is free at once",
    )
