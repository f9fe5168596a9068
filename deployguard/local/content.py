"""Immutable copies of releases and configurations, named by what they contain.

Going back must not depend on the place a version came from, so every version that was ever exposed lies here, on the
fleet's own disk. A single file is named by the plain SHA-256 of its bytes, so that a service can compute the digest of the
configuration it has loaded; a directory by the SHA-256 of a listing of paths, executable bits and contents. A symbolic link
inside a directory is kept as a link if it is relative and stays inside; any other link is refused. `__pycache__` is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from deployguard import clock
from deployguard.errors import UserError, WorldError
from deployguard.local.layout import private, sync_directory
from deployguard.model.version import NOTHING

Part = Literal["release", "config"]
PARTS: tuple[Part, ...] = ("release", "config")
IGNORED = "__pycache__"
GRACE = 24 * 3600.0
"""Seconds for which content that nothing names is kept: its rollout may still be waiting for an approval."""
_CHUNK = 1 << 20


def digest_of(path: Path) -> str:
    """The digest of a file or a directory. Raises `UserError` when it holds what cannot be copied faithfully."""
    try:
        if path.is_dir():
            return "sha256:" + _digest_directory(path)
        return "sha256:" + _digest_file(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file or directory {error.filename}", hint="give the path of a release or configuration") from error
    except OSError as error:
        raise UserError(f"could not read {error.filename}: {error.strerror}", hint="it must be readable to you") from error


class Content:
    """The store of one fleet. Processes may share it: copies appear whole, by a rename."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, part: Part, digest: str) -> Path:
        """Where the copy lies, or would lie."""
        return self._root / part / digest.removeprefix("sha256:") / "content"

    def holds(self, part: Part, digest: str) -> bool:
        return self.path(part, digest).exists()

    def admit(self, part: Part, source: Path | None, expected: str | None = None) -> str:
        """The digest of `source`, of which a whole and durable copy is in the store; None stands for nothing at all.

        Raises `UserError`, and leaves the store as it was, when the copy is not `expected` or differs from its source.
        """
        digest = NOTHING if source is None else digest_of(source)
        if expected is not None and digest != expected:
            raise UserError(
                f"the {part} {source} has the digest {digest}, not {expected}", hint="it was changed or damaged on its way; fetch it again"
            )
        if self.holds(part, digest):
            with contextlib.suppress(OSError):
                os.utime(self.path(part, digest).parent)
            return digest
        folder = private(self._root / part)
        beside = folder / f".new-{secrets.token_hex(8)}"
        try:
            beside.mkdir(mode=0o700)
            _copy(source, beside / "content")
            if (arrived := digest_of(beside / "content")) != digest:
                raise UserError(
                    f"the copy of the {part} {source} has the digest {arrived}, not {digest}",
                    hint="it changed while it was copied; try again",
                )
            _publish(beside, self.path(part, digest).parent)
        except OSError as error:
            raise WorldError(f"could not copy the {part} {source}: {error.strerror}", hint="is the disk full?") from error
        finally:
            _remove(beside)
        return digest

    def verify(self, part: Part, digest: str) -> None:
        """The copy is there and is what its name says. Raises `WorldError` otherwise."""
        path = self.path(part, digest)
        if not path.exists():
            raise WorldError(f"the fleet holds no copy of the {part} {digest}", hint="admit it again with `deployguard run`")
        if (found := digest_of(path)) != digest:
            raise WorldError(
                f"digest mismatch: the copy of the {part} {digest} has the digest {found}",
                hint=f"it was edited or damaged; remove {path.parent}",
            )

    def stamp(self, part: Part, digest: str) -> tuple[int, int]:
        """What tells a copy that was put there anew from the one seen before."""
        found = self.path(part, digest).stat()
        return found.st_ino, found.st_mtime_ns

    def collect(self, part: Part, keep: Iterable[str]) -> list[str]:
        """Removed: every copy that is not to be kept and was not admitted lately. Their digests."""
        wanted = {digest.removeprefix("sha256:") for digest in keep}
        gone = []
        oldest = clock.now().timestamp() - GRACE
        for folder in self._folders(part):
            if folder.name not in wanted and folder.stat().st_mtime < oldest:
                _remove(folder)
                gone.append("sha256:" + folder.name)
        return gone

    def _folders(self, part: Part) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from sorted((self._root / part).iterdir())


def _digest_file(path: Path) -> str:
    if not path.is_file():
        if path.exists():
            raise UserError(f"{path} is neither a file nor a directory", hint="releases and configurations are files and directories")
        raise FileNotFoundError(2, "No such file or directory", str(path))
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _digest_directory(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _walk(root):
        name = os.fsencode(path.relative_to(root))
        if path.is_symlink():
            entry = b"link " + os.fsencode(_inside(root, path))
        elif path.is_dir():
            entry = b"directory"
        else:
            mark = "executable" if path.stat().st_mode & stat.S_IXUSR else "file"
            entry = f"{mark} {_digest_file(path)}".encode()
        digest.update(b"%d %s %s\n" % (len(name), name, entry))
    return digest.hexdigest()


def _walk(root: Path) -> list[Path]:
    """Everything below `root`, in the order of its names as bytes."""
    found: list[Path] = []
    waiting = [root]
    while waiting:
        for path in waiting.pop().iterdir():
            if path.name == IGNORED:
                continue
            found.append(path)
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
    return sorted(found, key=lambda path: os.fsencode(path.relative_to(root)))


def _inside(root: Path, link: Path) -> str:
    """Where a link leads. Raises `UserError` when that is outside of the tree, so not part of what is copied."""
    target = os.readlink(link)  # noqa: PTH115  the text itself, not a normalised path
    ends = os.path.normpath(link.parent.relative_to(root) / target)
    if Path(target).is_absolute() or Path(ends).parts[:1] == ("..",):
        raise UserError(
            f"the symbolic link {link} leads out of {root}, to {target}",
            hint="copy the file into the tree: a version must be whole in itself",
        )
    return target


def _copy(source: Path | None, to: Path) -> None:
    """A copy of `source` lies at `to`, on the disk, and cannot be written."""
    if source is None:
        to.write_bytes(b"")
        _seal(to, executable=False)
    elif source.is_dir():
        to.mkdir(mode=0o700)
        paths = _walk(source)
        for path in paths:
            copy = to / path.relative_to(source)
            if path.is_symlink():
                copy.symlink_to(_inside(source, path))
            elif path.is_dir():
                copy.mkdir(mode=0o700)
            else:
                _copy_file(path, copy)
        for path in [*reversed(paths), source]:
            if path.is_dir() and not path.is_symlink():
                folder = to / path.relative_to(source)
                sync_directory(folder)
                folder.chmod(0o500)
    else:
        _copy_file(source, to)


def _copy_file(source: Path, to: Path) -> None:
    shutil.copyfile(source, to)
    _seal(to, executable=bool(source.stat().st_mode & stat.S_IXUSR))


def _seal(path: Path, *, executable: bool) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.chmod(0o500 if executable else 0o400)


def _publish(beside: Path, folder: Path) -> None:
    """`folder` is the new copy, or the equal one that somebody else put there first."""
    try:
        beside.rename(folder)
    except OSError:
        if not (folder / "content").exists():
            raise
    sync_directory(folder.parent)


def _remove(folder: Path) -> None:
    """`folder` is gone; a read-only tree must be opened first."""
    if not folder.exists():
        return
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())]:
        path.chmod(0o700)
    shutil.rmtree(folder)
