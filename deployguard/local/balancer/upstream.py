"""One connection to an instance: reads its answers and hands them on as they come."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, cast

import httptools

from deployguard.local.balancer.buffer import BUFFER
from deployguard.local.balancer.heads import LIMIT, BadResponse, Headers, Response, interim, read_response

if TYPE_CHECKING:
    from deployguard.local.balancer.exchange import Exchange
    from deployguard.local.balancer.routes import Instance

_SWITCHING = 101
_CONTINUE = 100
_FINAL = 200


class Upstream(asyncio.BufferedProtocol):
    """Serves one exchange at a time; between two it is one of the instance's spares."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.exchange: Exchange | None = None
        self.closed = False
        self.full = False  # the instance takes no more for now
        self.used = False  # it has served an exchange before this one
        self.heard = False  # it has said something in this exchange
        self.spare_since = 0.0
        self.response: Response | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._out: list[bytes] = []
        self._headers: Headers = []
        self._reason = b""
        self._head_size = 0
        self._done = False
        self._dirty = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def serve(self, exchange: Exchange) -> None:
        """What the instance says from now on answers `exchange`."""
        self.exchange = exchange
        self.heard = self._done = False
        self.response = None
        self._head_size = 0

    def close(self) -> None:
        """The connection is closed, and nobody hears of it any more."""
        self.closed = True
        self.exchange = None
        self.transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self.exchange
        if exchange is None:
            # Nobody asked: the next request could take it for its answer.
            self.close()
            return
        self.heard = True
        if exchange.tunnel:
            exchange.client.send(bytes(BUFFER[:nbytes]))
            return
        self._read(exchange, nbytes)

    def _read(self, exchange: Exchange, nbytes: int) -> None:
        fault, rest = "", b""
        assert self._parser is not None
        try:
            self._parser.feed_data(BUFFER[:nbytes])
        except httptools.HttpParserUpgrade as switched:
            rest = bytes(BUFFER[switched.args[0] : nbytes])
        except httptools.HttpParserError as error:
            cause = error.__context__
            fault = str(cause) if isinstance(cause, BadResponse) else f"its answer is not HTTP: {error}"
        if self.response is None and not fault:
            self._head_size += nbytes
            if self._head_size > LIMIT:
                fault = "the head of its answer is too long"
        if self.response is not None:
            exchange.touch()
        self._deliver(exchange, fault, rest)

    def _deliver(self, exchange: Exchange, fault: str, rest: bytes) -> None:
        """What was read is on its way to the client."""
        response = self.response
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            exchange.client.send(data)
            if self.exchange is not exchange:
                return
        if response is not None and exchange.status == _SWITCHING and not fault:
            exchange.switched(rest)
        elif self._done and exchange.status != _SWITCHING:
            self._dirty = self._dirty or bool(fault)
            self._detach(exchange)
        elif fault:
            exchange.failed(fault)

    def _detach(self, exchange: Exchange) -> None:
        """The answer is over; the connection serves another exchange later if nothing speaks against it."""
        response = self.response
        assert response is not None
        self.exchange = exchange.upstream = None
        self.used = True
        if response.reuse and not self._dirty and exchange.complete and not self.full:
            if response.bodiless:
                # llhttp waits for a body after every head that gives a length; only a new parser knows that there is none.
                self._parser = httptools.HttpResponseParser(self)
            self.transport.resume_reading()
            self.spare_since = exchange.moved
            if not self.instance.keep(self):
                self.close()
        else:
            self.close()
        exchange.answered(response.keep)

    def eof_received(self) -> bool | None:
        exchange = self.exchange
        if exchange is not None and exchange.tunnel:
            return exchange.instance_ended()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if exc is not None:
            self._salvage()
        self._parser = None
        exchange, response = self.exchange, self.response
        if exchange is None:
            if self in self.instance.spares:
                self.instance.spares.remove(self)
            return
        if response is not None and response.until_close and exc is None:
            if response.chunk:
                exchange.client.send(b"0\r\n\r\n")
            self._detach(exchange)
            return
        self.exchange = None
        exchange.lost(self, exc)

    def _salvage(self) -> None:
        """What the instance said before it cut the connection has been read: an upload it refused half-way has its answer there."""
        with contextlib.suppress(OSError):
            while (exchange := self.exchange) is not None and not exchange.tunnel:
                size = os.readv(self.transport.get_extra_info("socket").fileno(), [BUFFER])
                if not size:
                    return
                self.heard = True
                self._read(exchange, size)

    def pause_writing(self) -> None:
        self.full = True
        if self.exchange is not None:
            self.exchange.client.update_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.exchange is not None:
            self.exchange.touch()
            self.exchange.client.update_reading()

    def on_message_begin(self) -> None:
        self._headers = []
        self._reason = b""
        if self._done:
            self._dirty = True

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or self._done:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        request = exchange.request
        if status < _FINAL and status != _SWITCHING:
            if not request.old and (status != _CONTINUE or request.expects):
                self._out.append(interim(status, self._reason, self._headers))
            self._head_size = 0
            return
        if exchange.client.door.crowded:
            request.keep = False
        self.response = read_response(status, self._reason, self._parser.get_http_version(), self._headers, request)
        exchange.status = status
        self._out.append(self.response.head)
        self._done = self.response.bodiless

    def on_body(self, body: bytes) -> None:
        response = self.response
        if self._done or response is None:
            self._dirty = True
        elif response.chunk:
            self._out += (b"%x\r\n" % len(body), body, b"\r\n")
        else:
            self._out.append(body)

    def on_message_complete(self) -> None:
        if self.response is not None and not self._done:
            self._done = True
            if self.response.chunk:
                self._out.append(b"0\r\n\r\n")
