"""The control socket: who may speak, and how a question becomes an answer.

Whoever can speak here can start processes as the owner, so the directory, the socket and the peer are all checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from deployguard.errors import DeployguardError, StaleView, UserError, WorldError
from deployguard.local.control import LINE_LIMIT, QUESTION, Question, Reply
from deployguard.model.base import encode

Answerer = Callable[[Question], Awaitable[Reply]]
_DARWIN_LOCAL_PEERCRED = 1

logger = logging.getLogger(__name__)


async def serve(path: Path, answer: Answerer) -> asyncio.Server:
    """The socket at `path` answers its owner, and nobody else."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _converse(reader, writer, answer)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            logger.info("a client of the control socket went away")
        finally:
            writer.close()

    try:
        server = await asyncio.start_unix_server(connected, path=path, limit=LINE_LIMIT)
        path.chmod(0o600)
    except OSError as error:
        raise WorldError(
            f"could not open the control socket {path}: {error}", hint="is the directory on a file system with sockets?"
        ) from error
    return server


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answerer) -> None:
    peer = peer_uid(writer.get_extra_info("socket"))
    if peer is not None and peer != os.getuid():
        logger.warning("refused user %d at the control socket", peer)
        return
    while line := await reader.readline():
        writer.write(encode(await _answer(line, answer)) + b"\n")
        await writer.drain()


async def _answer(line: bytes, answer: Answerer) -> Reply:
    try:
        return await answer(QUESTION.decode(line))
    except msgspec.DecodeError as error:
        return Reply("user", f"the supervisor does not understand the request: {error}", "is it of another version of deployguard?")
    except DeployguardError as error:
        kind = "stale" if isinstance(error, StaleView) else "user" if isinstance(error, UserError) else "world"
        return Reply(kind, error.message, error.hint)


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end of a Unix socket; None where the platform does not say."""
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", data)[1])
    if sys.platform == "darwin":
        # struct xucred: a version, then the effective user; level 0 is SOL_LOCAL.
        data = connection.getsockopt(0, _DARWIN_LOCAL_PEERCRED, 76)
        return int(struct.unpack_from("II", data)[1])
    return None
