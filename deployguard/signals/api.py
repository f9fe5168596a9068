"""A small HTTP client for the APIs of monitoring systems: kept connections, and an end for the whole of each answer.

The standard library's client, with one thing added: what it waits for on the network ends at a deadline, however the server behaves.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployguard import __version__, clock
from deployguard.errors import UserError

LIMIT = 32 * 1024 * 1024


class NoAnswer(Exception):
    """No whole answer came: `reason` is one of those of `Missing`, the message says why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is to be addressed. Secrets are read when they are needed, and appear in no message."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    bearer_file: str = ""
    ca_file: str = ""
    insecure: bool = False

    def sent(self) -> dict[str, str]:
        """The headers of a request now. Raises `NoAnswer` when the token's file cannot be read."""
        found = {"User-Agent": f"deployguard/{__version__}", "Accept": "application/json", **self.headers}
        if self.bearer_file:
            try:
                found["Authorization"] = f"Bearer {Path(self.bearer_file).read_text().strip()}"
            except (OSError, UnicodeDecodeError) as error:
                raise NoAnswer("error", f"the token's file {self.bearer_file} cannot be read: {error}") from error
        return found


def from_environment(name: str, what: str, environ: Mapping[str, str] | None = None) -> str:
    """The secret that the environment variable `name` holds. Raises `UserError` when it is not set."""
    found = (os.environ if environ is None else environ).get(name, "")
    if not found:
        raise UserError(f"could not set up {what}: the environment variable {name} is not set", hint=f"set {name}")
    return found


def basic(username: str, password: str) -> str:
    """The value of the Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class Api:
    """One server. Safe for threads: each request takes a connection of its own, and leaves it for the next one."""

    def __init__(self, access: Access, timeout: float) -> None:
        """Raises `UserError` when the certificates cannot be read."""
        self._access, self._timeout = access, timeout
        parts = urlsplit(access.url)
        self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._trust = _trust(access) if self._secure else None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """Status and body of one request, whole within the timeout. Raises `NoAnswer`."""
        headers = {**self._access.sent(), **({"Content-Type": kind} if kind else {})}
        deadline = clock.monotonic() + self._timeout
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, method, path, body, headers, deadline)
            except (http.client.HTTPException, ConnectionError):
                # The server closed a kept connection in between: that says nothing about its health.
                connection.close()
            except (OSError, ValueError) as error:
                connection.close()
                raise _said(error, self._timeout) from error
        connection = self._new()
        try:
            return self._exchange(connection, method, path, body, headers, deadline)
        except (http.client.HTTPException, OSError, ValueError) as error:
            connection.close()
            raise _said(error, self._timeout) from error

    def close(self) -> None:
        """Close the kept connections; a later request opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _new(self) -> http.client.HTTPConnection:
        if self._trust is not None:
            return http.client.HTTPSConnection(self._host, self._port, context=self._trust)
        return http.client.HTTPConnection(self._host, self._port)

    def _exchange(
        self, connection: Any, method: str, path: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> tuple[int, bytes]:
        if connection.sock is None:
            connection.timeout = _left(deadline)
            connection.connect()
            plain: Any = connection.sock
            connection.sock = _Timed(plain)
        connection.sock.deadline = deadline
        connection.request(method, self._base + path, body=body or None, headers=dict(headers))
        response = connection.getresponse()
        content = response.read(LIMIT + 1)
        if len(content) > LIMIT:
            connection.close()
            raise NoAnswer("error", f"the answer is larger than {LIMIT // (1024 * 1024)} MB")
        if response.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        return response.status, content


class _Timed:
    """A socket as `http.client` uses it, all of whose waiting ends at the deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self.deadline = sock, 0.0

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self.deadline))
        self._sock.sendall(data)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        # The socket's own file keeps it open until the answer is read, also when the connection was closed before.
        return io.BufferedReader(_Reader(self, self._sock.makefile("rb", buffering=0)), 1 << 16)

    def wait(self) -> None:
        """What the socket waits for next ends at the deadline."""
        self._sock.settimeout(_left(self.deadline))

    def close(self) -> None:
        self._sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: _Timed, raw: io.RawIOBase | socket.SocketIO) -> None:
        self._timed, self._raw = sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._timed.wait()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(deadline: float) -> float:
    left = deadline - clock.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _trust(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"could not use the certificates in {access.ca_file}: {error}", hint="`ca_file` is a file in PEM form") from error
    if access.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _said(error: Exception, timeout: float) -> NoAnswer:
    """What happened, without anything of the request."""
    if isinstance(error, TimeoutError):
        return NoAnswer("timeout", f"no whole answer within {timeout:g} s")
    if isinstance(error, ConnectionRefusedError):
        return NoAnswer("refused", "connection refused")
    if isinstance(error, ssl.SSLCertVerificationError):
        return NoAnswer("error", f"the server's certificate is not valid: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return NoAnswer("error", f"TLS failed: {error.reason or error}")
    if isinstance(error, socket.gaierror):
        return NoAnswer("error", "the host name was not found")
    if isinstance(error, http.client.HTTPException):
        return NoAnswer("error", "the answer broke off or is not HTTP")
    if isinstance(error, ConnectionError):
        return NoAnswer("error", "the connection broke off")
    if isinstance(error, ValueError):
        return NoAnswer("error", "a header holds a character that HTTP cannot carry")
    return NoAnswer("error", error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__)
