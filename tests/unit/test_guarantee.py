"""The guarantee of the whole fold, by enumeration: every outcome of a few polls, through deltas, piles, bets and processes.

The expectation is taken after all polls and at the first crossing of several thresholds: what is looked at after every poll must hold at
every stopping time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import pytest

from deployguard.analysis import categories, counts
from deployguard.analysis.arms import PROMOTE_WEIGHTS
from deployguard.analysis.counters import added
from deployguard.analysis.eprocess import log_value
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence, Tallies
from deployguard.model.reading import Answer, Buckets, Counter, Counters
from deployguard.model.target import CANDIDATE, STABLE
from tests.unit.enumeration import BARE, ROUNDING, Poll, T, at, at_stopping_times, expected, folded, multinomial
from tests.unit.test_enumeration import TILTED, TOLERANT

LATE = dataclasses.replace(BARE, late_onset=True)
CAPPED = dataclasses.replace(LATE, dispersion=None, cap=3.0)


def polls(*served: tuple[int, int], p: float = 0.1, grows: bool = False) -> list[Poll]:
    """Polls of a second in which both arms fail alike; the last one lasts long enough to close what piled up."""
    last = len(served) - 1
    return [
        Poll(n1, n0, p, p, 10.0 if n == last else 1.0, ("a", "b") if grows and n == last else ("a",)) for n, (n1, n0) in enumerate(served)
    ]


CONSTANT = ((1, 4), (1, 4), (1, 4))
RISING = ((1, 5), (1, 5), (4, 1))
FALLING = ((4, 1), (1, 5), (1, 5))
SILENT = ((0, 4), (0, 3), (3, 2))


@pytest.mark.parametrize("served", [CONSTANT, RISING, FALLING, SILENT])
@pytest.mark.parametrize("rules", [LATE, CAPPED])
def test_piles_keep_the_guarantee(served: tuple[tuple[int, int], ...], rules: counts.CountsRules) -> None:
    """Good requests pile up and bad ones do not: whatever the share of traffic does meanwhile, the innocent stay innocent."""
    for grows in (False, True):
        found = expected(polls(*served, grows=grows), rules)

        assert max(found.values()) <= 1 + ROUNDING
        assert min(found.values()) > 0.3


def test_rates_that_jump_for_both_arms() -> None:
    """A fault of both arms that comes and goes from poll to poll is nobody's."""
    jumps = [Poll(2, 4, 0.02, 0.02), Poll(2, 3, 0.4, 0.4), Poll(2, 4, 0.02, 0.02, 10.0)]

    assert max(expected(jumps, LATE).values()) <= 1 + ROUNDING


@pytest.mark.parametrize("rates", [(0.1, 0.02), (0.125, 0.1)])
def test_the_floor_keeps_the_guarantee(rates: tuple[float, float]) -> None:
    """A candidate at the floor although worse than stable, or as much worse as tolerated although above the floor."""
    rules = dataclasses.replace(LATE, ratio=1.25, floor=0.1)
    served = [Poll(3, 3, *rates), Poll(2, 3, *rates), Poll(3, 2, *rates, seconds=10.0)]

    assert max(expected(served, rules).values()) <= 1 + ROUNDING


def test_clumps_keep_the_guarantee() -> None:
    """Outcomes in identical pairs are exact at a dispersion of two; taken for independent they condemn the innocent."""
    served = polls((1, 3), (2, 3), (1, 4))

    assert max(expected(served, dataclasses.replace(LATE, dispersion=2.0), copies=2).values()) <= 1 + ROUNDING
    assert max(expected(served, LATE, copies=2).values()) > 1.1


@pytest.mark.parametrize("served", [CONSTANT, RISING, FALLING])
def test_the_promote_rule_keeps_its_guarantee(served: tuple[tuple[int, int], ...]) -> None:
    """A regression exactly as large as claimed passes no more often than it may, whether polls wait for one another or not."""
    for seconds in (1.0, 5.0, 10.0):
        worse = [Poll(n1, n0, 0.2, 0.1, seconds) for n1, n0 in served]
        worse[-1] = dataclasses.replace(worse[-1], seconds=10.0)
        found = expected(worse, dataclasses.replace(BARE, proof=True), _proof)

        assert max(found.values()) <= 1 + ROUNDING
        assert min(found.values()) < 1


def _proof(evidence: CountsEvidence, rules: counts.CountsRules) -> float:
    process = evidence.same
    return 0.0 if process is None else log_value(process, PROMOTE_WEIGHTS)


def test_an_absolute_limit_keeps_the_guarantee() -> None:
    """At the limit, with good requests piling up between polls that have bad ones."""
    rules = dataclasses.replace(LATE, compare=False, limit=0.1)
    served = [Poll(3, 0, 0.1, 0.0), Poll(2, 0, 0.1, 0.0), Poll(4, 0, 0.1, 0.0), Poll(2, 0, 0.1, 0.0, 10.0)]
    found = expected(served, rules, lambda evidence, _: counts.limit_evidence(evidence, CANDIDATE))

    assert max(found.values()) <= 1 + ROUNDING


Histograms = tuple[CategoriesEvidence, int, Tallies, Tallies]


@pytest.mark.parametrize("rules", [TILTED, TOLERANT])
def test_histograms_keep_the_guarantee(rules: categories.CategoriesRules) -> None:
    """Two polls of a histogram of three categories that both arms share, against a history that says something else."""
    p = (0.6, 0.3, 0.1)

    def read(evidence: CategoriesEvidence, second: int, mine: Tallies, theirs: Tallies) -> Histograms:
        answers: dict[str, Answer] = {
            STABLE: Buckets(at(second), (0.1, 0.5), {"s": theirs}),
            CANDIDATE: Buckets(at(second), (0.1, 0.5), {"a": mine}, {"a": at(0)}),
        }
        return categories.fold(evidence, answers, (STABLE, CANDIDATE), rules, T, at(second)), second, mine, theirs

    def poll(state: Histograms) -> Iterator[tuple[float, Histograms]]:
        evidence, second, mine, theirs = state
        for (more1, chance1), (more0, chance0) in itertools.product(multinomial(2, p), multinomial(3, p)):
            yield chance1 * chance0, read(evidence, second + 1, added(mine, more1), added(theirs, more0))

    start = read(CategoriesEvidence(), 0, (0.0, 0.0, 0.0), (180.0, 18.0, 2.0))
    found = at_stopping_times(start, [poll, poll], lambda state: math.exp(categories.worse_evidence(state[0], rules)))

    assert max(found.values()) <= 1 + ROUNDING
    assert min(found.values()) > 0.3


def test_polls_that_miss_an_arm_keep_the_guarantee() -> None:
    """A poll without the candidate leaves its requests to the next one, whose interval both arms share."""
    total, p = 0.0, 0.15
    for e1, e0, f1, f0 in itertools.product(range(4), range(4), range(3), range(4)):
        evidence = folded(CountsEvidence(), 0, Counter(0, 0), Counter(0, 0), LATE, ("a",))
        alone: dict[str, Answer] = {STABLE: Counters(at(1), {"s": Counter(e0, 3)})}
        evidence = counts.fold(evidence, alone, (STABLE, CANDIDATE), LATE, T, at(1))
        evidence = folded(evidence, 2, Counter(e1, 3), Counter(e0, 3), LATE, ("a",))
        evidence = folded(evidence, 12, Counter(e1 + f1, 5), Counter(e0 + f0, 6), LATE, ("a",))
        chance = math.prod(math.comb(n, k) * p**k * (1 - p) ** (n - k) for n, k in ((3, e1), (3, e0), (2, f1), (3, f0)))
        total += chance * math.exp(counts.worse_evidence(evidence, LATE))

    assert 0.5 < total <= 1 + ROUNDING
