"""One place of the fleet and its way from the version it runs to the version it is assigned.

Everything is done by difference: a slot compares what it is assigned with what it runs, takes one step, and looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

import msgspec

from deployguard import clock
from deployguard.errors import WorldError
from deployguard.local import launch, running
from deployguard.local.content import Content, Part
from deployguard.local.layout import Layout, point, private
from deployguard.local.running import Running
from deployguard.model.fleet import Fleet
from deployguard.model.target import Exit, Instance
from deployguard.model.version import Version

BACK_DRAIN = 1.0
"""Seconds of drain on the way back: the requests that run are with a suspect."""
_RETRY_MOST = 5.0
_PORT_FREED = 1.0
_PORT_POLL = 0.05

logger = logging.getLogger(__name__)


class Crew(Protocol):
    """What a slot knows of the fleet around it."""

    @property
    def stable(self) -> Version:
        """The version to fall back to."""
        ...

    def may_change(self, slot: Slot) -> bool:
        """Whether it may go out of service now, as far as the batch allows."""
        ...

    def covered(self, slot: Slot) -> bool:
        """Whether another slot serves users meanwhile."""
        ...

    def changed(self) -> None:
        """Something that others depend on has changed here: routes, or who is out of service."""
        ...

    async def unrouted(self) -> None:
        """The balancer has taken the routes told last, if it takes any."""
        ...

    async def emptied(self, uid: str) -> None:
        """Returns when the balancer has nothing in flight to this process."""
        ...


class Slot:
    """A place with a name and a port; `run` keeps a process there."""

    def __init__(
        self, name: str, port: int, assigned: Version, spec: Fleet, layout: Layout, environment: dict[str, str], crew: Crew
    ) -> None:
        self.name = name
        self.assigned = assigned
        self.process: Running | None = None
        self.exits = 0
        self.exit: Exit | None = None
        self.refused = ""
        self.waiting = ""
        self.changing = False
        self.leaving = False
        self._port = port
        self._spec = spec
        self._layout = layout
        self._environment = environment
        self._crew = crew
        self._content = Content(layout.versions)
        self._restart = False
        self.closing = False
        self._failures = 0
        self._not_before = 0.0
        self._uid = f"{name}-0"
        self._wake = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Its process is among the balancer's routes."""
        return self.process is not None and self.process.serving and not self.leaving and not self.closing

    @property
    def unsettled(self) -> bool:
        """It runs, but not what it should."""
        return self.process is not None and (self._restart or self.process.version != self.assigned)

    def assign(self, version: Version, *, restart: bool = False) -> None:
        """It is on its way to `version`; counts of exits and refusals begin anew when that is another one."""
        if version != self.assigned:
            self.assigned = version
            self.exits, self.exit, self.refused, self.waiting = 0, None, "", ""
            self._failures, self._not_before = 0, 0.0
        if restart:
            self._restart = self.process is not None
            self.refused, self._not_before = "", 0.0
        self.touch()

    def touch(self) -> None:
        """It looks again at what is to be done."""
        self._wake.set()

    async def step(self) -> None:
        """What could be done for now has been done; returns after the next reason to look again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause()):
                await self._wake.wait()
        self._wake.clear()
        if not self.closing:
            await self._settle()

    async def close(self) -> None:
        """Nothing runs here any more, and nothing is started again."""
        self.closing = True
        if self.process is not None:
            await self.process.end()

    def view(self) -> Instance:
        """The slot as others see it now."""
        place = Instance(
            self.name,
            self._uid,
            self.assigned,
            None,
            False,
            address=launch.address(launch.reach(self._spec.host), self._port),
            exits=self.exits,
            exit=self.exit,
            refused=self.refused,
            waiting=self.waiting,
        )
        process = self.process
        if process is None or process.ended.is_set():
            return place
        return msgspec.structs.replace(
            place,
            uid=process.uid,
            loaded=process.loaded,
            ready=process.ready,
            started=process.started,
            ready_since=process.ready_since,
        )

    def _pause(self) -> float | None:
        if self.process is None and not self.refused:
            return max(0.0, self._not_before - clock.monotonic())
        return None

    async def _settle(self) -> None:
        process = self.process
        if process is not None and process.ended.is_set():
            self._note_exit(process)
            self.process = process = None
            self._crew.changed()
        if process is None:
            if not self.refused and clock.monotonic() >= self._not_before:
                await self._start()
        elif self.unsettled:
            if self._crew.may_change(self):
                self.changing = True
                await self._change(process)
        elif self.changing and self.serving:
            self.changing = False
        self._crew.changed()

    async def _change(self, process: Running) -> None:
        if self._by_reload(process) and await self._reload(process):
            return
        await self._leave(process)
        if process.ended.is_set() or not self.unsettled:
            self.leaving = False
            self.touch()
            return
        await process.end()
        self._unrecord()
        self.process, self.leaving, self._restart = None, False, False
        if not self.closing:
            await self._start()

    def _by_reload(self, process: Running) -> bool:
        return self._spec.reload is not None and not self._restart and process.ready and process.version.release == self.assigned.release

    async def _reload(self, process: Running) -> bool:
        """Whether the process says, in time, that it has loaded the new configuration."""
        assert self._spec.reload is not None
        wanted = self.assigned
        self._link(wanted)
        # Out of the routes meanwhile, so that no answer is counted for the wrong version; unless nobody else serves.
        self.leaving = self._crew.covered(self)
        self._crew.changed()
        process.reload(wanted)
        deadline = clock.monotonic() + self._spec.reload.within.total_seconds()
        while process.loaded != wanted and not process.ended.is_set() and self.assigned == wanted and clock.monotonic() < deadline:
            await self._woken(deadline)
        self.leaving = False
        self.touch()
        if process.loaded == wanted:
            process.version = wanted
        elif not process.ended.is_set():
            # Also when it was meanwhile assigned another version: nobody knows which configuration it has half read.
            logger.warning("instance %s has not loaded configuration %s and is restarted", process.uid, wanted.config)
            self._restart = True
            return False
        return True

    async def _leave(self, process: Running) -> None:
        """Nothing new is sent to it, and what it was doing is done, or had its time."""
        was_serving = self.serving
        self.leaving = True
        self._crew.changed()
        if not was_serving:
            return
        await self._crew.unrouted()
        seconds = self._spec.stop.drain.total_seconds()
        if process.version != self._crew.stable and self.assigned == self._crew.stable:
            seconds = min(seconds, BACK_DRAIN)
        deadline = clock.monotonic() + seconds
        emptied = asyncio.create_task(self._crew.emptied(process.uid))
        emptied.add_done_callback(lambda _: self.touch())
        try:
            while not emptied.done() and self.unsettled and not process.ended.is_set() and clock.monotonic() < deadline:
                await self._woken(deadline)
        finally:
            emptied.cancel()

    async def _woken(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - clock.monotonic())):
                await self._wake.wait()
        self._wake.clear()

    async def _start(self) -> None:
        version = self.assigned
        self._restart = False
        self.refused = self._missing(version)
        if self.refused:
            return
        self.waiting = await self._port_fault()
        if not self.waiting:
            try:
                self._link(version)
            except WorldError as error:
                self.waiting = error.message
        if self.waiting:
            self._later(_RETRY_MOST)
            return
        how = launch.prepare(self._spec, self._layout, self._environment, self.name, self._port, version)
        self.refused = launch.program_fault(how.command[0], how.directory, how.environment.get("PATH", ""))
        if self.refused:
            return
        try:
            process = await running.start(
                self.name, version, how, self._spec, self._port, self._layout.log(self.name), self._layout.process(self.name)
            )
        except OSError as error:
            self._not_started(how.command[0], error)
            return
        self.process = process
        self._uid = process.uid
        process.watch(self.touch)

    async def _port_fault(self) -> str:
        """Why the port cannot be had; what an ended process group still holds is let go within moments."""
        deadline = clock.monotonic() + _PORT_FREED
        while (fault := launch.port_fault(self._spec.host, self._port)) and clock.monotonic() < deadline:
            await asyncio.sleep(_PORT_POLL)
        return fault

    def _not_started(self, program: str, error: OSError) -> None:
        reason = f"could not start {program}: {error.strerror or error}"
        if launch.names_version(error):
            self.refused = reason
        else:
            self.waiting = reason
            self._later(_RETRY_MOST)

    def _missing(self, version: Version) -> str:
        """Which part of the version the fleet holds no copy of, as a reason to refuse it; empty when it is whole."""
        for part, digest in _parts(version):
            if not self._content.holds(part, digest):
                return f"the fleet holds no copy of the {part} {digest}"
        return ""

    def _link(self, version: Version) -> None:
        """The links of this slot lead to `version`. Raises `WorldError` when the disk does not allow it."""
        private(self._layout.data(self.name))
        for part, digest in _parts(version):
            link = self._layout.current(self.name, part)
            private(link.parent)
            try:
                point(link, self._content.path(part, digest))
            except OSError as error:
                raise WorldError(f"could not switch {link}: {error.strerror}", hint="is the disk full?") from error

    def _note_exit(self, process: Running) -> None:
        self._unrecord()
        self.leaving = False
        # What it was told last counts, also when it died of reading it; what it ran while it waited for its turn does not.
        if process.ending or process.expected != self.assigned:
            return
        self.exits += 1
        self.exit = process.exit()
        most = self._spec.restart.most.total_seconds()
        # Who lived longer than the longest wait has earned a quick restart again.
        self._failures = 1 if self.exit.uptime > most else self._failures + 1
        logger.warning("instance %s ended by itself with %d after %.1f s", process.uid, process.code, self.exit.uptime)
        self._later(most)

    def _unrecord(self) -> None:
        # On a disk that has become read-only the record stays; the start time in it tells its process from any later one.
        with contextlib.suppress(OSError):
            self._layout.process(self.name).unlink(missing_ok=True)

    def _later(self, most: float) -> None:
        first = self._spec.restart.first.total_seconds()
        self._not_before = clock.monotonic() + min(most, first * 2.0 ** min(30, max(0, self._failures - 1)))


def _parts(version: Version) -> tuple[tuple[Part, str], ...]:
    return ("release", version.release), ("config", version.config)
