"""A balancer as a process of its own, and raw sockets on both sides of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from deployguard.local.balancer import protocol as p

GET = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MEGABYTE = 1 << 20


class Wire:
    """One end of a connection; every read has a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.rest = sock, b""
        sock.settimeout(20)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _more(self) -> bool:
        data = self.sock.recv(MEGABYTE)
        self.rest += data
        return bool(data)

    def until(self, end: bytes) -> bytes:
        while end not in self.rest:
            if not self._more():
                raise EOFError(self.rest)
        got, _, self.rest = self.rest.partition(end)
        return got + end

    def head(self) -> bytes:
        return self.until(b"\r\n\r\n")

    def take(self, size: int) -> bytes:
        while len(self.rest) < size:
            if not self._more():
                raise EOFError(self.rest)
        got, self.rest = self.rest[:size], self.rest[size:]
        return got

    def all(self) -> bytes:
        while self._more():
            pass
        return self.rest

    def answer(self, data: bytes = GET) -> bytes:
        """The head and the body, whose length the head gives, of the answer to `data`."""
        self.send(data)
        head = self.head()
        return head + self.take(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))


Script = Callable[[Wire, "Backend"], None]


def steady(answer: bytes = OK) -> Script:
    """Gives the same answer to every request on every connection."""

    def script(wire: Wire, backend: Backend) -> None:
        while True:
            backend.heads.append(wire.head())
            wire.send(answer)

    return script


class Backend:
    """A server whose every connection runs `script` in a thread of its own."""

    def __init__(self, script: Script, arm: str = "stable", family: socket.AddressFamily = socket.AF_INET) -> None:
        self.script, self.arm, self.heads, self.connections = script, arm, list[bytes](), 0
        self.listening = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
        self.port = self.listening.getsockname()[1]
        self.uid = f"{arm}-{self.port}"
        host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
        self.route = p.Route(str(self.port), self.uid, f"{host}:{self.port}", arm, f"sha256:{arm}")
        self.open = [self.listening]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError, EOFError):
            self.script(Wire(sock), self)

    def close(self) -> None:
        for sock in self.open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class Rig:
    """A running balancer and what is said to it."""

    def __init__(self, stack: ExitStack, listeners: dict[str, str] | None = None, **limits: float) -> None:
        self.stack, self.n = stack, 0
        self.process = subprocess.Popen([sys.executable, "-m", "deployguard.local.balancer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(self.end)
        wanted = listeners or dict.fromkeys(p.LISTENERS, "127.0.0.1:0")
        self.write(json.dumps({"op": "listen", "listeners": wanted, "limits": limits}).encode() + b"\n")
        self.first = self.hear()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def hear(self) -> p.AnyEvent:
        assert self.process.stdout is not None
        return p.read_event(self.process.stdout.readline())

    def backend(self, script: Script | None = None, arm: str = "stable", family: socket.AddressFamily = socket.AF_INET) -> Backend:
        backend = Backend(script or steady(), arm, family)
        self.stack.callback(backend.close)
        return backend

    def route(self, *backends: Backend) -> None:
        self.n += 1
        self.write(p.line_of(p.RouteCommand(self.n, tuple(one.route for one in backends))))
        assert self.hear() == p.RoutedEvent(self.n)

    def serve(self, *scripts: Script | None) -> list[Backend]:
        backends = [self.backend(script) for script in scripts or (None,)]
        self.route(*backends)
        return backends

    def counts(self) -> p.CountsEvent:
        self.n += 1
        self.write(p.line_of(p.CountsCommand(self.n)))
        event = self.hear()
        assert isinstance(event, p.CountsEvent)
        assert event.n == self.n
        return event

    def of(self, backend: Backend) -> tuple[int, int]:
        tally = self.counts().instances[backend.uid]
        return tally.requests, tally.failed

    def client(self, name: str = "all") -> Wire:
        assert isinstance(self.first, p.ListeningEvent)
        host, _, port = self.first.listeners[name].rpartition(":")
        return Wire(self.stack.enter_context(socket.create_connection((host.strip("[]"), int(port)))))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(listeners: dict[str, str] | None = None, **limits: float) -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack, listeners, **limits)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with running() as one:
        yield one
