"""Bytes to an API server and back: one request, with a timeout for the whole of it, over kept connections.

The official library's own path is not taken: it writes JSON twice, guesses content types and lets urllib3 repeat writes.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from deployguard import clock
from deployguard.kube.credentials import Credentials, Pem
from deployguard.kube.errors import Unreachable, what

_PIECE = 1 << 16


class Fetched(NamedTuple):
    """An answer as it came. `complete` is False when it was longer than asked for and was cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True


class Transport:
    """The connections to one server. Safe for threads: each request takes a connection of its own."""

    def __init__(
        self, server: str, connections: Callable[[Pem | None], Any], credentials: Credentials, headers: list[tuple[str, str]], place: str
    ) -> None:
        self.server = server
        self.credentials = credentials
        self._make = connections
        self._fixed = headers
        self._place = place
        self._lock = threading.Lock()
        self._certificate: Pem | None = None
        self._pool: Any = None

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None, timeout: float, limit: int | None = None
    ) -> Fetched:
        """The answer, whatever its status; refused credentials are renewed once. Raises `Unreachable` after `timeout` seconds."""
        authorization = self.credentials.header()
        answer = self._once(method, path, headers, body, timeout, limit, authorization)
        if answer.status == 401 and self.credentials.renew(authorization):
            # A refused request was not carried out, so this repeats nothing.
            answer = self._once(method, path, headers, body, timeout, limit, self.credentials.header())
        return answer

    def close(self) -> None:
        """No connection is kept."""
        with self._lock:
            if self._pool is not None:
                self._pool.clear()

    def _connections(self) -> Any:
        certificate = self.credentials.certificate()
        with self._lock:
            if self._pool is None or certificate != self._certificate:
                self._pool, self._certificate = self._make(certificate), certificate
            return self._pool

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, timeout: float, limit: int | None, authorization: str
    ) -> Fetched:
        import urllib3

        fields = urllib3.HTTPHeaderDict(self._fixed)
        fields.update(headers)
        if authorization:
            fields["Authorization"] = authorization
        deadline = clock.monotonic() + timeout
        try:
            response = self._connections().request(
                method,
                self.server + path,
                headers=fields,
                body=body,
                timeout=urllib3.Timeout(connect=timeout, read=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            content, complete = _read(response, deadline, limit)
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(method, path, error, timeout) from error
        except (OSError, ValueError) as error:
            # A proxy address that is none, say.
            raise self._unreachable(method, path, error, timeout) from error
        return Fetched(response.status, response.headers, content, complete)

    def _unreachable(self, method: str, path: str, error: Exception, timeout: float) -> Unreachable:
        import urllib3

        # Before a connection stood, to a server that is the right one, nothing can have been carried out.
        distrusted = isinstance(error, urllib3.exceptions.SSLError) and isinstance(error.args[0], ssl.SSLCertVerificationError)
        unsent = distrusted or isinstance(error, (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.NewConnectionError))
        return Unreachable(
            f"could not {what(method, path)}: no answer from {self.server} ({_fact(error, timeout)})",
            hint=f"look whether {self.server} can be reached from here; the address comes from {self._place}",
            uncertain=not unsent and method != "GET",
        )


def _fact(error: Exception, timeout: float) -> str:
    import urllib3

    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name cannot be resolved"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        # "HTTPSConnection(...): Failed to establish a new connection: [Errno 111] Connection refused"
        return str(error).rpartition("connection: ")[2].rpartition("] ")[2]
    if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)):
        return f"timed out after {timeout:g} s"
    if isinstance(error, urllib3.exceptions.SSLError):
        return f"TLS: {getattr(error.args[0], 'verify_message', '') or error}"
    return str(error) or type(error).__name__


def _read(response: Any, deadline: float, limit: int | None) -> tuple[bytes, bool]:
    """The body, at most `limit` bytes of it. A server that drips is given up at the deadline, as one that is silent."""
    pieces: list[bytes] = []
    size = 0
    while piece := response.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if limit is not None and size > limit:
            response.close()
            return b"".join(pieces)[:limit], False
        if clock.monotonic() > deadline:
            response.close()
            raise TimeoutError
    response.release_conn()
    return b"".join(pieces), True
