"""Driving a saved rollout to its end in this process: signals, deadlines, and the report at the end."""

from __future__ import annotations

import datetime as dt
import getpass
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployguard import clock
from deployguard.cli.progress import Progress, handed_words, last_words
from deployguard.driver.loop import Drive, Ended
from deployguard.driver.tick import Driver, Ticked
from deployguard.errors import DeployguardError
from deployguard.model.document import Document, Request, RequestVerb
from deployguard.model.rollout import Advancing, Analyzing, Holding, RollingBack, Verifying, Waiting, Watching
from deployguard.report.words import Outcome, outcome
from deployguard.stores.inbox import new_request_id

if TYPE_CHECKING:
    from deployguard.wiring.guard import Rig

TIDYING = dt.timedelta(seconds=15)
GOING = (Waiting, Advancing, Analyzing, Holding)


@dataclass(frozen=True, slots=True)
class Terms:
    """When a drive ends: `stay` after the way back is complete, `timeout` for the whole, `watch` stays until the watch is over.

    `asked`: this command asked for the way back. `enough` ends the drive as soon as it holds of the saved document.
    `hand_over` is called on an interrupt instead of taking the candidate back. `flags` say on a command line where the guard is at home.
    """

    stay: dt.timedelta = dt.timedelta(minutes=2)
    timeout: dt.timedelta | None = None
    watch: bool = False
    asked: bool = False
    enough: Callable[[Document], bool] | None = None
    hand_over: Callable[[], None] | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """How a drive ended. `interrupted`: somebody pressed Ctrl-C meanwhile."""

    document: Document
    outcome: Outcome
    interrupted: bool = False


def request(verb: RequestVerb, reason: str = "", rollout: str = "") -> Request:
    """A request of the person at this terminal, now."""
    now = clock.now()
    return Request(new_request_id(now), verb, whoami(), now, reason, rollout)


def whoami() -> str:
    """The name of the person or job that runs this command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


class Session:
    """One process that drives one guard."""

    def __init__(self, rig: Rig, progress: Progress, terms: Terms) -> None:
        self._rig = rig
        self._progress = progress
        self._terms = terms
        self._drive = Drive(Driver(rig.world), on_tick=self._ticked, on_trouble=progress.trouble)
        self._interrupts = 0
        self._timed_out = False
        self._began = clock.now()
        self._troubled = False

    def run(self) -> Result:
        """Drive until the rollout needs this process no more, then give the claim back."""
        from deployguard.settings import settings

        try:
            with self._signals():
                ended = self._until()
                if ended.how == "timeout":
                    self._timed_out = True
                    self._drive.ask(request("timeout", "the time of the run is over"))
                    ended = self._until()
            if ended.how == "left":
                handed = self._terms.hand_over is not None
                self._progress.say((handed_words if handed else last_words)(ended.document, self._terms.flags))
            self._release()
            self._tidy(ended.document)
            return self._result(ended)
        finally:
            self._drive.driver.close()
            undelivered = self._rig.close(settings().drain_seconds)
            if undelivered:
                self._progress.say(f"{undelivered} announcements were not delivered; the next run of this guard sends them again")
            self._progress.close()

    def _release(self) -> None:
        """The claim is given back. Where that fails the outcome stands all the same: a claim lapses by itself."""
        try:
            self._drive.driver.release()
        except DeployguardError as error:
            self._progress.say(f"the claim was not given back, and lapses within half a minute: {error.message}")

    def _tidy(self, document: Document) -> None:
        """What nobody needs any more of old versions is gone, once a rollout is past exposing anything."""
        rollout = document.rollout
        if rollout is None or not (rollout.terminal or isinstance(rollout.phase, (Watching, Verifying))):
            return
        try:
            self._rig.workload.collect(document)
        except DeployguardError as error:
            self._progress.say(f"old copies were not collected: {error.message}")

    def _result(self, ended: Ended) -> Result:
        rollout = ended.document.rollout
        assert rollout is not None
        how = outcome(rollout, interrupted=self._interrupts > 0, timeout=self._timed_out, asked=self._terms.asked)
        if ended.how == "left" and self._interrupts > 0:
            how = Outcome("interrupted", 130, how.reason)
        return Result(ended.document, how, self._interrupts > 0)

    def _until(self) -> Ended:
        timeout = self._terms.timeout

        def deadline() -> dt.datetime | None:
            return None if timeout is None or self._timed_out or self._interrupts else self._began + timeout

        return self._drive.until(self._done, deadline=deadline)

    def _ticked(self, ticked: Ticked) -> None:
        self._progress.tick(ticked)
        self._rig.flush()
        self._troubled = bool(ticked.troubles)

    def _done(self, document: Document) -> bool:
        rollout = document.rollout
        if rollout is None or rollout.terminal:
            return True
        now, phase = clock.now(), rollout.phase
        if self._terms.enough is not None and self._terms.enough(document):
            return True
        if isinstance(phase, Watching):
            # The last writes to a target that does not follow on its own are worth another try; the promotion stands without them.
            return not self._terms.watch and (not self._troubled or now - (rollout.decided or now) >= TIDYING)
        if isinstance(phase, Verifying):
            hurried = self._interrupts > 0 or self._timed_out
            return hurried or rollout.restored is None or now - rollout.restored >= self._terms.stay
        if isinstance(phase, RollingBack):
            # Overdue does not stop the way back; after as long again, counted from its own beginning when it came later, this
            # process leaves it to the next driver.
            patience = max(phase.deadline, self._began) + self._rig.world.policy.rollback.within
            return phase.overdue and now >= patience
        return False

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM takes the candidate back, a second SIGINT leaves at once.

        SIGTERM after SIGINT is the same request: CI systems send both.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self._interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _interrupted(self, number: int, _frame: object) -> None:
        if self._interrupts and number == signal.SIGTERM:
            return
        if self._interrupts:
            _aside(self._drive.leave)
            return
        self._interrupts += 1
        if self._terms.hand_over is not None:
            _aside(self._terms.hand_over, self._drive.leave)
            return
        asked = request("interrupt", signal.Signals(number).name)
        _aside(lambda: self._drive.ask(asked))


def _aside(*actions: Callable[[], None]) -> None:
    """They are done in a thread of their own: what a signal has interrupted may hold the very lock that they need."""

    def act() -> None:
        for action in actions:
            action()

    threading.Thread(target=act, name="interrupted").start()
