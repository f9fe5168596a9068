"""What has been learnt so far, per check, and what it says now. All of it is saved with the rollout.

A check's evidence carries `through`, the instant up to which both arms have been counted: what is read twice counts
once, and what is not read is a gap, not a zero.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

from deployguard.model.base import Frozen
from deployguard.model.reading import Counter

VerdictWord = Literal["pass", "fail", "blind", "undecided"]


class Process(Frozen, frozen=True):
    """An e-process over a grid of bets, in nats: evidence against one null hypothesis, valid at every look.

    `whole[g]` is the log capital of bet g played from the start, `late[g]` of its late-onset twin (empty when late onset is
    off), `rest` the log of the capital that has not been placed yet. `best` is the largest log evidence ever reached.
    """

    whole: tuple[float, ...]
    late: tuple[float, ...] = ()
    rest: float = 0.0
    best: float = 0.0


class Block(Frozen, frozen=True, array_like=True):
    """Requests of both arms over the same interval: total and bad of the candidate, total and bad of stable."""

    n1: float = 0.0
    e1: float = 0.0
    n0: float = 0.0
    e0: float = 0.0


class Gap(Frozen, frozen=True):
    """A signal that is not there: since when, and why."""

    since: dt.datetime
    reason: str
    detail: str = ""


class Streak(Frozen, frozen=True):
    """Walks of a journey on one path: how many in a row were red, how many there were, and where the last red one broke."""

    through: dt.datetime
    red: int = 0
    walks: int = 0
    failed: int = 0
    step: str = ""
    detail: str = ""


class CheckEvidence(Frozen, frozen=True):
    """The evidence of one check. Fields that its kind does not use stay at their defaults."""

    through: dt.datetime | None = None
    last: dict[str, dict[str, Counter]] = {}
    read_at: dict[str, dt.datetime] = {}
    gaps: dict[str, Gap] = {}
    history: Counter = Counter(0.5, 50.0)
    pile: Block = Block()
    piled: int = 0
    worse: Process | None = None
    floor: Process | None = None
    limit: dict[str, Process] = {}
    same: Process | None = None
    blocks: int = 0
    counted: dict[str, Counter] = {}
    segments: tuple[Block, ...] = ()
    walks: dict[str, Streak] = {}
    first_bad: dt.datetime | None = None


class Finding(Frozen, frozen=True):
    """What one check says now, with every number that `why` prints.

    `value` is the evidence (E, not its logarithm) and `needed` what it takes; `ratio` is the candidate's rate over stable's
    with its interval at the policy's confidence. None where there is nothing to say.
    """

    check: str
    verdict: VerdictWord
    reason: str
    text: str
    counts: dict[str, Counter] = {}
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    value: float | None = None
    needed: float | None = None
    limit: str = ""


class Verdict(Frozen, frozen=True):
    """The verdict of a tick: the worst of its findings by the table of precedence, and that table's reason."""

    word: VerdictWord
    reason: str
    text: str
    findings: tuple[Finding, ...] = ()


class Latched(Frozen, frozen=True):
    """A FAIL. It stays: a later good minute does not undo it."""

    at: dt.datetime
    reason: str
    text: str
    findings: tuple[Finding, ...]
    exposed: int
    wanted: int
    first_bad: dt.datetime | None = None
