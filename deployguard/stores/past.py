"""What can be read back from a ledger, wherever its lines lie: the entries, those of one rollout, what became of each.

Readers stream: a ledger of years is larger than memory should have to hold.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from deployguard.model.base import Frozen, encode
from deployguard.model.rollout import TERMINAL, Entry, Rollout
from deployguard.stores.chain import LINES, Piece

log = logging.getLogger(__name__)
_ENDS = frozenset(str(phase.__struct_config__.tag) for phase in TERMINAL)


class Summary(Frozen, frozen=True):
    """One rollout as its ledger lines tell it. `ended` is None while it runs; `outcome` is the last phase it entered."""

    rollout: str
    started: dt.datetime
    ended: dt.datetime | None
    candidate: str
    outcome: str
    text: str
    entries: int


class Numbers:
    """Which entry numbers of one rollout are there: all up to `low`, and those in `beyond`, which is empty but for gaps."""

    __slots__ = ("beyond", "low")

    def __init__(self) -> None:
        self.low = 0
        self.beyond: set[int] = set()

    def add(self, n: int) -> None:
        """`n` is there."""
        if n > self.low:
            self.beyond.add(n)
        while self.low + 1 in self.beyond:
            self.low += 1
            self.beyond.remove(self.low)

    def __contains__(self, n: int) -> bool:
        return n <= self.low or n in self.beyond

    @property
    def highest(self) -> int:
        """The highest number that is there; 0 when there is none."""
        return max(self.beyond, default=self.low)


def entries(found: Iterable[Piece], place: str, rollout: str | None = None, limit: int | None = None) -> Iterator[Entry]:
    """The entries of a ledger, oldest first: of one rollout if named, and only the newest `limit` if given.

    A torn end is passed over silently, an unreadable line in the middle with a warning in the log that names `place`.
    """
    matching = _matching(found, place, rollout)
    return matching if limit is None else iter(deque(matching, maxlen=limit))


def told(known: Iterable[Entry], rollout: str, present: Rollout | None) -> list[Entry]:
    """All entries of `rollout`, oldest first: the `known` ones, and those of the `present` rollout that are not among them."""
    by_number = {entry.n: entry for entry in known}
    if present is not None and present.id == rollout:
        by_number = {entry.n: entry for entry in present.outbox} | by_number
    return [entry for _, entry in sorted(by_number.items())]


def _matching(found: Iterable[Piece], place: str, rollout: str | None) -> Iterator[Entry]:
    # Most lines of a long ledger belong to other rollouts: a search of the bytes is far cheaper than reading them.
    needle = b'"rollout":' + encode(rollout) if rollout is not None else b""
    for piece in found:
        if piece.whole and needle in piece.line:
            entry = _entry(place, piece)
            if entry is not None and (rollout is None or entry.rollout == rollout):
                yield entry


def _entry(place: str, piece: Piece) -> Entry | None:
    try:
        return LINES.decode(piece.line).entry()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("left out line %d of %s, which cannot be read: %s", piece.number, place, error)
        return None


def history(known: Iterable[Entry]) -> list[Summary]:
    """What became of every rollout among the entries, the newest first.

    The candidate is the text under `candidate` in the data of the first entry that has it.
    """
    found: dict[str, Summary] = {}
    for entry in known:
        old = found.get(entry.rollout)
        over = entry.at if entry.phase in _ENDS else None
        candidate = entry.data.get("candidate", "")
        found[entry.rollout] = Summary(
            rollout=entry.rollout,
            started=old.started if old else entry.at,
            ended=(old.ended if old else None) or over,
            candidate=(old.candidate if old else "") or (candidate if isinstance(candidate, str) else ""),
            outcome=entry.phase or (old.outcome if old else ""),
            text=entry.text if entry.event == "transition" or not old else old.text,
            entries=(old.entries if old else 0) + 1,
        )
    return sorted(found.values(), key=lambda s: s.started, reverse=True)
