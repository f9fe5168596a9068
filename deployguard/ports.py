"""The contract with the world outside: what each port promises, and what survives a crash after each call.

Adapters live in `stores/`, `targets/`, `signals/` and `announce/`; one contract suite per port runs on every adapter.
"""

from __future__ import annotations

import datetime as dt
from typing import Protocol

from deployguard.model.document import Document, Request
from deployguard.model.reading import Answer
from deployguard.model.rollout import Entry
from deployguard.model.target import Arm, Desired, Instance, TargetView


class Store(Protocol):
    """The saved document of one guard, and its ledger."""

    def load(self) -> tuple[Document, str]:
        """The saved document and its revision; an empty document and revision `""` when nothing was saved.

        Raises `WorldError` when it cannot be read, `ForeignState` when it is not ours to read.
        """
        ...

    def save(self, document: Document, expected: str) -> str:
        """Replace the document if its revision is still `expected`; the new revision.

        After the return it survives a crash of the process and of the machine; after an error the old document is whole.
        Raises `StaleView` when somebody saved in between, `WorldError` when it cannot be written.
        """
        ...

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Put entries into the ledger, each durable and chained to the one before; ids already there are left alone."""
        ...

    def ledgered(self, rollout: str) -> int:
        """The highest entry number of `rollout` in the ledger; 0 when there is none."""
        ...


class Inbox(Protocol):
    """Requests of people to a guard."""

    def put(self, request: Request) -> None:
        """After the return the request survives a crash; putting the same id twice leaves one."""
        ...

    def pending(self) -> tuple[Request, ...]:
        """Requests not yet removed, oldest first. Unreadable ones are left out and reported in the log."""
        ...

    def remove(self, ids: tuple[str, ...]) -> None:
        """Remove requests that a saved document has consumed; unknown ids are harmless."""
        ...


class Target(Protocol):
    """The guarded workload."""

    def observe(self) -> TargetView:
        """What runs where now. Raises `WorldError` when the target cannot be asked."""
        ...

    def shift(self, desired: Desired, basis: str) -> None:
        """Accept `desired`, durably, and begin to bring it about.

        Raises `StaleView` when the fence is lower than the target's, when `basis` is not its present state, or when an equal
        fence would raise the exposure again after a retreat. Accepting the same desired state twice changes nothing.
        """
        ...

    def renew(self, fence: int, lease: float) -> None:
        """Keep the candidate for `lease` seconds more. Raises `StaleView` unless `fence` is the target's own and has not retreated."""
        ...


class Source(Protocol):
    """Where the numbers of one check come from."""

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:
        """What the instances of `arm` say at `now`, or why nothing came; for windows, counts over (through, now - lag].

        Never raises for trouble outside: that is a `Missing` with its reason. Returns within the source's own timeout.
        """
        ...

    def close(self) -> None:
        """End what the source keeps running."""
        ...


class Sink(Protocol):
    """Somebody who is told of transitions."""

    def announce(self, entry: Entry) -> None:
        """Deliver one entry, with its id. Raises `WorldError` when it was not delivered; it is then tried again."""
        ...
