"""What an announcement says: one JSON form for every receiver."""

from __future__ import annotations

from typing import Any

from deployguard.model.base import encode
from deployguard.model.rollout import Entry


def body(entry: Entry) -> dict[str, Any]:
    """The announcement of `entry`, ready for JSON. A receiver drops what it has seen by `id`: delivery is at least once.

    | key | holds |
    |---|---|
    | `id` | `rollout/n`: equal for every attempt |
    | `rollout`, `n` | the rollout, and the number of the entry within it, from 1 |
    | `guard` | the guard's name |
    | `at` | the instant of the decision, RFC 3339 in UTC |
    | `event` | transition, claim, request, overdue or reading |
    | `phase` | the phase after it, such as `rolling_back` |
    | `text` | one sentence for people |
    | `data` | the numbers behind it, as in the ledger, which holds no secret |
    """
    return {
        "id": entry.id,
        "rollout": entry.rollout,
        "n": entry.n,
        "guard": entry.guard,
        "at": entry.at.isoformat().replace("+00:00", "Z"),
        "event": entry.event,
        "phase": entry.phase,
        "text": entry.text,
        "data": entry.data,
    }


def body_bytes(entry: Entry) -> bytes:
    """The announcement as it goes over the wire: equal for every attempt, byte for byte."""
    return encode(body(entry))
