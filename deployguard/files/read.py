"""The text of a file, or a clear refusal: the size is known before the content is read, and binary data never gets further."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from deployguard.errors import Fault, FileError

LIMIT = 1_000_000
"""Bytes. The largest file that anybody has written by hand is far below."""

STDIN = "-"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: str | Path, limit: int = LIMIT) -> str:
    """The whole file as text; `-` is standard input. Raises `FileError` for anything that is not a text file of at most `limit` bytes."""
    return _decode(str(path), read_bytes(path, limit))


def read_bytes(path: str | Path, limit: int = LIMIT) -> bytes:
    """The whole file; `-` is standard input. Raises `FileError` for one that cannot be read or is larger than `limit` bytes."""
    name = str(path)
    data = sys.stdin.buffer.read(limit + 1) if name == STDIN else _file(name, limit)
    if len(data) > limit:
        raise _refusal(name, f"more than {limit // 1_000_000} MB", f"a file may have at most {limit:,} bytes")
    return data


def _file(name: str, limit: int) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe nobody writes to would wait for ever.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size > limit:
                raise _refusal(name, f"{status.st_size:,} bytes", f"a file may have at most {limit:,} bytes")
            os.set_blocking(file.fileno(), True)
            return file.read(limit + 1)
    except FileNotFoundError as error:
        raise _refusal(name, "no such file", "check the path, or write a first file with `deployguard init`") from error
    except IsADirectoryError as error:
        raise _refusal(name, "a directory", f"name a file in it: `{name.rstrip('/')}/guard.yaml`") from error
    except PermissionError as error:
        raise _refusal(name, "no permission to read it", f"allow it, as in `chmod u+r {name}`") from error
    except (OSError, ValueError) as error:
        raise _refusal(name, f"cannot be read ({getattr(error, 'strerror', None) or error})", "name a text file") from error


def _decode(name: str, data: bytes) -> str:
    if data.startswith(_UTF16):
        raise _refusal(name, "text in UTF-16", "save it as UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise FileError(name, [Fault(line, "", "binary data (a NUL byte), or text in UTF-16", "a file is YAML in UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"binary data, or text that is not UTF-8 (byte 0x{data[error.start]:02x})"
        raise FileError(name, [Fault(line, "", wrong, "a file is YAML in UTF-8")]) from error


def _refusal(name: str, found: str, right: str) -> FileError:
    return FileError(name, [Fault(0, "", found, right)])
