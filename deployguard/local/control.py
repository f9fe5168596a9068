"""What is said over the control socket of a fleet: one JSON line asks, one JSON line answers."""

from __future__ import annotations

import msgspec

from deployguard.model.base import Frozen
from deployguard.model.target import Desired, TargetView

LINE_LIMIT = 1 << 24


class Ask(Frozen, frozen=True, tag_field="op"):
    """The base of all questions."""


class Ping(Ask, frozen=True, tag="ping"):
    """Is anybody there?"""


class Observe(Ask, frozen=True, tag="observe"):
    """What runs where now?"""


class Counts(Ask, frozen=True, tag="counts"):
    """How many user requests has each process answered?"""


class Shift(Ask, frozen=True, tag="shift"):
    """Bring `desired` about, if the fleet is still as `basis` says."""

    desired: Desired
    basis: str


class Renew(Ask, frozen=True, tag="renew"):
    """Keep the candidates for `lease` seconds more."""

    fence: int
    lease: float


class Restart(Ask, frozen=True, tag="restart"):
    """Restart these instances, all when none is named, without a change of version."""

    instances: tuple[str, ...] = ()


class LogPath(Ask, frozen=True, tag="log_path"):
    """Where does this instance log?"""

    instance: str


class Down(Ask, frozen=True, tag="down"):
    """End everything."""


Question = Ping | Observe | Counts | Shift | Renew | Restart | LogPath | Down


class Counted(Frozen, frozen=True):
    """User requests that one process has answered since it was started, and how many of them failed."""

    requests: int = 0
    failed: int = 0
    in_flight: int = 0
    arm: str = ""
    version: str = ""


class Reply(Frozen, frozen=True):
    """The answer. `error` is empty, or says whose fault it was: `stale`, `user`, `world`."""

    error: str = ""
    message: str = ""
    hint: str = ""
    view: TargetView | None = None
    counts: dict[str, Counted] = {}
    path: str = ""
    pid: int = 0


QUESTION = msgspec.json.Decoder(Question)
