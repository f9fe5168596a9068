"""Ticking until the end: pauses, interrupts, and troubles that are told once."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass

from deployguard.driver.tick import Driver, Ticked
from deployguard.errors import DeployguardError, WorldError
from deployguard.model.document import Document, Request

OUTDATED_LIMIT = dt.timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a drive ended: `done` by its own rule, `timeout`, or `left` because somebody wanted to go at once."""

    document: Document
    how: str


class Drive:
    """A driver ticking in this thread until `done` says so."""

    def __init__(self, driver: Driver, *, on_tick: Callable[[Ticked], None], on_trouble: Callable[[DeployguardError], None]) -> None:
        self.driver = driver
        self._on_tick = on_tick
        self._on_trouble = on_trouble
        self._wake = threading.Event()
        self._leave = False
        self._told: str = ""
        self._outdated: dt.datetime | None = None

    def ask(self, request: Request) -> None:
        """Put a request of this process before the next tick, and tick now."""
        self.driver.observer.ask(request)
        self._wake.set()

    def leave(self) -> None:
        """End after the present tick, whatever is exposed."""
        self._leave = True
        self._wake.set()

    def until(self, done: Callable[[Document], bool], *, deadline: Callable[[], dt.datetime | None] = lambda: None) -> Ended:
        """Tick until `done`, until `deadline` has passed (asked anew each time), or until `leave`.

        Raises `WorldError` when somebody else drives, or when the target carries a higher fence for longer than 30 s. A store
        that cannot be written is told once and tried again: nothing is done meanwhile that is not saved.
        """
        clock = self.driver.world.clock
        document: Document | None = None
        while True:
            self._wake.clear()
            wake = clock.now() + self.driver.world.policy.interval
            try:
                ticked = self.driver.tick()
            except WorldError as error:
                if document is None:
                    raise
                self._tell(error)
            else:
                document, wake = ticked.document, ticked.wake
                self._check(ticked)
                self._on_tick(ticked)
                if done(document):
                    return Ended(document, "done")
            if self._leave and document is not None:
                return Ended(document, "left")
            end = deadline()
            if end is not None and clock.now() >= end and document is not None:
                return Ended(document, "timeout")
            clock.wait((wake - clock.now()).total_seconds(), self._wake)

    def _check(self, ticked: Ticked) -> None:
        now = self.driver.world.clock.now()
        if ticked.held is not None:
            raise WorldError(
                f"could not drive `{ticked.document.guard}`: {ticked.held.holder} drives it until {ticked.held.until:%H:%M:%S} UTC",
                hint="wait for it with `--wait`, or watch it with `deployguard watch`",
            )
        if not ticked.outdated:
            self._outdated = None
            for trouble in ticked.troubles:
                self._tell(trouble)
            if not ticked.troubles:
                self._told = ""
            return
        self._outdated = self._outdated or now
        if now - self._outdated >= OUTDATED_LIMIT:
            raise WorldError(
                f"could not drive `{ticked.document.guard}`: the target carries a higher fence than the saved rollout",
                hint="another guard drives this target from another state directory",
            )

    def _tell(self, error: DeployguardError) -> None:
        if error.message != self._told:
            self._told = error.message
            self._on_trouble(error)
