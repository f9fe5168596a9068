"""Reads many metrics pages at once on one thread, because a frozen instance must not delay the others or cost a thread.

All requests of a call share one deadline, so a call costs at most the timeout however the servers behave: one that
accepts and says nothing, one that sends a byte at a time, one that never accepts. Connections are kept between calls.
"""

from __future__ import annotations

import selectors
import socket
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from deployguard import __version__, clock

PROTOBUF = "application/vnd.google.protobuf"
PAGE_LIMIT = 16 * 1024 * 1024
_CHUNK = 256 * 1024
_TEXT = "application/openmetrics-text;version=1.0.0{0},text/plain;version=0.0.4;q=0.8,*/*;q=0.1"
ACCEPT = {
    False: _TEXT.format(""),
    True: f"{PROTOBUF};proto=io.prometheus.client.MetricFamily;encoding=delimited,{_TEXT.format(';q=0.9')}",
}
"""What is accepted, by whether protobuf is preferred."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page that arrived whole."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no page came: `reason` is one of those of `Missing`."""

    reason: str
    detail: str


def too_large(limit: int) -> Failure:
    """What is said of a page over the limit."""
    return Failure("error", f"the metrics page is larger than {limit // (1024 * 1024)} MB")


class _Exchange:
    """One request and what has come of its response. Its `on_` methods are called by the parser."""

    def __init__(self, url: str, sock: socket.socket, reused: bool, limit: int, protobuf: bool) -> None:
        self.url, self.sock, self.reused, self.limit, self.protobuf = url, sock, reused, limit, protobuf
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.unsent = (
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: deployguard/{__version__}\r\n"
            f"Accept: {ACCEPT[protobuf]}\r\nAccept-Encoding: gzip\r\n\r\n"
        ).encode()
        self.parser = httptools.HttpResponseParser(self)
        self.body = bytearray()
        self.headers: dict[bytes, bytes] = {}
        self.heard = self.began = self.whole = self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.began = True

    def on_body(self, part: bytes) -> None:
        if len(self.body) <= self.limit:
            self.body += part

    def on_message_complete(self) -> None:
        self.whole, self.reusable = True, self.parser.should_keep_alive()

    def ended(self) -> Page | Failure:
        """The answer after the server closed the connection: whole only when the response had no length of its own."""
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if not self.began or framed:
            return Failure("error", "the connection was closed in the middle of the answer")
        text = not self.headers.get(b"content-type", b"").startswith(PROTOBUF.encode())
        if text and not self.body.endswith(b"\n") and b"content-encoding" not in self.headers:
            return Failure("error", "the page ends in the middle of a line")
        return self.answer()

    def answer(self) -> Page | Failure:
        """The page, unpacked, or what is wrong with it."""
        status = self.parser.get_status_code()
        if status != 200:
            return Failure("error", f"the metrics page answered {status}")
        body = self.body
        encoding = self.headers.get(b"content-encoding", b"").strip().lower()
        if encoding == b"gzip":
            unpacker = zlib.decompressobj(wbits=31)
            try:
                body = bytearray(unpacker.decompress(body, self.limit + 1))
            except zlib.error as error:
                return Failure("error", f"the gzip of the metrics page is broken: {error}")
            if not unpacker.eof and len(body) <= self.limit:
                return Failure("error", "the gzip of the metrics page is cut off")
        elif encoding not in (b"", b"identity"):
            return Failure("error", f"the metrics page came in the encoding `{encoding.decode(errors='replace')}`, which was not asked for")
        if len(body) > self.limit:
            return too_large(self.limit)
        return Page(bytes(body), self.headers.get(b"content-type", b"").decode("latin-1"))


class Fetcher:
    """A small HTTP/1.1 client for GETs of many pages in one go. Not for several threads at once."""

    def __init__(self, timeout: float, limit: int = PAGE_LIMIT) -> None:
        self.timeout = timeout
        self._limit = limit
        self._idle: dict[str, socket.socket] = {}

    def fetch(self, urls: Collection[str], protobuf: Collection[str] = ()) -> dict[str, Page | Failure]:
        """A page or a failure for each of `urls`, after at most the timeout; those in `protobuf` are asked for that format first."""
        done: dict[str, Page | Failure] = {}
        deadline = clock.monotonic() + self.timeout
        with selectors.DefaultSelector() as selector:
            for url in urls:
                self._begin(url, url in protobuf, selector, done)
            while selector.get_map():
                left = deadline - clock.monotonic()
                events = selector.select(left) if left > 0 else []
                if not events and clock.monotonic() >= deadline:
                    break
                for key, _ in events:
                    self._advance(key.data, selector, done)
            for key in list(selector.get_map().values()):
                key.data.sock.close()
                done[key.data.url] = Failure("timeout", f"no whole answer within {self.timeout:g} s")
        return done

    def close(self) -> None:
        """Close the kept connections; a later fetch opens new ones."""
        while self._idle:
            self._idle.popitem()[1].close()

    def _begin(
        self, url: str, protobuf: bool, selector: selectors.BaseSelector, done: dict[str, Page | Failure], fresh: bool = False
    ) -> None:
        try:
            kept = None if fresh else self._idle.pop(urlsplit(url).netloc, None)
            sock = kept or _connect(url)
        except (OSError, ValueError) as error:
            done[url] = _failure(error)
            return
        selector.register(sock, selectors.EVENT_WRITE, _Exchange(url, sock, kept is not None, self._limit, protobuf))

    def _advance(self, exchange: _Exchange, selector: selectors.BaseSelector, done: dict[str, Page | Failure]) -> None:
        """Send or receive what is possible now; put the answer into `done` when it is there."""
        answer: Page | Failure | None
        try:
            answer = self._send(exchange, selector) if exchange.unsent else self._receive(exchange)
        except BlockingIOError:
            return
        except OSError as error:
            answer = _failure(error)
        except httptools.HttpParserError as error:
            answer = Failure("error", f"the answer is not HTTP: {error}")
        if answer is None:
            return
        selector.unregister(exchange.sock)
        if exchange.reusable and isinstance(answer, Page):
            self._keep(exchange)
        else:
            exchange.sock.close()
        if isinstance(answer, Failure) and exchange.reused and not exchange.heard:
            # The server closed a kept connection between two polls: that says nothing about its health.
            self._begin(exchange.url, exchange.protobuf, selector, done, fresh=True)
        else:
            done[exchange.url] = answer

    def _keep(self, exchange: _Exchange) -> None:
        before = self._idle.get(where := urlsplit(exchange.url).netloc)
        if before is not None:
            before.close()
        self._idle[where] = exchange.sock

    @staticmethod
    def _send(exchange: _Exchange, selector: selectors.BaseSelector) -> Failure | None:
        error = exchange.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            return _failure(OSError(error, "connect"))
        exchange.unsent = exchange.unsent[exchange.sock.send(exchange.unsent) :]
        if not exchange.unsent:
            selector.modify(exchange.sock, selectors.EVENT_READ, exchange)
        return None

    @staticmethod
    def _receive(exchange: _Exchange) -> Page | Failure | None:
        data = exchange.sock.recv(_CHUNK)
        if not data:
            return exchange.ended()
        exchange.heard = True
        exchange.parser.feed_data(data)
        if len(exchange.body) > exchange.limit:
            return too_large(exchange.limit)
        return exchange.answer() if exchange.whole else None


def _connect(url: str) -> socket.socket:
    """A socket that is connecting to the server of `url`."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"`{url}` cannot be scraped; the address must be host:port or http://host:port")
    found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    family, kind, protocol, _, where = next((one for one in found if one[0] == socket.AF_INET), found[0])
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(where)
    except BlockingIOError:
        pass
    except OSError:
        sock.close()
        raise
    return sock


def _failure(error: Exception) -> Failure:
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        actual = OSError(error.errno, "")  # the constructor picks the subclass that belongs to the number
        if isinstance(actual, ConnectionRefusedError):
            return Failure("refused", "connection refused")
        if isinstance(actual, TimeoutError):
            return Failure("timeout", "the connection timed out")
    return Failure("error", str(error) or type(error).__name__)
