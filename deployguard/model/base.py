"""The base of every saved value, and the one codec."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from deployguard.errors import ForeignState

T = TypeVar("T")


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value: built once, compared by content, never changed."""


def encode(value: object) -> bytes:
    """JSON with sorted keys: equal values give equal bytes."""
    return msgspec.json.encode(value, order="sorted")


def decode(data: bytes, kind: type[T]) -> T:
    """The value that `encode` wrote. Raises `ForeignState` when the bytes are not one."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ForeignState(
            f"could not read saved {kind.__name__}: {error}",
            hint="it was torn, edited, or written by another version of deployguard",
        ) from error
