"""The probe's HTTP client: one user with a cookie jar, whose every request has a hard end and may be pinned to one arm.

The only module that imports httpx (and httpcore, which carries it), and loaded by the prober process alone: the import
costs a fifth of a second. Scrapes have a client of their own in `fetch.py`.
"""

from __future__ import annotations

import codecs
import ipaddress
import queue
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import httpcore
import httpx

from deployguard import __version__, clock

BODY_LIMIT = 16 * 1024 * 1024
REDIRECT_LIMIT = 5
SocketOptions = Iterable[httpcore.SOCKET_OPTION]


class NoAnswer(Exception):
    """No whole response came, and the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose body has arrived whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    text: str


class Visitor:
    """One user on one walk: cookies and connections last as long as the visitor.

    Paths are below `base`. Absolute URLs go where they point; when `pinned`, every connection goes to the host and port of
    `base` instead, while the Host header, the cookies and the name in TLS remain those of the URL. An arm's listener that
    speaks plain HTTP stands behind whatever ends TLS for users, so an https URL reaches it as HTTP with
    `X-Forwarded-Proto: https`. Redirects are followed only to hosts that the journey names itself (`known`).
    """

    def __init__(self, base: str, *, pinned: bool, known: Iterable[str] = ()) -> None:
        self._base = base.rstrip("/")
        self._known = {urlsplit(self._base).hostname, *known}
        self._deadline = _Deadline()
        self._transport = _Transport(self._deadline, httpx.URL(self._base) if pinned else None)
        headers = {"User-Agent": f"deployguard-probe/{__version__}"}
        # No timeout of httpx's own: those begin anew with each piece of a response, the deadline does not.
        self._client = httpx.Client(transport=self._transport, headers=headers, timeout=None, trust_env=False)  # noqa: S113

    def ask(
        self,
        method: str,
        url: str,
        *,
        timeout: float,
        headers: dict[str, str],
        form: dict[str, str] | None = None,
        content: str | None = None,
    ) -> Response:
        """The response after at most five redirects. Raises `NoAnswer` when none has come whole after `timeout` seconds."""
        self._deadline.at = clock.monotonic() + timeout
        try:
            address = self._base + url if url.startswith("/") else url
            request = self._client.build_request(method, address, headers=headers, data=form, content=content)
            for _ in range(REDIRECT_LIMIT + 1):
                response, following = self._exchange(request)
                if following is None or following.url.host not in self._known:
                    return response
                request = following
        except (httpx.TimeoutException, httpcore.TimeoutException) as error:
            raise NoAnswer(f"no answer within {timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpcore.ConnectError, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise NoAnswer(_words(error)) from error
        except httpcore.UnsupportedProtocol as error:
            raise NoAnswer("the URL is neither http nor https") from error
        except UnicodeError as error:
            raise NoAnswer("the request holds a character that HTTP cannot carry") from error
        raise NoAnswer(f"more than {REDIRECT_LIMIT} redirects")

    def close(self) -> None:
        """Close the visitor's connections."""
        self._client.close()

    def _exchange(self, request: httpx.Request) -> tuple[Response, httpx.Request | None]:
        response = self._client.send(request, stream=True)
        try:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > BODY_LIMIT:
                    raise NoAnswer(f"the body is larger than {BODY_LIMIT // (1024 * 1024)} MB")
            text = body.decode(_charset(response), errors="replace")
            return Response(response.status_code, dict(response.headers), bytes(body), text), response.next_request
        finally:
            response.close()


class _UnknownName(httpcore.ConnectError):
    """The host's name has no address."""


class _Deadline:
    """The instant, on the monotonic clock, at which every wait for the network ends."""

    def __init__(self) -> None:
        self.at = 0.0

    def left(self, error: type[Exception]) -> float:
        left = self.at - clock.monotonic()
        if left <= 0:
            raise error("the time is over")
        return left


class _Stream(httpcore.NetworkStream):
    """A connection whose reads and writes end at the deadline together, not each after a time of its own."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._inner.read(max_bytes, self._deadline.left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._inner.write(buffer, self._deadline.left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:  # noqa: ARG002
        left = self._deadline.left(httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class _Network(httpcore.NetworkBackend):
    """Opens connections that end at the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        self._inner, self._deadline = httpcore.SyncBackend(), deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> _Stream:
        failed: Exception = httpcore.ConnectError("the name has no address")
        for address in _addresses(host, self._deadline):
            try:
                left = self._deadline.left(httpcore.ConnectTimeout)
                return _Stream(self._inner.connect_tcp(address, port, left, local_address, socket_options), self._deadline)
            except httpcore.ConnectError as error:
                failed = error
        raise failed


def _addresses(host: str, deadline: _Deadline) -> list[str]:
    """The addresses of `host`. The system's resolver knows no deadline, so it is left behind in a thread when it hangs."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()
    threading.Thread(target=_resolve, args=(host, found), name=f"resolve {host}", daemon=True).start()
    try:
        answer = found.get(timeout=deadline.left(httpcore.ConnectTimeout))
    except queue.Empty as error:
        raise httpcore.ConnectTimeout("the name was not resolved in time") from error
    if isinstance(answer, OSError):
        raise _UnknownName from answer
    return answer


def _resolve(host: str, found: queue.SimpleQueue[list[str] | OSError]) -> None:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found.put(list(dict.fromkeys(str(answer[4][0]) for answer in answers)))
    except UnicodeError:
        found.put(OSError("the name cannot be asked for"))
    except OSError as error:
        found.put(error)


class _Transport(httpx.BaseTransport):
    """Sends requests where they point, or all of them to one pinned place."""

    def __init__(self, deadline: _Deadline, pin: httpx.URL | None) -> None:
        self._deadline, self._pin = deadline, pin
        self._pools: dict[str, httpcore.ConnectionPool] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url, headers, extensions = request.url, list(request.headers.raw), dict(request.extensions)
        scheme, host, port = url.scheme, url.host, url.port
        if self._pin is not None:
            scheme, host, port = self._pin.scheme, self._pin.host, self._pin.port
            extensions["sni_hostname"] = url.host
            if url.scheme == "https" and scheme == "http" and "X-Forwarded-Proto" not in request.headers:
                headers.append((b"X-Forwarded-Proto", b"https"))
        sent = httpcore.Request(
            request.method.encode(),
            httpcore.URL(scheme=scheme.encode(), host=host.encode(), port=port, target=url.raw_path),
            headers=headers,
            content=request.stream,
            extensions=extensions,
        )
        got = self._pool(url).handle_request(sent)
        return httpx.Response(got.status, headers=got.headers, stream=_Body(got), extensions=got.extensions)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, url: httpx.URL) -> httpcore.ConnectionPool:
        """A pool for each name, because pinned connections of two names go to one place and yet differ in TLS."""
        pool = self._pools.get(url.host)
        if pool is None:
            secure = (self._pin or url).scheme == "https"
            pool = httpcore.ConnectionPool(ssl_context=_trust() if secure else None, network_backend=_Network(self._deadline))
            self._pools[url.host] = pool
        return pool


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


@cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _charset(response: httpx.Response) -> str:
    name = response.charset_encoding or "utf-8"
    try:
        codecs.lookup(name)
    except LookupError:
        return "utf-8"
    return name


def _words(error: Exception) -> str:
    """What happened, without anything of the request or the response."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, _UnknownName):
            return "the host name was not found"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpcore.UnsupportedProtocol)):
        return "the URL cannot be used"
    if isinstance(error, (httpcore.ProtocolError, httpx.ProtocolError)):
        return "the answer broke off or is not HTTP"
    if isinstance(error, httpx.DecodingError):
        return "the body's encoding is broken"
    return "the connection failed" if isinstance(error, httpcore.ConnectError) else "the connection broke off"
