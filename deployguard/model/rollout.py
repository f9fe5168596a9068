"""One attempt to go from the stable version to a candidate: a frozen value with a phase, a `seq` and a trail.

The phases are a tagged union: a rollout cannot hold fields of a phase it is not in. Deadlines are instants. `evidence`,
`exposed_since` and `latched` belong to the rollout, not to a phase.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from deployguard.model.base import Frozen
from deployguard.model.evidence import Evidence, Finding, Latched
from deployguard.model.target import Served
from deployguard.model.version import Version

HoldWord = Literal["blind", "both_bad", "samples", "paused", "approval", "drift", "source", "freeze"]
OutcomeWord = Literal["promoted", "unchanged", "rolled_back", "withdrawn", "failed", "refused", "superseded", "interrupted"]
BackWord = Literal[
    "fail",
    "lease",
    "blind",
    "samples",
    "approval",
    "hold",
    "abort",
    "interrupted",
    "rollback",
    "not_started",
    "relapse",
    "timeout",
    "superseded",
]


class Waiting(Frozen, frozen=True, tag="waiting", tag_field="phase"):
    """Nothing is exposed; `reasons` say what must change first (empty: go)."""

    reasons: tuple[str, ...] = ()
    since: dt.datetime | None = None


class Advancing(Frozen, frozen=True, tag="advancing", tag_field="phase"):
    """The target is being brought to `stage` (counted from 0); it has failed when it is not there by `deadline`."""

    stage: int
    deadline: dt.datetime


class Analyzing(Frozen, frozen=True, tag="analyzing", tag_field="phase"):
    """The stage is in place and has been watched without a gap since `since`. `entered` bounds its extensions."""

    stage: int
    since: dt.datetime
    entered: dt.datetime


class Holding(Frozen, frozen=True, tag="holding", tag_field="phase"):
    """Exposure stays as it is until `why` is over; `then` says whether the stage is watched again or the next one begins."""

    stage: int
    why: HoldWord
    text: str
    since: dt.datetime
    then: Literal["analyze", "advance"] = "analyze"


class Watching(Frozen, frozen=True, tag="watching", tag_field="phase"):
    """The candidate is stable; rollback stays armed until `until`. `blind` says which signals are silent meanwhile."""

    until: dt.datetime
    blind: str = ""


class RollingBack(Frozen, frozen=True, tag="rolling_back", tag_field="phase"):
    """The target is being brought back to version `to`. `rung` counts the ways tried, from 0.

    A passed `deadline` sets `overdue`, is announced, and changes nothing else.
    """

    to: Version
    rung: int
    why: BackWord
    text: str
    deadline: dt.datetime
    overdue: bool = False


class Verifying(Frozen, frozen=True, tag="verifying", tag_field="phase"):
    """Every reachable instance has said that it has loaded `to`; the relapse watch runs until `until`."""

    to: Version
    rung: int
    why: BackWord
    text: str
    until: dt.datetime
    acknowledged: tuple[str, ...] = ()


class Promoted(Frozen, frozen=True, tag="promoted", tag_field="phase"):
    """Terminal: the candidate is the stable version and the watch is over."""


class RolledBack(Frozen, frozen=True, tag="rolled_back", tag_field="phase"):
    """Terminal: every reachable instance runs `to`."""

    to: Version
    why: BackWord
    text: str


class Failed(Frozen, frozen=True, tag="failed", tag_field="phase"):
    """Terminal: nothing of the candidate is exposed, or a person closed it; `text` says what could not be done."""

    text: str


class Refused(Frozen, frozen=True, tag="refused", tag_field="phase"):
    """Terminal: it never started."""

    text: str


class Superseded(Frozen, frozen=True, tag="superseded", tag_field="phase"):
    """Terminal: another candidate took its place before anything was exposed, or after it was taken back."""

    text: str


Phase = (
    Waiting | Advancing | Analyzing | Holding | Watching | RollingBack | Verifying | Promoted | RolledBack | Failed | Refused | Superseded
)
TERMINAL = (Promoted, RolledBack, Failed, Refused, Superseded)


class Step(Frozen, frozen=True):
    """One line of the trail: when, which phase was entered, and why."""

    at: dt.datetime
    phase: str
    text: str


class Entry(Frozen, frozen=True):
    """One line of the ledger. `n` counts from 1 within the rollout; `rollout/n` is its id, also of its announcement.

    `event`: transition, claim, request, overdue or reading. `data` holds what replay and `why` need, never a secret.
    """

    rollout: str
    n: int
    at: dt.datetime
    guard: str
    event: str
    phase: str
    text: str
    data: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """The id that receivers use to drop a repeated announcement."""
        return f"{self.rollout}/{self.n}"


class Rollout(Frozen, frozen=True):
    """The rollout. `seq` is its present fence: it grows whenever what the target shall do changes.

    `kind` `return` goes back to a named version without a candidate. `spec` is the resolved policy as JSON and `announce` the
    sinks, so that any driver can go on with the saved state alone. `adopted`: the version to go back to was found running and
    has not been seen healthy.
    `place` says where a workload of a cluster lives and what it reads; `surge`: its candidates come on top of the `wanted` instances.
    `first_seq` is its first fence, `fence_seen` the highest that the target was ever seen to carry for it.
    `updated` is the last instant at which the target was seen; a gap between two of them has not been watched.
    `exposed_most` is the largest number of instances of `wanted` that ever ran the candidate.
    `findings` are what the checks said at `told`.
    `stable_doomed`: when a stable instance was last seen doomed since the exposure began, by the way of it (exit, refused).
    `outbox` are entries not yet known to be in the ledger and announced; `written` counts all of them.
    """

    id: str
    kind: Literal["candidate", "return"]
    guard: str
    target: str
    spec: dict[str, Any]
    candidate: Version
    stable: Version
    seq: int
    phase: Phase
    started: dt.datetime
    updated: dt.datetime
    adopted: bool = False
    override: str = ""
    announce: tuple[dict[str, Any], ...] = ()
    wanted: int = 0
    exposed_most: int = 0
    exposed_since: dt.datetime | None = None
    first_seq: int = 0
    fence_seen: int = 0
    evidence: dict[str, Evidence] = {}
    findings: tuple[Finding, ...] = ()
    told: dt.datetime | None = None
    stable_doomed: dict[str, dt.datetime] = {}
    latched: Latched | None = None
    decided: dt.datetime | None = None
    restored: dt.datetime | None = None
    approved: tuple[int, ...] = ()
    paused: str = ""
    trail: tuple[Step, ...] = ()
    outbox: tuple[Entry, ...] = ()
    written: int = 0
    announced: int = 0
    served_before: dict[str, Served] = {}
    served: dict[str, Served] = {}
    place: dict[str, Any] = {}
    surge: bool = False

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen to it."""
        return isinstance(self.phase, TERMINAL)


def phase_name(phase: Phase) -> str:
    """The phase's name in YAML, JSON and on the terminal: `rolling_back`."""
    return str(phase.__struct_config__.tag)
