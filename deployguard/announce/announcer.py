"""Tells every sink of every entry, in order, until it is delivered, without ever holding up the driver.

One thread per sink: a receiver that is down delays nobody else. What was not delivered when the process ends is still in
the saved outbox, and whoever drives next offers it again; receivers drop repeated ids.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence

from deployguard import clock
from deployguard.errors import DeployguardError
from deployguard.model.rollout import Entry
from deployguard.ports import Sink

log = logging.getLogger(__name__)
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
_JOIN_SECONDS = 1.0


class _Courier:
    """Brings entries to one sink, one after the other. `changed` is shared with the announcer and guards all state."""

    def __init__(self, sink: Sink, changed: threading.Condition, first: float, longest: float) -> None:
        self.sink = sink
        self.name = str(getattr(sink, "name", type(sink).__name__))
        self.waiting: deque[Entry] = deque()
        self.hurry = False
        self.closed = False
        self._changed = changed
        self._first = first
        self._longest = longest
        self._pause = 0.0
        # A daemon, so that a receiver that never answers cannot keep the process from ending.
        self.thread = threading.Thread(target=self._run, name=f"announce to {self.name}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            delivered = self._try(entry)
            with self._changed:
                if delivered:
                    self.waiting.popleft()
                self._pause = 0.0 if delivered else min(self._longest, max(self._first, 2 * self._pause))
                self._changed.notify_all()

    def _next(self) -> Entry | None:
        """The entry to try now, after the pause that the last failure asks for; None when it is over."""
        with self._changed:
            ready = clock.monotonic() + self._pause
            while not self.closed:
                left = 0.0 if self.hurry else ready - clock.monotonic()
                if self.waiting and left <= 0:
                    self.hurry = False
                    return self.waiting[0]
                self._changed.wait(left if self.waiting else None)
            return None

    def _try(self, entry: Entry) -> bool:
        try:
            self.sink.announce(entry)
        except DeployguardError as error:
            log.warning("%s; it will be tried again", error.message)
            return False
        except Exception:
            # The one place of this thread: a mistake in one sink must not silence it for the rest of the rollout.
            log.exception("could not announce %s to %s; it will be tried again", entry.id, self.name)
            return False
        return True


class Announcer:
    """Delivers entries to all sinks in the background, at least once, in the order in which they were offered."""

    def __init__(self, sinks: Sequence[Sink], *, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE) -> None:
        self._changed = threading.Condition()
        self._offered: dict[str, set[int]] = {}
        self._couriers = [_Courier(sink, self._changed, first_pause, longest_pause) for sink in sinks]

    def offer(self, entries: Iterable[Entry]) -> None:
        """Every entry will be delivered to every sink; ids offered before are left alone. Returns at once."""
        with self._changed:
            for entry in entries:
                known = self._offered.setdefault(entry.rollout, set())
                if entry.n not in known:
                    known.add(entry.n)
                    for courier in self._couriers:
                        courier.waiting.append(entry)
            self._changed.notify_all()

    def delivered(self, rollout: str) -> int:
        """The highest n of `rollout` such that all its entries offered here up to n have reached every sink; 0 when none has."""
        with self._changed:
            pending = [entry.n for courier in self._couriers for entry in courier.waiting if entry.rollout == rollout]
            lowest = min(pending, default=None)
            return max((n for n in self._offered.get(rollout, ()) if lowest is None or n < lowest), default=0)

    def drain(self, seconds: float) -> int:
        """How many entries some sink has still not got, after waiting at most `seconds` for there to be none.

        A sink in a pause after a failure tries once more at once.
        """
        deadline = clock.monotonic() + seconds
        with self._changed:
            for courier in self._couriers:
                courier.hurry = True
            self._changed.notify_all()
            while (left := self._undelivered()) and (rest := deadline - clock.monotonic()) > 0:
                self._changed.wait(rest)
            return left

    def close(self) -> None:
        """Nothing more is tried; what is being delivered at this moment is given a second to end."""
        with self._changed:
            for courier in self._couriers:
                courier.closed = True
            self._changed.notify_all()
        deadline = clock.monotonic() + _JOIN_SECONDS
        for courier in self._couriers:
            courier.thread.join(max(0.0, deadline - clock.monotonic()))

    def _undelivered(self) -> int:
        return len({entry.id for courier in self._couriers for entry in courier.waiting})
