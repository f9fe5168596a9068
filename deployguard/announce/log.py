"""Announcements in the log of this process, one line each, for whoever collects logs anyway."""

from __future__ import annotations

import json
import logging
import re

from deployguard.model.rollout import Entry

log = logging.getLogger("deployguard")
_PLAIN = re.compile(r"[\w./:@%+-]+", re.ASCII)


def _value(text: str) -> str:
    """The text as one word of a line: quoted unless it is one already, so that no text can forge a line."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def line(entry: Entry) -> str:
    """`event key=value ...` on one line."""
    pairs = {"guard": entry.guard, "id": entry.id, "phase": entry.phase, "text": entry.text}
    return " ".join([_value(entry.event), *(f"{key}={_value(value)}" for key, value in pairs.items())])


class ToLog:
    """Announces to the `deployguard` logger."""

    name = "log"

    def announce(self, entry: Entry) -> None:
        """One line has been logged."""
        log.info("%s", line(entry))
