"""Requests of people to a guard: one small file each, so that asking never has to win a race against the driver.

<state>/guards/<guard>/inbox/<id>.json   a request that no saved document has consumed yet
                             bad/        files that are not requests, kept for a look
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import secrets
import threading
from pathlib import Path

from deployguard.errors import ForeignState
from deployguard.model.base import decode, encode
from deployguard.model.document import Request
from deployguard.stores import disk

log = logging.getLogger(__name__)


def new_request_id(now: dt.datetime) -> str:
    """An id that nobody else has; ids sort by the instant they were made at."""
    return f"{now.astimezone(dt.UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"


def oldest_first(request: Request) -> tuple[dt.datetime, str]:
    """By what pending requests are sorted."""
    return request.at, request.id


class FileInbox:
    """The inbox of the guard whose directory is given (`FileStore.directory`)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "inbox"
        self._guard = directory
        self._reported: set[str] = set()

    def put(self, request: Request) -> None:
        """The request is on the disk and survives a crash; putting the same id twice leaves one."""
        path = self._path(request.id)
        disk.make_directory(self.directory, self._guard)
        with disk.locked(self.directory / ".lock", f"put request {request.id} into {self.directory}"):
            disk.sweep(self.directory)
            disk.replace(path, encode(request))

    def pending(self) -> tuple[Request, ...]:
        """Requests not yet removed, oldest first. Files that are not requests are reported once and moved to `bad/`."""
        try:
            paths = sorted(p for p in self.directory.iterdir() if p.suffix == ".json" and not p.name.startswith("."))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise disk.refused("list", self.directory, error) from error
        found = (self._read(path) for path in paths)
        return tuple(sorted((request for request in found if request is not None), key=oldest_first))

    def remove(self, ids: tuple[str, ...]) -> None:
        """Those requests are gone; unknown ids are harmless."""
        for each in ids:
            path = self._path(each)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk.refused("remove", path, error) from error

    def _path(self, name: str) -> Path:
        return self.directory / f"{disk.safe_name(name)}.json"

    def _read(self, path: Path) -> Request | None:
        try:
            request = decode(path.read_bytes(), Request)
        except FileNotFoundError:
            return None
        except ForeignState as error:
            self._report(path, error.message)
            self._set_aside(path)
            return None
        except OSError as error:
            self._report(path, error.strerror or str(error))
            return None
        if self._path(request.id) != path:
            # Consumed by its id, it would never be removed by its name, and would come again at every tick.
            self._report(path, f"it holds request {request.id!r}, which belongs into a file of that name")
            self._set_aside(path)
            return None
        return request

    def _report(self, path: Path, fact: str) -> None:
        if path.name not in self._reported:
            self._reported.add(path.name)
            log.warning("left out the request in %s: %s", path, fact)

    def _set_aside(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            (self.directory / "bad").mkdir(mode=0o700, exist_ok=True)
            path.rename(self.directory / "bad" / path.name)


class MemoryInbox:
    """The same without a disk; drivers that share the object share the requests."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}
        self._lock = threading.Lock()

    def put(self, request: Request) -> None:
        """The request is there; putting the same id twice leaves one."""
        with self._lock:
            self._requests[request.id] = request

    def pending(self) -> tuple[Request, ...]:
        """Requests not yet removed, oldest first."""
        with self._lock:
            return tuple(sorted(self._requests.values(), key=oldest_first))

    def remove(self, ids: tuple[str, ...]) -> None:
        """Those requests are gone; unknown ids are harmless."""
        with self._lock:
            for each in ids:
                self._requests.pop(each, None)
