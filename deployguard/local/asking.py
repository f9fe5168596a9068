"""How an instance is asked whether it is ready and what it has loaded.

A small HTTP GET of our own, because hundreds of instances are asked twice a second from one event loop and nothing of a
real client is needed: no redirects, no pool, no TLS.
"""

from __future__ import annotations

import asyncio
import enum
import json
import re

import httptools

_BODY_LIMIT = 1 << 20
_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^']*)'\]")


class Answered(enum.Enum):
    """What an instance showed when it was asked."""

    CLOSED = "closed"
    LISTENING = "listening"
    READY = "ready"


class _Response:
    """Collects one response."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


async def ask(host: str, port: int, path: str | None, seconds: float) -> Answered:
    """Whether the instance accepts connections, and, with a path, whether it answers 200 to 399 there in time."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return Answered.CLOSED
    if path is None:
        writer.close()
        return Answered.READY
    try:
        async with asyncio.timeout(seconds):
            status, _ = await _exchange(reader, writer, host, port, path)
    except (OSError, TimeoutError, ValueError):
        return Answered.LISTENING
    return Answered.READY if 200 <= status <= 399 else Answered.LISTENING


async def read_json(host: str, port: int, path: str, seconds: float) -> object:
    """The JSON document at `path`. Raises ValueError or OSError when there is none in time."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(host, port)
        status, body = await _exchange(reader, writer, host, port, path)
    if status != 200:
        raise ValueError(f"status {status}")
    return json.loads(body)


def pick(document: object, path: str) -> object:
    """The value at a JSONPath of the plain kind `$.a.b[0]['c d']`; None when there is none."""
    place = 1
    found = document
    while place < len(path):
        step = _STEP.match(path, place)
        if step is None:
            raise ValueError(f"`{path}` is not a path such as $.a.b[0]")
        place = step.end()
        name = step[1] if step[1] is not None else step[3]
        if name is not None:
            found = found.get(name) if isinstance(found, dict) else None
        else:
            index = int(step[2])
            found = found[index] if isinstance(found, list) and index < len(found) else None
    return found


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, path: str) -> tuple[int, bytes]:
    try:
        name = f"[{host}]" if ":" in host else host
        request = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: deployguard\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        response = _Response()
        parser = httptools.HttpResponseParser(response)
        while not response.complete and (data := await reader.read(65536)):
            parser.feed_data(data)
            if len(response.body) > _BODY_LIMIT:
                raise ValueError("the answer is too long")
        status = int(parser.get_status_code())
        if not status:
            raise ValueError("no answer")
        return status, bytes(response.body)
    except httptools.HttpParserError as error:
        raise ValueError(str(error)) from error
    finally:
        writer.close()
