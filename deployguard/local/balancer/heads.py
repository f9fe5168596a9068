"""Turns heads that llhttp has read into the heads that are sent on.

Framing is never copied: it is worked out once, here, from what the parser accepted, and written anew. What two servers could read in
two ways (several hosts, an encoding other than `chunked`) is refused.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import httptools

Headers = list[tuple[bytes, bytes]]

LIMIT = 65536
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"})
# Written anew or dropped: they speak of one connection, or of who asked.
_REQUEST_OWN = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
    }
)
_RESPONSE_OWN = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"}
)
_PLAIN_TOKENS = frozenset({b"", b"close", b"keep-alive", b"upgrade"})
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+;=%:\[\]-]*")
_SWITCHING = 101
_NO_CONTENT = 204
_NOT_MODIFIED = 304


class Refusal(Exception):
    """The request may not be sent on; `status` and the text tell the client why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class BadResponse(Exception):
    """The instance's answer cannot be sent on."""


class Request:
    """A request's head as it is sent to an instance, and what must be known to answer it."""

    __slots__ = ("body", "chunked", "expects", "framing", "head", "idempotent", "is_head", "keep", "line", "old", "upgrade")

    def __init__(self) -> None:
        self.head = b""
        self.framing = b""
        self.line = ""
        self.body = False
        self.chunked = False
        self.keep = False
        self.old = False
        self.idempotent = False
        self.is_head = False
        self.expects = False
        self.upgrade = False


class Response:
    """A response's head as it is sent to the client, and how the body is framed on both sides."""

    __slots__ = ("bodiless", "chunk", "head", "keep", "length", "reuse", "until_close")

    def __init__(self) -> None:
        self.head = b""
        self.bodiless = False
        self.chunk = False  # the client gets it in chunks
        self.length = False  # the head says how long it is
        self.until_close = False  # it ends when the instance closes
        self.keep = False  # the client's connection can be used again
        self.reuse = False  # the instance's connection can be used again


def read_request(method: bytes, target: bytes, version: str, headers: Headers, peer: bytes) -> Request:
    """The request as an instance is to get it. Raises `Refusal`."""
    own, out = _sort(headers, _REQUEST_OWN)
    host = own.get(b"host")
    target, host = _target(method, target, host)
    if version not in ("1.1", "1.0"):
        raise Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    request = Request()
    request.old = version == "1.0"
    if host is None:
        if not request.old:
            raise Refusal(400, "the request names no host")
    elif _HOST.fullmatch(host) is None:
        raise Refusal(400, "the request's host cannot be used")
    tokens = _tokens(own)
    request.keep = b"keep-alive" in tokens if request.old else b"close" not in tokens
    request.idempotent = method in _IDEMPOTENT
    request.is_head = method == b"HEAD"
    # What follows the path may be a secret; this goes to the log.
    request.line = f"{method.decode('latin-1')} {target.partition(b'?')[0].decode('latin-1')}"
    head = [method, b" ", target, b" HTTP/1.1\r\n"]
    if host is not None:
        head += (b"Host: ", host, b"\r\n")
    head += out
    request.framing = _framing(request, own)
    head.append(request.framing)
    expect = own.get(b"expect")
    if expect is not None and not request.old:
        request.expects = expect.lower() == b"100-continue"
        head += (b"Expect: ", expect, b"\r\n")
    if b"upgrade" in tokens and b"upgrade" in own:
        _offer(request, own[b"upgrade"], head)
    _forwarded(own, host, peer, head)
    head.append(b"\r\n")
    request.head = b"".join(head)
    return request


def _sort(headers: Headers, known: frozenset[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The headers that are written anew, and the lines of the others."""
    own: dict[bytes, bytes] = {}
    out: list[bytes] = []
    for name, value in headers:
        low = name.lower()
        if low in known:
            own[low] = value if low not in own else own[low] + b", " + value
        else:
            out += (name, b": ", value, b"\r\n")
    if b"connection" in own:
        # `Connection` may name further headers that belong to this connection alone.
        named = _tokens(own) - _PLAIN_TOKENS - known
        if named:
            rest = [(name, value) for name, value in headers if name.lower() not in named]
            return own, _sort([(n, v) for n, v in rest if n.lower() not in known], known)[1]
    return own, out


def _tokens(own: dict[bytes, bytes]) -> set[bytes]:
    value = own.get(b"connection")
    return set() if value is None else {token.strip().lower() for token in value.split(b",")}


def _target(method: bytes, target: bytes, host: bytes | None) -> tuple[bytes, bytes | None]:
    """The target in the form that servers expect, and the host it was meant for."""
    if target.startswith(b"/") and b"#" not in target:
        return target, host
    if method == b"CONNECT":
        raise Refusal(501, "this is not a forward proxy")
    if target == b"*" and method == b"OPTIONS":
        return target, host
    if b"#" in target or not target.lower().startswith((b"http://", b"https://")):
        raise Refusal(400, "the request's target cannot be used")
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Refusal(400, "the request's target cannot be used") from None
    path = url.path or b"/"
    authority = target.split(b"/", 3)[2].split(b"?", 1)[0].rpartition(b"@")[2]
    return (path + b"?" + url.query if url.query else path), authority


def _framing(request: Request, own: dict[bytes, bytes]) -> bytes:
    """The line that says how long the body is."""
    encoding, length = own.get(b"transfer-encoding"), own.get(b"content-length")
    lines = b""
    if encoding is not None:
        if request.old or length is not None or encoding.lower() != b"chunked":
            raise Refusal(400, "the length of the request's body cannot be told for sure")
        request.body = request.chunked = True
        lines = b"Transfer-Encoding: chunked\r\n"
    elif length is not None:
        if not length.isdigit():
            raise Refusal(400, "the length of the request's body cannot be told for sure")
        request.body = int(length) > 0
        lines = b"Content-Length: %d\r\n" % int(length)
    return lines


def _offer(request: Request, value: bytes, head: list[bytes]) -> None:
    """Another protocol is offered to the instance; HTTP/2, or one that begins after a body, is not: it cannot be a tunnel."""
    if request.body or request.old or b"h2c" in value.lower():
        return
    request.upgrade = True
    head += (b"Connection: Upgrade\r\nUpgrade: ", value, b"\r\n")


def _forwarded(own: dict[bytes, bytes], host: bytes | None, peer: bytes, head: list[bytes]) -> None:
    before = own.get(b"x-forwarded-for")
    head += (b"X-Forwarded-For: ", peer if before is None else before + b", " + peer, b"\r\n")
    head += (b"X-Forwarded-Proto: ", own.get(b"x-forwarded-proto", b"http"), b"\r\n")
    asked = own.get(b"x-forwarded-host", host)
    if asked is not None:
        head += (b"X-Forwarded-Host: ", asked, b"\r\n")


def read_response(status: int, reason: bytes, version: str, headers: Headers, request: Request) -> Response:
    """The response as the client is to get it. Raises `BadResponse`."""
    own, out = _sort(headers, _RESPONSE_OWN)
    tokens = _tokens(own)
    response = Response()
    head = [b"HTTP/1.1 %d " % status, reason, b"\r\n", *out]
    if status == _SWITCHING:
        if not request.upgrade or b"upgrade" not in own:
            raise BadResponse("it switched protocols without being asked")
        head += (b"Connection: Upgrade\r\nUpgrade: ", own[b"upgrade"], b"\r\n\r\n")
        response.head = b"".join(head)
        response.bodiless = response.keep = True
        return response
    encoding, length = own.get(b"transfer-encoding"), own.get(b"content-length")
    if encoding is not None and encoding.lower() != b"chunked":
        raise BadResponse(f"its transfer encoding {encoding.decode('latin-1')!r} is not known here")
    response.keep = request.keep
    response.bodiless = request.is_head or status in (_NO_CONTENT, _NOT_MODIFIED)
    if length is not None and status != _NO_CONTENT:
        response.length = True
        head += (b"Content-Length: ", length, b"\r\n")
    if not response.bodiless:
        response.until_close = encoding is None and length is None
        if length is None:
            # Without a length there are chunks for whoever knows them; for the others the end of the connection is the end.
            response.chunk = not request.old
            response.keep = request.keep and not request.old
            head.append(b"Transfer-Encoding: chunked\r\n" if response.chunk else b"")
    response.reuse = not response.until_close and (b"close" not in tokens if version == "1.1" else b"keep-alive" in tokens)
    if not response.keep:
        head.append(b"Connection: close\r\n")
    elif request.old:
        head.append(b"Connection: keep-alive\r\n")
    head.append(b"\r\n")
    response.head = b"".join(head)
    return response


def interim(status: int, reason: bytes, headers: Headers) -> bytes:
    """A head that comes before the real one, as the client is to get it."""
    _, out = _sort(headers, _RESPONSE_OWN)
    return b"".join([b"HTTP/1.1 %d " % status, reason, b"\r\n", *out, b"\r\n"])


def own_response(status: int, tag: str, text: str, *, keep: bool, is_head: bool) -> bytes:
    """A whole response by the balancer itself; `tag` says so in a header."""
    body = f"{text}\n".encode("latin-1", "replace")
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nX-Deployguard: {tag}\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        f"Content-Length: {len(body)}\r\n{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n"
    ).encode("ascii")
    return head if is_head else head + body
