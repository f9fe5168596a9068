"""Every outcome of a few small polls with its probability: expectations without chance."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deployguard.analysis import bets, counts
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.eprocess import log_sum
from deployguard.model.evidence import CountsEvidence
from deployguard.model.reading import Answer, Counter, Counters
from deployguard.model.target import CANDIDATE, STABLE

T = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BARE = CountsRules(
    compare=True, ratio=1.0, margin=0.0, floor=0.0, claims=2, limit=None, dispersion=1.0, late_onset=False, cap=None, alpha=0.01,
    weight=1.0, proof=False, grid=bets.REFERENCE, interval=1.0,
)  # fmt: skip
"""The comparison alone, without tolerance or any other protection."""
ROUNDING = 1e-9
THRESHOLDS = (1.02, 1.3, 2.0, 5.0, 20.0)


def at(seconds: float) -> dt.datetime:
    return T + dt.timedelta(seconds=seconds)


def binomial(n: int, k: int, p: float) -> float:
    """P(k bad ones among n)."""
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def multinomial(n: int, p: Sequence[float]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every way to spread n requests over the categories, with its probability."""
    for cuts in itertools.combinations(range(n + len(p) - 1), len(p) - 1):
        ends = (-1, *cuts, n + len(p) - 1)
        spread = tuple(b - a - 1 for a, b in itertools.pairwise(ends))
        ways = math.factorial(n)
        for k in spread:
            ways //= math.factorial(k)
        yield spread, ways * math.prod(q**k for q, k in zip(p, spread, strict=True))


def mixed(log_factors: Sequence[float], weights: Sequence[float]) -> float:
    """The factor of the whole mixture of bets."""
    return math.exp(log_sum([math.log(w) + f for w, f in zip(weights, log_factors, strict=True)]))


@dataclass(frozen=True)
class Poll:
    """Requests of both arms in one poll, how probably one goes bad, how long the poll is, and the candidate's instances from it on."""

    n1: int
    n0: int
    p1: float
    p0: float
    seconds: float = 1.0
    crew: tuple[str, ...] = ("a",)


State = TypeVar("State")


def at_stopping_times(
    state: State, steps: Sequence[Callable[[State], Iterable[tuple[float, State]]]], value: Callable[[State], float]
) -> dict[float, float]:
    """The expected value after all steps (at infinity), and at its first crossing of each threshold or else after all steps.

    A step gives every outcome: its probability and what it leads to.
    """
    sums = dict.fromkeys((*THRESHOLDS, math.inf), 0.0)

    def go(n: int, state: State, chance: float, crossed: dict[float, float]) -> None:
        found = value(state)
        crossed = {t: crossed.get(t, found) for t in THRESHOLDS if t in crossed or found >= t}
        if n == len(steps):
            for threshold in sums:
                sums[threshold] += chance * crossed.get(threshold, found)
            return
        for more, after in steps[n](state):
            go(n + 1, after, chance * more, crossed)

    go(0, state, 1.0, {})
    return sums


Read = tuple[CountsEvidence, float, Counter, Counter]
"""Evidence, the instant it speaks of, and what the candidate's and stable's counters stood at."""


def expected(
    polls: Sequence[Poll],
    rules: CountsRules = BARE,
    value: Callable[[CountsEvidence, CountsRules], float] | None = None,
    copies: int = 1,
) -> dict[float, float]:
    """The expected evidence of `polls` through the fold of counts, as `at_stopping_times` has it.

    `copies`: each outcome happens so many times at once.
    """
    log_evidence = value or counts.worse_evidence

    def step(poll: Poll) -> Callable[[Read], Iterator[tuple[float, Read]]]:
        def outcomes(read: Read) -> Iterator[tuple[float, Read]]:
            evidence, before, mine, theirs = read
            for e1, e0 in itertools.product(range(poll.n1 + 1), range(poll.n0 + 1)):
                now1 = Counter(mine.bad + copies * e1, mine.total + copies * poll.n1)
                now0 = Counter(theirs.bad + copies * e0, theirs.total + copies * poll.n0)
                after = folded(evidence, before + poll.seconds, now1, now0, rules, poll.crew)
                chance = binomial(poll.n1, e1, poll.p1) * binomial(poll.n0, e0, poll.p0)
                yield chance, (after, before + poll.seconds, now1, now0)

        return outcomes

    nothing = Counter(0.0, 0.0)
    start = folded(CountsEvidence(), 0.0, nothing, nothing, rules, polls[0].crew)
    return at_stopping_times(
        (start, 0.0, nothing, nothing), [step(poll) for poll in polls], lambda read: math.exp(log_evidence(read[0], rules))
    )


def folded(
    evidence: CountsEvidence, seconds: float, mine: Counter, theirs: Counter, rules: CountsRules, crew: Sequence[str]
) -> CountsEvidence:
    """The evidence after one poll; all of the candidate's requests went to the first of its `crew`."""
    now = {uid: mine if uid == crew[0] else Counter(0.0, 0.0) for uid in crew}
    answers: dict[str, Answer] = {
        STABLE: Counters(at(seconds), {"s": theirs}),
        CANDIDATE: Counters(at(seconds), now, dict.fromkeys(crew, at(0))),
    }
    return counts.fold(evidence, answers, (STABLE, CANDIDATE), rules, T, at(seconds))
