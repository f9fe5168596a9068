"""A small web shop with flaws that can be switched on: the service that the demo of deployguard guards.

One thread and one event loop, so that twenty copies idle at no CPU. A release is a directory with this file, `pages.py` and
`release.json`; a config is a JSON file. Either may name flaws (`FLAWS` in `pages.py`).
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

# A release never changes: a `__pycache__` inside it would.
sys.dont_write_bytecode = True

from pages import OPERATIONS, ROUTES, Config, Request, Response, Shop, check_flaws  # noqa: E402

HEAD_LIMIT, BODY_LIMIT, UNREAD_LIMIT, LEAK_LIMIT = 16_384, 65_536, 1 << 20, 1 << 30
DRAIN_S = 10.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Refused(Exception):
    """A request that cannot be read; the connection ends with this status."""


def parse(buffer: bytearray) -> Request | None:
    """The first whole request, taken out of `buffer`; None while more must come. Raises Refused with a status."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0 or end > HEAD_LIMIT:
        if len(buffer) > HEAD_LIMIT:
            raise Refused(431)
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise Refused(400)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or (name.lower() == "content-length" and "content-length" in headers):
            raise Refused(400)
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise Refused(411)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused(400)
    if len(length) > 9 or int(length) > BODY_LIMIT:
        raise Refused(413)
    if len(buffer) < end + 4 + int(length):
        return None
    body = bytes(buffer[end + 4 : end + 4 + int(length)])
    del buffer[: end + 4 + int(length)]
    said = headers.get("connection", "").lower()
    keep = "close" not in said and (words[2] != "HTTP/1.0" or "keep-alive" in said)
    return Request(words[0], words[1].partition("?")[0], headers, body, keep)


class Connection:
    """One client; its requests are answered one after the other."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server, self.sock = server, sock
        self.incoming, self.outgoing, self.busy, self.ending = bytearray(), bytearray(), False, False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connections.add(self)
        server.selector.register(sock, selectors.EVENT_READ, self.ready)

    def ready(self, events: int) -> None:
        """Everything that can be done without waiting is done."""
        try:
            if events & selectors.EVENT_READ:
                data = self.sock.recv(65536)
                self.incoming += data
                # Somebody who sends on while an answer is due, or does not read, is cut off, or the buffers would grow for ever.
                if not data or (self.busy and len(self.incoming) > HEAD_LIMIT + BODY_LIMIT) or len(self.outgoing) > UNREAD_LIMIT:
                    self.close()
                    return
                self.take()
            if self.outgoing:
                del self.outgoing[: self.sock.send(self.outgoing)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
        self.settle()

    def settle(self) -> None:
        """The connection is closed when it is done, and waits for room to send only while there is something to send."""
        idle = not self.busy and not self.outgoing
        if idle and (self.ending or (self.server.stopping and not self.incoming)):
            self.close()
        elif self in self.server.connections:
            self.server.selector.modify(self.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.outgoing else 0), self.ready)

    def take(self) -> None:
        """Requests that have arrived are served, until one has to wait."""
        try:
            while not self.busy and not self.ending and (request := parse(self.incoming)):
                self.busy = True
                self.server.serve(self, request)
        except Refused as refused:
            self.send(Response(refused.args[0], "", "text/plain"), Request("GET", "", {}, b"", False))

    def send(self, response: Response, request: Request) -> None:
        """The answer is on its way."""
        body = response.body.encode()
        self.busy, self.ending = False, not request.keep or self.server.stopping
        head = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}", f"Content-Type: {response.kind}"]
        head += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in response.headers)]
        head += [f"Connection: {'close' if self.ending else 'keep-alive'}", "\r\n"]
        self.outgoing += "\r\n".join(head).encode() + (b"" if request.method == "HEAD" else body)

    def close(self) -> None:
        """The client is gone."""
        if self in self.server.connections:
            self.server.connections.remove(self)
            self.server.selector.unregister(self.sock)
            self.sock.close()


class Server:
    """The event loop: sockets, timers and signals."""

    def __init__(self, shop: Shop, listener: socket.socket, load: Callable[[], Config]) -> None:
        self.shop, self.listener, self.load = shop, listener, load
        self.selector, self.connections = selectors.DefaultSelector(), set[Connection]()
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence, self.stopping, self.leaked = 0, False, list[bytes]()
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.wake, told = socket.socketpair()
        self.wake.setblocking(False)
        told.setblocking(False)
        self.told = told
        self.selector.register(self.wake, selectors.EVENT_READ, self.signalled)
        signal.set_wakeup_fd(told.fileno())
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self.arm()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.sequence, call))

    def run(self) -> None:
        """Serve until a signal has ended it and every running request is answered."""
        while not self.stopping or self.connections:
            wait = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, events in self.selector.select(wait):
                key.data(events)
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()

    def accept(self, _: int) -> None:
        try:
            while True:
                Connection(self, self.listener.accept()[0])
        except OSError:
            return

    def signalled(self, _: int) -> None:
        """Signals that have come are obeyed."""
        for number in self.wake.recv(64):
            if number == signal.SIGHUP:
                self.reload()
            elif not self.stopping:
                self.accept(0)
                self.stopping = True
                self.selector.unregister(self.listener)
                self.listener.close()
                self.later(DRAIN_S, lambda: os._exit(0))
                # What was sent before the signal is still answered: one look at every connection, then the idle ones go.
                for connection in list(self.connections):
                    connection.ready(selectors.EVENT_READ)

    def reload(self) -> None:
        """The new config serves if it can be used; otherwise the old one goes on, and /version says so."""
        if self.shop.config.flaws.get("ignore_reload"):
            return
        try:
            self.shop.use(self.load())
        except (OSError, ValueError) as error:
            self.shop.metrics.reloads["failure"] += 1
            print(f"shop: the new config was not taken: {error}", file=sys.stderr, flush=True)
            return
        self.shop.metrics.reloads["success"] += 1
        print(f"shop: loaded {self.shop.config.digest}", file=sys.stderr, flush=True)
        self.arm()

    def arm(self) -> None:
        """The timed flaws of the config that serves now are set; those of older ones no longer act."""
        config, self.leaked = self.shop.config, []
        if config.flaws.get("crash_at_start"):
            crash()
        if "crash_after_s" in config.flaws:
            self.later(config.flaws["crash_after_s"], lambda: crash() if self.shop.config is config else None)
        if "memory_leak_mb_s" in config.flaws:
            self.leak(config)

    def leak(self, config: Config) -> None:
        size = int(config.flaws["memory_leak_mb_s"] * 1e6 / 4)
        if self.shop.config is config and sum(map(len, self.leaked)) + size < LEAK_LIMIT:
            self.leaked.append(b"x" * size)
            self.later(0.25, lambda: self.leak(config))

    def serve(self, connection: Connection, request: Request) -> None:
        """The request is answered, now, later or (by flaw) never."""
        if request.path in OPERATIONS:
            connection.send(self.shop.operation(request.path), request)
            return
        flaws, started = self.shop.config.flaws, time.monotonic()
        if flaws.get("hang"):
            return
        response = self.shop.user(request)

        def finish() -> None:
            route = request.path if request.path in ROUTES else "other"
            status = 200 if flaws.get("silent") and response.status >= 500 else response.status
            self.shop.metrics.count(route, request.method, status, time.monotonic() - started)
            connection.send(response, request)

        def resume() -> None:
            finish()
            if connection in self.connections:
                connection.take()
                connection.ready(selectors.EVENT_WRITE)

        if flaws.get("latency_ms"):
            self.later(flaws["latency_ms"] / 1000, resume)
        else:
            finish()


def crash() -> None:
    """The process ends as by an unhandled error."""
    print(
        'Traceback (most recent call last):\n  File "shop.py", in start\nRuntimeError: the shop cannot go on', file=sys.stderr, flush=True
    )
    os._exit(3)


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(256)
    return listener


def main() -> int:
    """Serve until told to end; 0 after a graceful end, 2 when the release, the config or the address cannot be used."""
    environment = os.environ.get
    parser = argparse.ArgumentParser(description="A small web shop with flaws that can be switched on.")
    parser.add_argument("--host", default=environment("DEPLOYGUARD_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=environment("DEPLOYGUARD_PORT", "8000"), help="0 takes a free one")
    parser.add_argument("--config", default=environment("DEPLOYGUARD_CONFIG"), help="a JSON file; read again on SIGHUP")
    args = parser.parse_args()
    # A signal that comes while the config is being read waits until somebody listens to it: a lost SIGHUP would be an old config.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        about = Path(__file__).resolve().with_name("release.json")
        release = json.loads(about.read_bytes()) if about.exists() else {"name": "unnamed"}
        flaws = check_flaws(release.get("flaws", {}))

        def load() -> Config:
            return Config.load(Path(args.config) if args.config else None, flaws)

        server = Server(Shop(str(release["name"]), load()), listen(args.host, args.port), load)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        print(f"shop: cannot start: {error}", file=sys.stderr)
        return 2
    host, port = server.listener.getsockname()[:2]
    print(f"shop: release {release['name']} listens on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
