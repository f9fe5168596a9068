"""The listeners: each lets in as many clients as it may serve, and the others wait in the kernel's queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Collection

from deployguard.errors import WorldError
from deployguard.local.balancer.client import Client
from deployguard.local.balancer.protocol import Limits
from deployguard.local.balancer.routes import Instance, Routes, fact_of, split_address

_BACKLOG = 1024
_BURST = 64
_PAUSE = 0.1
_MOMENT = 1.0
# What a client has not taken yet waits in the kernel: at most this much, so that a thousand slow ones do not fill the memory.
_SEND_BUFFER = 1 << 18

logger = logging.getLogger(__name__)


class Door:
    """One listener, open to every instance or to those of one arm."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, routes: Routes, arm: str | None, limits: Limits, sockets: list[socket.socket]
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.clients: set[Client] = set()
        self._routes = routes
        self._arm = arm
        self._sockets = sockets
        self.crowded = False  # someone waits to be let in
        self._coming: set[asyncio.Task[None]] = set()
        self._inside = 0
        self._open = False

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def open(self) -> None:
        """Clients are let in."""
        if not self._open and self._sockets:
            self._open, self.crowded = True, False
            for one in self._sockets:
                self.loop.add_reader(one, self._accept, one)

    def _shut(self) -> None:
        """Clients wait."""
        if self._open:
            self._open = False
            for one in self._sockets:
                self.loop.remove_reader(one)

    def close(self) -> None:
        """Nobody is served any more."""
        self._shut()
        for one in self._sockets:
            one.close()
        self._sockets = []
        for client in list(self.clients):
            client.drop()

    def choose(self, arm: str | None, without: Collection[str] = ()) -> Instance | None:
        """The instance that gets the next request that came in here."""
        return self._routes.choose(arm or self._arm, without)

    def release(self, instance: Instance) -> None:
        """One request fewer is in flight there."""
        self._routes.release(instance)

    def enter(self, client: Client) -> None:
        """The client is served."""
        self.clients.add(client)

    def leave(self, client: Client) -> None:
        """The client has gone, and another one may come in."""
        self.clients.discard(client)
        self._inside -= 1
        self.open()

    def check(self, now: float) -> None:
        """Whatever has stood still for too long in here is over."""
        for client in list(self.clients):
            client.check(now)
        if self.crowded:
            self._make_room()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BURST):
            if self._inside >= self.limits.connections:
                self._shut()
                self.crowded = True
                self._make_room()
                return
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of file descriptors or memory: trying again at once would only spin.
                logger.error("could not accept a client: %s", error)
                self._shut()
                self.loop.call_later(_PAUSE, self.open)
                return
            accepted.setblocking(False)
            self._inside += 1
            task = self.loop.create_task(self._enter(accepted))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _enter(self, accepted: socket.socket) -> None:
        client = Client(self)
        try:
            await self.loop.connect_accepted_socket(lambda: client, accepted)
        except OSError:
            accepted.close()
            self.leave(client)

    def _make_room(self) -> None:
        """The client who has asked for nothing for longest goes, unless that is but a moment; then the next to leave makes room."""
        waited = [(since, id(client), client) for client in self.clients if (since := client.idle_since()) is not None]
        if waited:
            since, _, client = min(waited)
            if self.loop.time() - since >= _MOMENT:
                client.drop()


def listen(address: str) -> list[socket.socket]:
    """Sockets that listen at every address that `address` stands for, all on the same port. Raises `WorldError`."""
    host, port = split_address(address)
    sockets: list[socket.socket] = []
    try:
        found = dict.fromkeys((family, place) for family, *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        for family, place in found:
            one = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((place[0], port, *place[2:]))
            one.listen(_BACKLOG)
            port = one.getsockname()[1]
    except OSError as error:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.close()
        raise WorldError(f"could not listen on {address}: {fact_of(error)}", hint="is another program listening there?") from error
    return sockets
