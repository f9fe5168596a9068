"""The balancer as the supervisor sees it: a process that is told the routes and is started again when it dies.

What it has counted lives only in it, so it is asked every second, and what a dead one had counted is added to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

import msgspec

from deployguard.errors import UserError, WorldError
from deployguard.local import logfile
from deployguard.local.balancer import protocol
from deployguard.local.balancer.protocol import Command, InstanceTally, Limits, Route, Tally
from deployguard.local.control import Counted
from deployguard.local.layout import Layout, write_durably
from deployguard.local.processes import MARK, identify
from deployguard.model.base import encode
from deployguard.model.target import Served

_ANSWER = 10.0
_COUNTS_ANSWER = 1.0
_MOST_UNANSWERED = 10
_RESTART_PAUSE = 0.1
_END_GRACE = 2.0
_LINE_LIMIT = 1 << 24
_KNOWN_UIDS = 2000

logger = logging.getLogger(__name__)


class Balancer:
    """One balancer at a time, always with the same listeners and the routes told last."""

    def __init__(self, layout: Layout, listeners: dict[str, str], limits: Limits, served: dict[str, Served]) -> None:
        self.listeners = dict(listeners)
        self._layout = layout
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._routes: tuple[Route, ...] = ()
        self._sent = 0
        self._routed = 0
        self._news = asyncio.Event()
        self._flying: dict[str, asyncio.Event] = {}
        self._asked = 0
        self._counted = 0
        self._unanswered = 0
        self._before = dict(served)
        self._before_uids: dict[str, Counted] = {}
        self._tallies: dict[str, Tally] = {}
        self._tallies_uids: dict[str, InstanceTally] = {}

    async def open(self) -> None:
        """A balancer listens. Raises `UserError` when an address cannot be had."""
        descriptor = logfile.open_log(self._layout.supervisor_log)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "deployguard.local.balancer",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                start_new_session=True,
                limit=_LINE_LIMIT,
                env={**os.environ, MARK: str(self._layout.root)},
            )
        except OSError as error:
            raise WorldError(f"could not start the balancer: {error}", hint=f"see {self._layout.supervisor_log}") from error
        finally:
            os.close(descriptor)
        write_durably(self._layout.balancer, encode(identify(self._process.pid)))
        self._say(protocol.ListenCommand(self.listeners, self._limits))
        try:
            async with asyncio.timeout(_ANSWER):
                event = await self._hear()
        except TimeoutError:
            event = None
        if not isinstance(event, protocol.ListeningEvent):
            await self.close()
            text = event.text if isinstance(event, protocol.FailedEvent) else "it ended without saying why"
            raise UserError(
                f"the balancer cannot listen: {text}", hint="end what holds the address, or give the fleet another under `listen`"
            )
        self.listeners = dict(event.listeners)
        self._send_routes()

    async def step(self) -> None:
        """The balancer that ran has ended, and another one runs in its place."""
        process = self._process
        if process is not None:
            while (event := await self._hear()) is not None:
                self._take(event)
            # A pipe that was closed tells nothing about the process: what cannot be told routes any more must go.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            logger.error("the balancer ended with %d and is started again", await process.wait())
        self._add_up()
        self._process = None
        await asyncio.sleep(_RESTART_PAUSE)
        try:
            await self.open()
        except (UserError, WorldError) as error:
            logger.error("%s", error.message)
            await asyncio.sleep(1)

    def route(self, routes: tuple[Route, ...]) -> None:
        """Exactly these are sent requests from now on, whichever balancer runs."""
        if routes == self._routes:
            return
        gone = {route.uid for route in self._routes} - {route.uid for route in routes}
        for uid in gone:
            self._flying[uid] = asyncio.Event()
        for route in routes:
            self._flying.pop(route.uid, None)
        self._routes = routes
        self._send_routes()

    async def emptied(self, uid: str) -> None:
        """The process `uid`, which left the routes, has nothing in flight."""
        event = self._flying.get(uid)
        if event is not None:
            await event.wait()

    async def confirmed(self, seconds: float) -> None:
        """The balancer has taken the routes told last, or `seconds` have passed."""
        wanted = self._sent
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._routed < wanted and self._process is not None:
                    self._news.clear()
                    await self._news.wait()

    async def refresh(self) -> None:
        """The counts are those of now, or, when the balancer does not answer, the last ones known."""
        self._asked += 1
        wanted = self._asked
        self._say(protocol.CountsCommand(wanted))
        try:
            async with asyncio.timeout(_COUNTS_ANSWER):
                while self._counted < wanted and self._process is not None:
                    self._news.clear()
                    await self._news.wait()
            self._unanswered = 0
        except TimeoutError:
            self._unanswered += 1
        if self._unanswered >= _MOST_UNANSWERED and self._process is not None:
            logger.error("the balancer has not answered %d times and is killed", self._unanswered)
            self._unanswered = 0
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def served(self) -> dict[str, Served]:
        """User requests by version digest, over all balancers."""
        total = dict(self._before)
        for version, tally in self._tallies.items():
            past = total.get(version, Served())
            total[version] = Served(past.requests + tally.requests, past.failed + tally.failed)
        return total

    def counts(self) -> dict[str, Counted]:
        """The same by process, over all balancers of this supervisor."""
        total = dict(self._before_uids)
        for uid, tally in self._tallies_uids.items():
            past = total.get(uid, Counted())
            total[uid] = Counted(past.requests + tally.requests, past.failed + tally.failed, tally.in_flight, tally.arm, tally.version)
        return total

    async def close(self) -> None:
        """No balancer runs."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_END_GRACE):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._layout.balancer.unlink(missing_ok=True)

    def _add_up(self) -> None:
        """What the dead one had counted is kept, and nobody waits for it any more."""
        self._before = self.served()
        self._before_uids = dict(list(self.counts().items())[-_KNOWN_UIDS:])
        self._tallies, self._tallies_uids = {}, {}
        for event in self._flying.values():
            event.set()
        self._flying.clear()
        self._news.set()

    def _take(self, event: protocol.AnyEvent) -> None:
        match event:
            case protocol.RoutedEvent(n):
                self._routed = max(self._routed, n)
            case protocol.DrainedEvent(uid):
                if (waited := self._flying.pop(uid, None)) is not None:
                    waited.set()
            case protocol.CountsEvent(n, instances, versions):
                self._counted = max(self._counted, n)
                self._tallies, self._tallies_uids = versions, instances
            case protocol.FailedEvent(text):
                logger.error("the balancer gives up: %s", text)
            case protocol.ListeningEvent():
                logger.warning("the balancer listens again without being asked")
        self._news.set()

    def _send_routes(self) -> None:
        self._sent += 1
        self._say(protocol.RouteCommand(self._sent, self._routes))

    def _say(self, message: Command) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(protocol.line_of(message))

    async def _hear(self) -> protocol.AnyEvent | None:
        """The next thing the balancer says; None when it has ended or cannot be understood."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            return protocol.read_event(line) if line else None
        except (ValueError, msgspec.DecodeError):
            logger.exception("the balancer said what cannot be understood")
            return None
