"""What a tick may do to the world, and what it decided.

Actions are the difference between what the saved phase wants and what the view shows: performing one twice is harmless.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from deployguard.model.document import Document, Request
from deployguard.model.reading import Answer, Missing
from deployguard.model.rollout import Entry
from deployguard.model.target import Desired, TargetView


@dataclass(frozen=True, slots=True)
class Shift:
    """Bring the target to `desired`, if it is still what `basis` names."""

    desired: Desired
    basis: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew the lease of the candidate's instances under `fence`."""

    fence: int
    lease: float


@dataclass(frozen=True, slots=True)
class Append:
    """Put entries into the ledger; those already there are left alone."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the sinks, at least once each."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove consumed requests from the inbox."""

    requests: tuple[str, ...]


Action = Shift | Renew | Append | Announce | Forget


@dataclass(frozen=True, slots=True)
class Observation:
    """What a tick saw. `answers` by check and path (`stable`, `candidate`, and `all` for journeys)."""

    view: TargetView | Missing
    answers: dict[str, dict[str, Answer]]
    requests: tuple[Request, ...] = ()
    ledgered: int = 0
    announced: int = 0
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What `step` decided: the document to save if `moved` or a checkpoint is due, what to do after it, when to look again.

    `outdated`: the target carries a higher fence, so this is an old copy: do nothing and reload.
    """

    document: Document
    actions: tuple[Action, ...]
    wake: dt.datetime
    moved: bool
    outdated: bool = False
