"""What has been learnt so far, per check, and what it says now. All of it is saved with the rollout.

A check's evidence carries `through`, the instant up to which both arms have been counted: what is read twice counts
once, and what is not read is a gap, not a zero. Each kind of check has its own; what they share is `CheckEvidence`.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

from deployguard.model.base import Frozen
from deployguard.model.reading import Counter

VerdictWord = Literal["pass", "fail", "blind", "undecided"]
Tallies = tuple[float, ...]
"""Counts by category, the best first."""


class Process(Frozen, frozen=True):
    """An e-process over a grid of bets: evidence against one null hypothesis, valid at every look.

    `whole[g]` is the log capital of bet g played from the start. `late[g]` is the capital itself of its late-onset twin (empty when
    late onset is off), and `rest` the part of the late capital that has not been placed yet. `best` is the largest log evidence
    ever reached.
    """

    whole: tuple[float, ...]
    late: tuple[float, ...] = ()
    rest: float = 1.0
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


class Learnt(Frozen, frozen=True):
    """What stable's own past says about a check's noise: measured before the rollout.

    `phi` is how many errors come in one clump, `bad` how many errors it was measured on, `seconds` over how long, and `placebos` how
    many stable instances played the candidate without being condemned more often than the confidence allows.
    """

    phi: float = 1.0
    bad: float = 0.0
    seconds: float = 0.0
    placebos: int = 0


class Spread(Frozen, frozen=True, array_like=True):
    """Running sums of the dispersion of stable's bad requests, between instances inside a poll and between neighbouring polls.

    `num` and `den` are those of docs/statistics.md section 4. `free` are the degrees of freedom that they rest on: of each poll one less
    than its units, or its bad requests if they are fewer. `total` and `missed` are the poll that still waits for its neighbour.
    """

    num: float = 0.0
    den: float = 0.0
    free: float = 0.0
    paired_num: float = 0.0
    paired_den: float = 0.0
    paired_free: float = 0.0
    total: float = -1.0
    missed: float = 0.0


class Stratum(Frozen, frozen=True):
    """The comparison within one stratum (a route, say; all requests when there are none).

    `history` is what was known of stable before the exposure, `seen` what stable served since in blocks that were played. `pile` is
    what waits until both arms have served, `proof` what waits to be played against the promote rule's null.
    """

    history: Counter = Counter(0.5, 50.0)
    seen: Counter = Counter(0.0, 0.0)
    pile: Block = Block()
    piled: float = 0.0
    proof: Block = Block()


class CheckEvidence(Frozen, frozen=True, kw_only=True):
    """What the evidence of all kinds of checks shares."""

    through: dt.datetime | None = None
    read_at: dict[str, dt.datetime] = {}
    gaps: dict[str, Gap] = {}
    first_bad: dt.datetime | None = None


class Split(Frozen, frozen=True, array_like=True):
    """Requests of both arms while the candidate was given `share` of them; `carried` is the log evidence of the stages before."""

    share: float = 0.0
    mine: float = 0.0
    theirs: float = 0.0
    carried: float = 0.0


class Limited(Frozen, frozen=True):
    """One arm against a fixed rate: the process, and what still waits to be played."""

    process: Process
    good: float = 0.0
    bad: float = 0.0
    seconds: float = 0.0


class CountsEvidence(CheckEvidence, frozen=True, kw_only=True, tag="counts", tag_field="kind"):
    """Bad and total requests. `last` holds the counters of each instance by arm, `parts` the same by stratum.

    `strata` is the comparison within each stratum (`""` when there are none), `counted` what each arm served, `proven` the seconds since
    the promote rule was last played, `split` how the traffic was shared out.
    """

    last: dict[str, dict[str, Counter]] = {}
    parts: dict[str, dict[str, dict[str, Counter]]] = {}
    strata: dict[str, Stratum] = {}
    learnt: Learnt = Learnt()
    spread: Spread = Spread()
    split: Split = Split()
    worse: Process | None = None
    floor: Limited | None = None
    limit: dict[str, Limited] = {}
    same: Process | None = None
    proven: float = 0.0
    blocks: int = 0
    counted: dict[str, Counter] = {}
    segments: tuple[Block, ...] = ()


class Both(Frozen, frozen=True, array_like=True):
    """Requests of both arms over the same time, by category."""

    mine: Tallies
    theirs: Tallies


class CategoriesEvidence(CheckEvidence, frozen=True, kw_only=True, tag="categories", tag_field="kind"):
    """Requests by ordered categories: the buckets of a latency histogram, or classes of status codes.

    `edges` are the upper bounds of all categories but the last (empty for classes). `marks` are the categories from which a request
    counts as slow, one for each tail that is watched; `base` the distribution that the present bets are made from. `learnt` and `spreads`
    are the noise of the compared tails, one for each.
    """

    edges: tuple[float, ...] = ()
    last: dict[str, dict[str, Tallies]] = {}
    history: Tallies = ()
    seen: Tallies = ()
    base: Tallies = ()
    marks: tuple[int, ...] = ()
    pile: dict[str, Tallies] = {}
    piled: float = 0.0
    proof: dict[str, Tallies] = {}
    proven: float = 0.0
    learnt: tuple[Learnt, ...] = ()
    spreads: tuple[Spread, ...] = ()
    worse: Process | None = None
    same: tuple[Process, ...] = ()
    blocks: int = 0
    counted: dict[str, Tallies] = {}
    segments: tuple[Both, ...] = ()


class Sampled(Frozen, frozen=True, array_like=True):
    """Samples of a gauge in the present block: their sum and their number."""

    total: float = 0.0
    samples: int = 0


class GaugeEvidence(CheckEvidence, frozen=True, kw_only=True, tag="gauge", tag_field="kind"):
    """A gauge, by means over blocks of at least a quarter of a minute.

    `chosen` are the instances of each arm that this block compares, equally many, chosen when it began; `sampled` their samples so far.
    `means` are those of each arm's last whole block; `above` counts the blocks in which the candidate was worse than tolerated.
    """

    began: dt.datetime | None = None
    chosen: dict[str, tuple[str, ...]] = {}
    sampled: dict[str, dict[str, Sampled]] = {}
    means: dict[str, float] = {}
    totals: dict[str, Sampled] = {}
    worse: Process | None = None
    limit: dict[str, Process] = {}
    same: Process | None = None
    blocks: int = 0
    above: int = 0


class JourneyEvidence(CheckEvidence, frozen=True, kw_only=True, tag="journey", tag_field="kind"):
    """Walks of a journey, by path."""

    walks: dict[str, Streak] = {}


class Happened(Frozen, frozen=True, array_like=True):
    """Events of one arm, and the instance-seconds in which they happened."""

    events: float = 0.0
    seconds: float = 0.0


class EventsEvidence(CheckEvidence, frozen=True, kw_only=True, tag="events", tag_field="kind"):
    """Exits of instances by themselves, per instance-second. `exits` is what each place had counted, with the version it ran."""

    exits: dict[str, tuple[str, int]] = {}
    at: dt.datetime | None = None
    worse: Process | None = None
    counted: dict[str, Happened] = {}


Evidence = CountsEvidence | CategoriesEvidence | GaugeEvidence | JourneyEvidence | EventsEvidence


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
    phi: float | None = None


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
