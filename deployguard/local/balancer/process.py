"""The balancer's process: does what the supervisor says on stdin, says what happens on stdout, and ends with either of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import stat
import sys

import msgspec

from deployguard.errors import WorldError
from deployguard.local.balancer.doors import Door, listen
from deployguard.local.balancer.protocol import (
    LISTENERS,
    Command,
    CountsCommand,
    DrainedEvent,
    Event,
    FailedEvent,
    Limits,
    ListenCommand,
    ListeningEvent,
    RouteCommand,
    RoutedEvent,
    line_of,
    read_command,
)
from deployguard.local.balancer.routes import Routes

_LINE_LIMIT = 1 << 24
_STDIN, _STDOUT, _STDERR = 0, 1, 2

logger = logging.getLogger(__name__)


class Control(asyncio.Protocol):
    """Both pipes to the supervisor, and everything that it can command."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[int] = loop.create_future()
        self._loop = loop
        self._out: asyncio.WriteTransport | None = None
        self._rest = b""
        self._routes = Routes(lambda uid: self.say(DrainedEvent(uid)))
        self._doors: dict[str, Door] = {}
        self._limits = Limits()

    def speak_to(self, out: asyncio.WriteTransport) -> None:
        """What is said goes there."""
        self._out = out

    def say(self, event: Event) -> None:
        """The supervisor will read the event."""
        if self._out is not None and not self._out.is_closing():
            self._out.write(line_of(event))

    def end(self, code: int = 0) -> None:
        """The process ends with `code`."""
        if not self.ended.done():
            self.ended.set_result(code)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self.ended.done():
                return
            try:
                self._obey(read_command(line))
            except (WorldError, msgspec.DecodeError, ValueError) as error:
                # A route that was not understood would leave requests going to the wrong place: the supervisor starts a new one.
                logger.error("%s", error)
                self.say(FailedEvent(str(error)))
                self.end(1)
        if len(self._rest) > _LINE_LIMIT:
            self.end(1)

    def eof_received(self) -> None:
        self.end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.end()

    def _obey(self, command: Command) -> None:
        if isinstance(command, ListenCommand):
            self._listen(command)
        elif isinstance(command, RouteCommand):
            gone = self._routes.replace(command.instances)
            self.say(RoutedEvent(command.n))
            for instance in gone:
                if not instance.in_flight:
                    self.say(DrainedEvent(instance.uid))
        elif isinstance(command, CountsCommand):
            self.say(self._routes.counts(command.n))

    def _listen(self, command: ListenCommand) -> None:
        if self._doors:
            raise ValueError("could not listen: this balancer listens already")
        unknown = set(command.listeners) - set(LISTENERS)
        if unknown:
            raise ValueError(f"could not listen: there is no listener {', '.join(sorted(unknown))}")
        self._limits = limits = command.limits
        for name, address in command.listeners.items():
            arm = None if name == "all" else name
            self._doors[name] = Door(self._loop, self._routes, arm, limits, listen(address))
        for door in self._doors.values():
            door.open()
        self.say(ListeningEvent({name: door.address for name, door in self._doors.items()}))
        self._check()

    def _check(self) -> None:
        """Everything that has stood still for too long is over; looked at again soon."""
        now = self._loop.time()
        for door in self._doors.values():
            door.check(now)
        for spare in self._routes.spares():
            if now - spare.spare_since >= self._limits.idle_timeout:
                spare.close()
        soon = min(1.0, self._limits.response_timeout / 8, self._limits.idle_timeout / 8)
        self._loop.call_later(max(0.01, soon), self._check)

    def close(self) -> None:
        """Nobody is served any more."""
        for door in self._doors.values():
            door.close()


async def _serve(out: int) -> int:
    loop = asyncio.get_running_loop()
    control = Control(loop)
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGTERM, control.end)
    transport, _ = await loop.connect_write_pipe(lambda: _Out(control), os.fdopen(out, "wb", buffering=0))
    control.speak_to(transport)
    await loop.connect_read_pipe(lambda: control, os.fdopen(_STDIN, "rb", buffering=0, closefd=False))
    code = await control.ended
    control.close()
    transport.close()
    # One more turn of the loop, so that connections are closed and the last line is written.
    await asyncio.sleep(0)
    return code


class _Out(asyncio.Protocol):
    """Notices that nobody reads any more what the balancer says."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._control.end()


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _raise_file_limit() -> None:
    """As many connections may be open as the machine allows: each request in flight needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Runs until it is told to end; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s balancer %(levelname)s %(message)s")
    # Only the protocol may reach the supervisor's pipe: whatever else is printed goes to the log.
    out = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    if not (_is_pipe(_STDIN) and _is_pipe(out)):
        logger.error("the supervisor starts this process: its stdin and stdout must be pipes")
        return 2
    _raise_file_limit()
    return asyncio.run(_serve(out))
