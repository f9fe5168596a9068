"""Everything a driver is given: the ports of one guard, and who drives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from deployguard.clock import Clock
from deployguard.model.rollout import Entry
from deployguard.ports import Inbox, Source, Store, Target

if TYPE_CHECKING:
    from deployguard.model.policy import Policy


class Announcer(Protocol):
    """Delivers entries to the sinks in its own time."""

    def offer(self, entries: Iterable[Entry]) -> None:
        """Entries are delivered some time after the return; those offered before are left alone."""
        ...

    def delivered(self, rollout: str) -> int:
        """The highest entry number of `rollout` that every sink has."""
        ...


class Readings(Protocol):
    """The log of what was seen, for replay. Losing it loses no promise."""

    @property
    def losses(self) -> int:
        """How often records were lost that `append` had taken; whoever goes on from them must begin anew."""
        ...

    def append(self, rollout: str, record: dict[str, Any]) -> None:
        """The record is written some time after the return."""
        ...


def _never(_: str) -> bool:
    return False


def _nobody() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class World:
    """The ports of one guard. `me` names this driver; `gone` says of another that it certainly runs no more.

    `stopped` gives the reason of the global stop, `patience` is how long one reading may take in seconds.
    """

    policy: Policy
    store: Store
    inbox: Inbox
    target: Target
    sources: Mapping[str, Source]
    announcer: Announcer
    clock: Clock
    me: str
    gone: Callable[[str], bool] = _never
    stopped: Callable[[], str] = _nobody
    readings: Readings | None = None
    patience: float = 5.0
