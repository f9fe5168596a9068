"""What a fleet saves, so that it can start again from its own disk, with no guard and no network."""

from __future__ import annotations

import logging

from deployguard.errors import ForeignState
from deployguard.local.layout import Layout, read_bytes
from deployguard.model.base import Frozen, decode
from deployguard.model.target import Desired, Served
from deployguard.model.version import Version

logger = logging.getLogger(__name__)


class Assignments(Frozen, frozen=True):
    """Which slot shall run what, and under whose word. Saved before anything is done about it.

    `generation` grows with every accepted change and every retreat; as text it is the basis of conditional writes.
    `stable` is what slots fall back to. `restarted` is, by slot, the last fence under which it was restarted on request.
    `stables` are the last versions that were stable, newest first.
    """

    adopted: Version
    stable: Version
    slots: dict[str, Version]
    fence: int = 0
    generation: int = 1
    told: Desired | None = None
    retreated: int | None = None
    restarted: dict[str, int] = {}
    stables: tuple[Version, ...] = ()

    @property
    def basis(self) -> str:
        return str(self.generation)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The slots that are assigned something else than stable."""
        return tuple(slot for slot, version in self.slots.items() if version != self.stable)


class Places(Frozen, frozen=True):
    """Addresses that were chosen once and then kept: a port for each slot, an address for each listener."""

    ports: dict[str, int]
    listeners: dict[str, str]


class Identity(Frozen, frozen=True):
    """A process, named so that a later one with the same number is not taken for it."""

    pid: int
    created: float


class SupervisorRecord(Frozen, frozen=True):
    """The supervisor that runs, or ran last: who it is, and where it listens."""

    pid: int
    created: float
    socket: str
    started: str

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.created)


class Totals(Frozen, frozen=True):
    """User requests answered so far, by version digest, over all balancers that ever ran."""

    versions: dict[str, Served] = {}


def supervisor_of(layout: Layout) -> SupervisorRecord | None:
    """The recorded supervisor, whether or not it still runs."""
    data = read_bytes(layout.supervisor)
    if data is None:
        return None
    try:
        return decode(data, SupervisorRecord)
    except ForeignState:
        logger.warning("ignoring the damaged record %s", layout.supervisor)
        return None
