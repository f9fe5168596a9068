"""What changed between two directories, in lines a person can read: configuration and releases are shown, not their hashes."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

MOST_LINES = 200
MOST_BYTES = 256 * 1024
"""A larger file is only named: its difference would take long to find and nobody would read it."""

_KEY = r"[\w.-]*(?:passw|secret|token|credential|api[_-]?key|private[_-]?key)[\w.-]*"
_LINE = re.compile(rf"^([-+ ]\s*(?:export\s+)?[\"']?{_KEY}[\"']?\s*[:=]\s*)\S.*$", re.IGNORECASE)
_INSIDE = re.compile(rf"([\"']{_KEY}[\"']\s*:\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[\w.+-]+)", re.IGNORECASE)
_LOGIN = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")


def directory_diff(old: Path | None, new: Path | None, *, most: int = MOST_LINES) -> list[str]:
    """The unified diff of the text files below two directories, at most `most` lines and one that says what was left out.

    A directory that is None or not there is empty. Binary and large files are named only. Links are compared by where they point to.
    Values that look like secrets by their name are hidden: that they changed still shows.
    """
    before, after = _files(old), _files(new)
    lines: list[str] = []
    for name in sorted(before.keys() | after.keys()):
        lines += _one(name, before.get(name), after.get(name))
    if len(lines) > most:
        return [*lines[:most], f"... {len(lines) - most} more lines"]
    return lines


def _files(root: Path | None) -> dict[str, Path]:
    if root is None or not root.is_dir():
        return {}
    found: dict[str, Path] = {}
    for place, directories, names in os.walk(root):
        links = [d for d in directories if (Path(place) / d).is_symlink()]
        for name in [*names, *links]:
            path = Path(place) / name
            found[path.relative_to(root).as_posix()] = path
    return found


def _one(name: str, old: Path | None, new: Path | None) -> list[str]:
    a, b = _content(old), _content(new)
    if a == b and (old is None) == (new is None):
        return []
    what = "added" if old is None else "removed" if new is None else "changed"
    one, two = _text(a), _text(b)
    if one is None or two is None:
        return [f"{what}: {name} ({_size(old)} -> {_size(new)} bytes)"]
    before, after = (f"a/{name}" if old else "none"), (f"b/{name}" if new else "none")
    lines = list(difflib.unified_diff(one.splitlines(), two.splitlines(), before, after, lineterm=""))
    return [hidden(line) for line in lines] or [f"{what}: {name}"]


def hidden(line: str) -> str:
    """The line of a diff without the values of passwords, tokens, keys and logins in URLs."""
    line = _LOGIN.sub(r"\1<hidden>@", line)
    return _LINE.sub(r"\1<hidden>", line) if _LINE.match(line) else _INSIDE.sub(r"\1<hidden>", line)


def _content(path: Path | None) -> bytes | None:
    """The bytes to compare, a byte longer than the limit for a file that is too large; None for one that is absent or unreadable."""
    if path is None:
        return b""
    try:
        if path.is_symlink():
            return f"link to {path.readlink()}\n".encode()
        if not path.is_file():
            return None
        if path.stat().st_size <= MOST_BYTES:
            return path.read_bytes()
        return _digest(path)
    except OSError:
        return None


def _digest(path: Path) -> bytes:
    """A binary stand-in for a large file: equal for equal content, and never shown."""
    import hashlib

    with path.open("rb") as file:
        return b"\0" + hashlib.file_digest(file, "sha256").digest()


def _text(data: bytes | None) -> str | None:
    if data is None or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _size(path: Path | None) -> str:
    try:
        return str(path.lstat().st_size) if path is not None else "0"
    except OSError:
        return "?"
