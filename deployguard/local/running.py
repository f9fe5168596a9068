"""One started process of a slot: asked whether it is ready and what it has loaded, and ended as a group."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path

from deployguard import clock
from deployguard.errors import WorldError
from deployguard.local import asking, logfile
from deployguard.local.asking import Answered
from deployguard.local.launch import Launch, reach
from deployguard.local.layout import write_durably
from deployguard.local.processes import identify, signal_group
from deployguard.model.base import encode
from deployguard.model.fleet import Fleet
from deployguard.model.target import Exit
from deployguard.model.version import Version

_QUICK = 0.05
"""Seconds between questions to an instance that has not been ready yet; grows up to the wanted interval."""

logger = logging.getLogger(__name__)


class Running:
    """A process and what it has shown so far. `on_change` is called whenever that changes."""

    def __init__(
        self, slot: str, version: Version, process: asyncio.subprocess.Process, spec: Fleet, port: int, log: Path, since: int
    ) -> None:
        self.uid = f"{slot}-{secrets.token_hex(4)}"
        self.version = version
        self.expected = version
        self.pid = process.pid
        self.started = clock.now()
        self.listening = False
        self.ready = False
        self.ready_since: dt.datetime | None = None
        self.was_ready = False
        self.loaded: Version | None = None
        self.ended = asyncio.Event()
        self.code = 0
        self.ending = False
        self._on_change: Callable[[], None] = lambda: None
        self._process = process
        self._spec = spec
        self._host = reach(spec.host)
        self._port = port
        self._log = log
        self._since = since
        self._began = clock.monotonic()
        self._lasted = 0.0
        self._misses = 0
        self._silent = 0
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, on_change: Callable[[], None]) -> None:
        """It is being asked from now on, until it ends."""
        self._on_change = on_change
        self._tasks = [asyncio.create_task(self._wait()), asyncio.create_task(self._ask())]

    @property
    def serving(self) -> bool:
        """It is ready, and says that it runs what it was started or reloaded with."""
        return self.ready and self.loaded == self.version and not self.ended.is_set()

    def exit(self) -> Exit:
        """How it ended by itself."""
        return Exit(clock.now(), self.code, round(self._lasted, 3), self.was_ready, logfile.tail(self._log, self._since))

    def reload(self, version: Version) -> None:
        """It has been told to read its configuration again, and is asked often until it says that it runs `version`."""
        self.expected = version
        self._hurry.set()
        with contextlib.suppress(ProcessLookupError):
            assert self._spec.reload is not None
            self._process.send_signal(getattr(signal, f"SIG{self._spec.reload.signal}"))

    async def end(self) -> None:
        """Neither it nor anything in its group runs any more."""
        self.ending = True
        if not self.ended.is_set():
            signal_group(self.pid, getattr(signal, f"SIG{self._spec.stop.signal}"))
            try:
                async with asyncio.timeout(self._spec.stop.kill_after.total_seconds()):
                    await self.ended.wait()
            except TimeoutError:
                logger.warning("instance %s does not end by itself and is killed", self.uid)
                signal_group(self.pid, signal.SIGKILL)
                await self.ended.wait()

    async def _wait(self) -> None:
        self.code = await self._process.wait()
        self._lasted = clock.monotonic() - self._began
        # What the leader left behind in its group still holds the port; the number cannot have been given away while it lives.
        signal_group(self.pid, signal.SIGKILL)
        self.ready = False
        self.ended.set()
        self._tasks[1].cancel()
        self._on_change()

    async def _ask(self) -> None:
        every = self._spec.ready.every.total_seconds()
        pause = min(_QUICK, every)
        while not self.ended.is_set():
            before = (self.ready, self.listening, self.loaded)
            await self._look()
            if (self.ready, self.listening, self.loaded) != before:
                self._on_change()
            settled = self.ready and self.loaded == self.expected
            pause = every if settled else min(every, pause * 1.5)
            if self._hurry.is_set():
                pause = min(_QUICK, every)
                self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()

    async def _look(self) -> None:
        ready = self._spec.ready
        answered = await asking.ask(self._host, self._port, ready.get, ready.timeout.total_seconds())
        if self.ended.is_set():
            return
        if answered is Answered.READY:
            self._misses = 0
            if not self.ready:
                self.ready, self.was_ready, self.ready_since = True, True, clock.now()
        else:
            self._misses += 1
            if self._misses >= ready.unready_after:
                self.ready, self.ready_since = False, None
        self.listening = answered is not Answered.CLOSED
        if self.listening:
            await self._read_back()

    async def _read_back(self) -> None:
        """`loaded` is what it says; without a place to ask, what it was started with."""
        where = self._spec.loaded
        if where is None:
            self.loaded = self.version
            return
        try:
            said = await asking.read_json(self._host, self._port, where.get, self._spec.ready.timeout.total_seconds())
            release = _digest(asking.pick(said, where.release)) if where.release else self.version.release
            config = _digest(asking.pick(said, where.config)) if where.config else self.version.config
        except (OSError, ValueError, TimeoutError):
            self._silent += 1
            if self._silent >= self._spec.ready.unready_after:
                self.loaded = None
            return
        self._silent = 0
        self.loaded = Version(release, config) if release and config else None


def _digest(said: object) -> str:
    """A digest in its full form, however it was said; empty when nothing was said."""
    if not isinstance(said, str) or not said:
        return ""
    return said if said.startswith("sha256:") else f"sha256:{said}"


async def start(slot: str, version: Version, launch: Launch, spec: Fleet, port: int, log: Path, record: Path) -> Running:
    """The process runs in a session of its own and is recorded durably. Raises OSError when it cannot be started."""
    since = logfile.size(log)
    descriptor = logfile.open_log(log)
    try:
        process = await asyncio.create_subprocess_exec(
            *launch.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=asyncio.subprocess.STDOUT,
            cwd=launch.directory,
            env=launch.environment,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    try:
        write_durably(record, encode(identify(process.pid)))
    except WorldError as error:
        # Not recorded, but still to be found by the mark in its environment.
        logger.error("%s", error.message)
    return Running(slot, version, process, spec, port, log, since)
