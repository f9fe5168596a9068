"""Where everything of a fleet lies on disk, and the only way anything durable is written there.

One module knows the paths, so that a person who looks into the directory, the supervisor, and the client agree.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployguard import clock
from deployguard.errors import UserError, WorldError

SOCKET_PATH_LIMIT = 100
"""Bytes of a Unix socket path that every platform takes (Linux allows 107, macOS 103)."""

_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one fleet."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def fleet(self) -> Path:
        return self.root / "fleet.json"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def places(self) -> Path:
        return self.root / "places.json"

    @property
    def assignments(self) -> Path:
        return self.root / "assignments.json"

    @property
    def served(self) -> Path:
        return self.root / "served.json"

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor.json"

    @property
    def supervisor_log(self) -> Path:
        return self.root / "supervisor.log"

    @property
    def balancer(self) -> Path:
        return self.root / "balancer.json"

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    def instance(self, slot: str) -> Path:
        return self.root / "instances" / slot

    def current(self, slot: str, part: str) -> Path:
        return self.instance(slot) / "current" / part

    def data(self, slot: str) -> Path:
        return self.instance(slot) / "data"

    def process(self, slot: str) -> Path:
        return self.instance(slot) / "process.json"

    def log(self, slot: str) -> Path:
        return self.root / "logs" / f"{slot}.log"

    def prepare(self) -> None:
        """The directories exist and only their owner may enter them."""
        for path in (self.root, self.versions, self.root / "instances", self.root / "logs"):
            private(path)


def fleet_root(state: Path, name: str) -> Path:
    """The directory of the fleet `name` under the state directory."""
    return state / "fleets" / name


def private(path: Path) -> Path:
    """`path` is a directory that only its owner may enter."""
    try:
        # `parents=True` would give the missing directories above a mode of their own.
        for folder in (*reversed(path.parents), path):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise WorldError(
            f"could not make the directory {path}: {error.strerror}", hint="name another state directory, or give yours write permission"
        ) from error
    return path


def write_durably(path: Path, data: bytes, *, sync: bool = True) -> None:
    """`path` holds `data`, whole; with `sync` it survives a power cut too. Nobody ever reads half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        beside.rename(path)
        if sync:
            sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise WorldError(f"could not write {path}: {error.strerror}", hint="is the disk full, or the directory read-only?") from error


def sync_directory(path: Path) -> None:
    """Renames inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes | None:
    """The content of `path`; None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WorldError(f"could not read {path}: {error.strerror}", hint="it must belong to you") from error


def point(link: Path, to: Path) -> None:
    """`link` leads to `to`; whoever opens it meanwhile sees the old or the new, never nothing."""
    beside = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    beside.symlink_to(to)
    beside.rename(link)


@contextlib.contextmanager
def locked(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """While inside, nobody else holds the lock at `path`. Raises `UserError(busy)` when somebody does, `patience` seconds long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = clock.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if clock.monotonic() >= deadline:
                    raise UserError(busy, hint="wait until it has ended, then try again") from error
            clock.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


def socket_path(layout: Layout) -> Path:
    """A path for the control socket that the platform can bind, in a directory that only we may enter."""
    near = layout.root / "control.sock"
    if len(os.fsencode(near)) <= SOCKET_PATH_LIMIT:
        return near
    import hashlib
    import tempfile

    name = hashlib.sha256(os.fsencode(layout.root)).hexdigest()[:16] + ".sock"
    for temporary in (tempfile.gettempdir(), "/tmp"):  # noqa: S108  the directory below is ours alone, or refused
        far = Path(temporary) / f"deployguard-{os.getuid()}" / name
        if len(os.fsencode(far)) <= SOCKET_PATH_LIMIT:
            _own(far.parent)
            return far
    raise WorldError(
        f"no path for the control socket of {layout.root} is short enough", hint="name a state directory with a shorter path, or set TMPDIR"
    )


def _own(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise WorldError(
            f"{path} is not a directory that only you may enter, so the control socket cannot lie there",
            hint=f"remove {path} and try again",
        )
