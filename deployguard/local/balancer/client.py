"""One connection of a user: reads requests in their order, and gives each its answer before the next one is sent on."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from deployguard.local.balancer.buffer import BUFFER
from deployguard.local.balancer.exchange import Exchange
from deployguard.local.balancer.heads import LIMIT, Headers, Refusal, Request, own_response, read_request

if TYPE_CHECKING:
    from deployguard.local.balancer.doors import Door

_LINGER = 5.0
_PIPELINED = 500
_RESET = struct.pack("ii", 1, 0)


class Client(asyncio.BufferedProtocol):
    """Open until the user, an error, or the idle timeout ends it."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.loop = door.loop
        self.full = False  # the user takes no more for now
        self._current: Exchange | None = None
        self._receiving: Exchange | None = None
        self._queue: deque[Exchange | Refusal] = deque()
        self._parser: httptools.HttpRequestParser | None = None
        self._peer = b""
        self._url = b""
        self._headers: Headers = []
        self._in_head = False
        self._began = False  # that head began in what was read last
        self._head_size = 0
        self._bare = 0  # bytes read since the last ones of a body
        self._replayed = False  # the head being parsed is not the user's but a plain copy of it
        self._offered = False  # llhttp stopped at a request that offers another protocol
        self._tail = b""  # what the user sent after such a request
        self._deaf = False  # what else comes is thrown away
        self._paused = False
        self._advancing = False
        self._ended = False  # nothing more is written
        self._deadline = 0.0
        self._since = self.loop.time()  # idle, or in the middle of a head, since then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]).encode("ascii", "replace") if peer else b"unknown"
        self._parser = httptools.HttpRequestParser(self)
        self.door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended = self._deaf = True
        self._parser = None
        self._queue.clear()
        current, self._current, self._receiving = self._current, None, None
        if current is not None:
            current.client_gone()
        self.door.leave(self)

    # What the user sends.

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._deaf:
            return
        current = self._current
        if current is not None and current.tunnel:
            current.add(bytes(BUFFER[:nbytes]))
            current.flush()
            return
        if self._offered:
            self._tail += bytes(BUFFER[:nbytes])
            self.update_reading()
            return
        self._read(BUFFER[:nbytes])

    def _read(self, data: memoryview) -> None:
        self._bare += len(data)
        self._began = False
        while len(data):
            assert self._parser is not None
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = memoryview(bytes(data[offer.args[0] :]))
                if not self._keep_reading(data):
                    break
                continue
            except httptools.HttpParserError as error:
                self._unreadable(error)
            break
        self._limit(len(data))
        self._advance()

    def _keep_reading(self, rest: memoryview) -> bool:
        """False when what follows the head may be another protocol. llhttp gives up HTTP at every offer, whether it is taken or not."""
        exchange = self._receiving
        self._offered = False
        if self._deaf or exchange is None:
            return False
        if exchange.request.upgrade:
            exchange.end()
            self._offered = True
            self._tail = bytes(rest)
            return False
        self._parser = httptools.HttpRequestParser(self)
        self._replayed = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + exchange.request.framing + b"\r\n")
        return True

    def _limit(self, size: int) -> None:
        """A head, or what stands between the chunks of a body, that goes on for too long is refused before it has been read."""
        if self._deaf:
            return
        if not self._in_head:
            if self._bare > LIMIT and self._receiving is not None and not self._receiving.complete:
                self._reject(Refusal(400, "the chunks of the request's body have too much around them"))
            return
        if not self._began:
            self._head_size += size
            if self._head_size > LIMIT:
                self._in_head = False
                self._reject(Refusal(431, "the head of the request is too long"))
        elif self._current is None:
            self._since = self.loop.time()

    def _unreadable(self, error: httptools.HttpParserError) -> None:
        if self._deaf:
            return
        receiving = self._receiving
        if receiving is not None and receiving.complete and not receiving.request.keep:
            self._deaf = True
            return
        self._reject(Refusal(400, f"the request is not HTTP: {error}"))

    def _reject(self, refusal: Refusal) -> None:
        """The refusal is the last answer on this connection."""
        self._deaf = True
        receiving = self._receiving
        if receiving is not None and not receiving.complete and not receiving.over:
            # Its body is broken: it cannot be sent to its end.
            if receiving is self._current:
                begun = receiving.status != 0
                receiving.abandon()
                self._current = None
                if begun:
                    self.cut()
                    return
            else:
                self._queue.remove(receiving)
        self._receiving = None
        self._queue.append(refusal)

    def on_message_begin(self) -> None:
        if not self._replayed:
            self._url = b""
            self._headers = []
            self._in_head = self._began = True
            self._head_size = 0

    def on_url(self, url: bytes) -> None:
        if not self._replayed:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._replayed:
            self._replayed = False
            return
        self._in_head = False
        if self._deaf:
            return
        parser, headers = self._parser, self._headers
        assert parser is not None
        try:
            if len(self._queue) >= _PIPELINED:
                raise Refusal(400, "too many requests were sent at once")
            if len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers) > LIMIT:
                raise Refusal(431, "the head of the request is too long")
            request = read_request(parser.get_method(), self._url, parser.get_http_version(), headers, self._peer)
        except Refusal as refusal:
            self._reject(refusal)
            return
        self._receiving = exchange = Exchange(self, request)
        self._bare = 0
        self._queue.append(exchange)

    def on_body(self, body: bytes) -> None:
        self._bare = 0
        if self._receiving is not None and not self._deaf:
            self._receiving.add(body)

    def on_message_complete(self) -> None:
        receiving, parser = self._receiving, self._parser
        assert parser is not None
        # At an offer llhttp calls the message complete even when its body is still to come.
        if receiving is not None and not self._deaf and not parser.should_upgrade():
            receiving.end()
            if not receiving.request.keep:
                self._deaf = True

    # What becomes of it.

    def _advance(self) -> None:
        """The oldest request is being answered; what has been read of it is sent on."""
        if self._advancing:
            return
        self._advancing = True
        while self._current is None and self._queue and not self._ended:
            first = self._queue.popleft()
            if isinstance(first, Refusal):
                self._queue.clear()
                self.refuse(first.status, "refused", first.text, keep=False)
                break
            self._current = first
            first.start()
        self._advancing = False
        if self._current is not None:
            self._current.flush()
        self.update_reading()

    def update_reading(self) -> None:
        """The user is read from only while what comes can be used."""
        current = self._current
        pause = not self._deaf and (bool(self._queue) or len(self._tail) > LIMIT or (current is not None and current.blocked()))
        if pause != self._paused:
            self._paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # What the user gets.

    def send(self, data: bytes) -> None:
        """The data is on its way to the user."""
        if not self._ended:
            self.transport.write(data)

    def answered(self, exchange: Exchange, keep: bool) -> None:
        """The next request is being answered, or the connection ends."""
        self._current = None
        self._since = self.loop.time()
        if self._ended:
            return
        if not keep or not exchange.complete:
            self._end()
            return
        if self._offered and exchange is self._receiving:
            # The offer was declined: HTTP goes on.
            self._offered, tail, self._tail = False, self._tail, b""
            self._parser = httptools.HttpRequestParser(self)
            self._receiving = None
            self._read(memoryview(tail))
            return
        self._advance()

    def refuse(self, status: int, tag: str, text: str, *, keep: bool) -> None:
        """The user has been given an answer by the balancer itself."""
        current = self._current
        request: Request | None = current.request if current is not None else None
        self.send(own_response(status, tag, text, keep=keep, is_head=request is not None and request.is_head))
        if current is not None:
            self.answered(current, keep)
        else:
            self._end()

    def _end(self) -> None:
        """Nothing more is written. A user who still sends is listened to for a while, so that no reset destroys the answer."""
        if self._ended:
            return
        self._ended = self._deaf = True
        receiving = self._receiving
        if receiving is not None and receiving.complete and not self._queue:
            self.transport.close()
            self._deadline = self.loop.time() + self.door.limits.idle_timeout
            return
        self._deadline = self.loop.time() + _LINGER
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.update_reading()

    def cut(self) -> None:
        """The user sees that the answer is not whole."""
        self._ended = self._deaf = True
        current = self._current
        if current is not None and current.request.old:
            # An answer without a length ends with the connection: only a reset says that this is not its end.
            raw: socket.socket = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self._deadline = self.loop.time() + _LINGER
            self.transport.close()

    def drop(self) -> None:
        """The connection is closed at once."""
        self.transport.abort()

    # Tunnels.

    def tunnelled(self, exchange: Exchange) -> None:
        """What the user sends from now on goes to the instance as it is."""
        self._parser = None
        # A tunnel may be silent for hours; only the kernel can tell that the other side has gone without a word.
        for transport in (self.transport, exchange.upstream.transport if exchange.upstream is not None else self.transport):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tail, self._tail = self._tail, b""
        if tail:
            exchange.add(tail)
            exchange.flush()
        self.update_reading()

    def end_writing(self) -> bool:
        """The user knows that the instance says no more; True while the user may still speak."""
        if self._deaf or self._ended:
            return False
        self._ended = True
        self.transport.write_eof()
        return True

    def close(self) -> None:
        """The connection ends when the user has taken what is on its way."""
        self._ended = self._deaf = True
        self._deadline = self.loop.time() + _LINGER
        self.transport.close()

    # What asyncio tells.

    def eof_received(self) -> bool | None:
        current = self._current
        if current is None:
            return None
        if current.tunnel and current.upstream is not None and not self._ended:
            self._deaf = True
            current.upstream.transport.write_eof()
            return True
        if current.tunnel and current.upstream is not None:
            current.upstream.transport.close()
            return True
        # Nothing tells a user who has gone from one who has only finished sending; as in nginx, both have gone.
        self.transport.abort()
        return None

    def pause_writing(self) -> None:
        self.full = True
        if self._current is not None and self._current.upstream is not None:
            self._current.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self._current is not None and self._current.upstream is not None:
            self._current.touch()
            self._current.upstream.transport.resume_reading()

    # Time.

    def idle_since(self) -> float | None:
        """Since when the user has asked for nothing; None when something is going on."""
        idle = self._current is None and not self._in_head and not self._ended and not self._queue
        return self._since if idle else None

    def check(self, now: float) -> None:
        """A connection on which nothing has happened for too long is closed."""
        limits = self.door.limits
        if self._deadline:
            if now >= self._deadline:
                self.transport.abort()
        elif self._current is not None:
            self._current.check(now, limits.response_timeout, limits.idle_timeout)
        elif now - self._since >= limits.idle_timeout:
            if self._in_head:
                self._deaf = True
                self.refuse(408, "timeout", "the request's head did not come", keep=False)
            else:
                self.close()
