"""The ledger in a cluster: the same hash-chained lines as in a file, in a chain of ConfigMaps.

A segment takes lines until it holds about 200 KiB; then it is made immutable, and only then the next one begins, so that a
driver with an old view can never add to a segment that has a successor. The newest segments are kept and the oldest are
collected: the record for ever is wherever announcements are collected, or a copy made with `deployguard history`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from deployguard.errors import StaleView
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from deployguard.model.rollout import Entry, Rollout
from deployguard.stores import past
from deployguard.stores.chain import KEYS, Piece, Verification, digest, pack, verified
from deployguard.stores.kube_objects import GUARD, STATE, Object, label, new, object_name
from deployguard.stores.past import Numbers, Summary

log = logging.getLogger(__name__)
KEPT = 5
"""Segments that are kept."""
SEGMENT_BYTES = 200 * 1024
_LINES, _BEFORE, _SKIPPED = "ledger.jsonl", "before", "lines-before"
_TRIES = 6


class KubeLedger:
    """The ledger of one guard. It remembers what it has read and reads again only after somebody else has written."""

    def __init__(self, kube: Kube, namespace: str, guard: str, *, kept: int = KEPT, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.guard = guard
        self.place = f"the ledger of guard {guard} in {namespace}"
        self._kube = kube
        self._namespace = namespace
        self._name = object_name(guard, "ledger")
        self._kept = kept
        self._most = segment_bytes
        self._lock = threading.Lock()
        self._segments: list[Object] | None = None
        self._seen: dict[str, Numbers] = {}
        self._last = ""
        self._lines = 0

    def append(self, new: tuple[Entry, ...]) -> None:
        """Every entry is in the cluster and chained; ids already there are left alone. Raises `WorldError`; some may be there then."""
        with self._lock:
            for _ in range(_TRIES):
                try:
                    segments = self._read()
                    while missing := self._missing(new):
                        self._extend(segments, missing)
                    return
                except (Conflict, AlreadyExists, NotFound) as error:
                    # Somebody else appended, or began the next segment: read theirs and chain on.
                    self._segments = None
                    last = error
                except KubeError:
                    # It may have landed; the next read shows it.
                    self._segments = None
                    raise
            raise StaleView(f"could not append to {self.place}: others kept writing to it ({last.message})", hint="look again") from last

    def highest(self, rollout: str) -> int:
        """The highest entry number of `rollout` that is in the cluster; 0 when there is none.

        Asks the server for a rollout that we know nothing of; else it is what we last read or wrote. That is enough: entries
        of somebody else that we do not know are met, and read, when we append.
        """
        with self._lock:
            self._read()
            if rollout not in self._seen:
                self._segments = None
                self._read()
            return self._seen[rollout].highest if rollout in self._seen else 0

    def forget(self) -> None:
        """The next call reads anew."""
        with self._lock:
            self._segments = None

    def pieces(self) -> Iterator[Piece]:
        """The lines that are kept, oldest first, as they are in the cluster now; numbered from the first that was ever written."""
        with self._lock:
            self._segments = None
            segments = list(self._read())
        return _pieces(segments)

    def entries(self, rollout: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """The entries that are kept, oldest first; see `past.entries`."""
        return past.entries(self.pieces(), self.place, rollout, limit)

    def told(self, rollout: str, present: Rollout | None) -> list[Entry]:
        """All entries of `rollout`, oldest first: those in the ledger, and those of the `present` rollout that are not there yet."""
        return past.told(self.entries(rollout), rollout, present)

    def history(self) -> list[Summary]:
        """What became of every rollout that is in the ledger, the newest first."""
        return past.history(self.entries())

    def verify(self, rollout: str = "", written: int = 0) -> Verification:
        """Whether the lines that are kept are as they were written; see `chain.verified`."""
        with self._lock:
            self._segments = None
            segments = list(self._read())
        before, first = ("", 1) if not segments else (_text(segments[0], _BEFORE), _skipped(segments[0]) + 1)
        return verified(_pieces(segments), rollout, written, before, first)

    def _read(self) -> list[Object]:
        """The segments, oldest first, as we last saw or wrote them."""
        if self._segments is None:
            selector = f"{GUARD}={label(self.guard)},{STATE}=ledger"
            items = self._kube.list(paths.configmaps(self._namespace), {"labelSelector": selector})
            self._segments = sorted(items, key=_number)
            self._seen, self._last, self._lines = {}, "", 0
            if self._segments:
                self._last, self._lines = _text(self._segments[0], _BEFORE), _skipped(self._segments[0])
            for piece in _pieces(self._segments):
                self._remember(piece.line)
        return self._segments

    def _remember(self, line: bytes) -> None:
        self._lines += 1
        try:
            key = KEYS.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Rubbish is kept and chained over; `verify` names it.
            return
        self._last = digest(line)
        self._seen.setdefault(key.rollout, Numbers()).add(key.n)

    def _missing(self, new: tuple[Entry, ...]) -> list[Entry]:
        wanted = {entry.id: entry for entry in new}
        return [e for e in wanted.values() if e.rollout not in self._seen or e.n not in self._seen[e.rollout]]

    def _extend(self, segments: list[Object], missing: list[Entry]) -> None:
        """As many of the entries as fit are in the last segment, or in a new one when none does."""
        text = _text(segments[-1], _LINES) if segments else ""
        # A last line without its end was edited by hand; it stays, and is not ours to continue.
        text += "\n" if text and not text.endswith("\n") else ""
        lines, size, last = list[bytes](), len(text.encode()), self._last
        for entry in missing:
            line = pack(entry, last)
            if (text or lines) and size + len(line) > self._most:
                break
            lines.append(line)
            size, last = size + len(line), digest(line[:-1])
        if not segments or segments[-1].get("immutable") or not lines:
            self._begin(segments)
            return
        changed = segments[-1] | {"data": segments[-1]["data"] | {_LINES: text + b"".join(lines).decode()}}
        segments[-1] = self._kube.replace(self._path(segments[-1]), changed)
        for line in lines:
            self._remember(line[:-1])

    def _begin(self, segments: list[Object]) -> None:
        """A new, empty segment is the last one, and the one before can no longer be changed."""
        if segments and not segments[-1].get("immutable"):
            segments[-1] = self._kube.replace(self._path(segments[-1]), segments[-1] | {"immutable": True})
        number = _number(segments[-1]) + 1 if segments else 1
        data = {_LINES: "", _BEFORE: self._last, _SKIPPED: str(self._lines)}
        body = new(f"{self._name}-{number:04d}", self.guard, "ledger") | {"data": data}
        segments.append(self._kube.create(paths.configmaps(self._namespace), body))
        self._collect(segments)

    def _collect(self, segments: list[Object]) -> None:
        while len(segments) > self._kept:
            try:
                self._kube.delete(self._path(segments[0]), uid=segments[0]["metadata"]["uid"])
            except (NotFound, Conflict):
                log.debug("somebody else has collected %s", segments[0]["metadata"]["name"])
            except KubeError as error:
                # It costs space and nothing else; the next new segment tries again.
                log.warning("%s; the ledger goes on", error.message)
                return
            del segments[0]

    def _path(self, segment: Object) -> str:
        return paths.configmap(self._namespace, segment["metadata"]["name"])


def _pieces(segments: list[Object]) -> Iterator[Piece]:
    number = _skipped(segments[0]) if segments else 0
    start = 0
    for segment in segments:
        for raw in _text(segment, _LINES).encode().splitlines(keepends=True):
            number += 1
            whole = raw.endswith(b"\n")
            yield Piece(number, start, start + len(raw), raw[:-1] if whole else raw, whole)
            start += len(raw)


def _text(segment: Object, key: str) -> str:
    data: dict[str, Any] = segment.get("data") or {}
    return str(data.get(key) or "")


def _skipped(segment: Object) -> int:
    found = _text(segment, _SKIPPED)
    return int(found) if found.isdigit() else 0


def _number(segment: Object) -> int:
    found = str(segment["metadata"]["name"]).rpartition("-")[2]
    return int(found) if found.isdigit() else 0
