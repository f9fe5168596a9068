"""Blocks within strata: piles that open and close, mixes that differ, windows, and what the promote rule takes in."""

from __future__ import annotations

import dataclasses

import pytest

from deployguard.analysis import counts, strata
from deployguard.analysis.bets import policy_grid
from deployguard.analysis.counts import CountsRules
from deployguard.model.evidence import Block, CountsEvidence, Stratum
from deployguard.model.reading import Answer, Counter, Counters, Missing, Window
from deployguard.model.target import CANDIDATE, STABLE
from tests.unit.enumeration import BARE, T, at

BOTH = (STABLE, CANDIDATE)
RULES = dataclasses.replace(BARE, ratio=1.25, margin=0.0002, grid=policy_grid(2, 1.25), late_onset=True)
Split = dict[str, tuple[float, float]]


def read(second: float, uid: str, by: Split) -> Counters:
    """One instance's counts by route, as (bad, total); one that is called new was born half a second after the rollout began."""
    routes = {route: {uid: Counter(*count)} for route, count in by.items()}
    whole = Counter(sum(count[0] for count in by.values()), sum(count[1] for count in by.values()))
    return Counters(at(second), {uid: whole}, {uid: at(0.5)} if uid == "new" else {}, (), routes)


def fold(evidence: CountsEvidence, second: float, stable: Answer, candidate: Answer, rules: CountsRules = RULES) -> CountsEvidence:
    return counts.fold(evidence, {STABLE: stable, CANDIDATE: candidate}, BOTH, rules, T, at(second))


def mixed(polls: int, mine: Split, theirs: Split) -> CountsEvidence:
    """The evidence after polls a second apart in each of which the arms served this by route."""
    past = {"buy": (10.0, 1000.0), "look": (1.0, 1000.0)}
    evidence = fold(CountsEvidence(), 1, read(1, "old", past), read(1, "new", {"buy": (0, 0), "look": (0, 0)}))
    for n in range(1, polls + 1):
        now = {route: (past[route][0] + n * theirs[route][0], past[route][1] + n * theirs[route][1]) for route in past}
        new = {route: (n * count[0], n * count[1]) for route, count in mine.items()}
        evidence = fold(evidence, 1 + n, read(1 + n, "old", now), read(1 + n, "new", new))
    return evidence


def test_a_mix_that_differs_misleads_nobody() -> None:
    """A candidate that serves more of the route that fails more is not worse; compared as one it would be condemned."""
    evidence = mixed(60, mine={"buy": (4, 40), "look": (0, 10)}, theirs={"buy": (10, 100), "look": (1, 900)})
    merged = CountsEvidence()
    for n in range(61):
        merged = fold(
            merged,
            1 + n,
            Counters(at(1 + n), {"old": Counter(11 + 11 * n, 2000 + 1000 * n)}),
            Counters(at(1 + n), {"new": Counter(4 * n, 50 * n)}, {"new": at(0.5)}),
        )

    assert sorted(evidence.strata) == ["buy", "look"]
    assert counts.worse_evidence(evidence, RULES) < 1
    assert counts.worse_evidence(merged, RULES) > 4.6
    assert evidence.counted == {STABLE: Counter(660, 60_000), CANDIDATE: Counter(240, 3000)}


def test_a_fault_of_one_route_is_found_in_it() -> None:
    """A route that fails for the candidate alone condemns it, however healthy the others are."""
    evidence = mixed(60, mine={"buy": (1, 10), "look": (5, 90)}, theirs={"buy": (10, 100), "look": (1, 900)})

    assert counts.worse_evidence(evidence, RULES) > 4.6


def test_what_stable_does_by_route_before_the_exposure_is_history() -> None:
    """Each route has a history of its own, with what stable serves until the candidate is there."""
    evidence = CountsEvidence()
    for n in (1, 2):
        answers: dict[str, Answer] = {STABLE: read(n, "old", {"buy": (10.0 * n, 100.0 * n), "look": (0.0, 500.0 * n)})}
        evidence = counts.fold(evidence, answers, (STABLE,), RULES, T, at(n))

    assert evidence.strata["buy"].history == Counter(0.5 + 10 + 10, 50 + 100 + 100)
    assert evidence.strata["look"].history == Counter(0.5, 50 + 500 + 500)


def test_a_source_that_counts_by_windows_has_one_stratum() -> None:
    """Windows beside strata are counted as a whole; an arm without strata adds nothing to them."""
    evidence = fold(CountsEvidence(), 1, Window(T, at(1), 2, 400), read(1, "new", {"buy": (1, 9)}))

    assert evidence.counted == {STABLE: Counter(2, 400), CANDIDATE: Counter(1, 9)}
    assert evidence.worse is None


def test_when_a_pile_becomes_a_block() -> None:
    """Good requests of both arms wait ten seconds; a poll with bad ones is a block beside theirs; an arm without any is waited for."""
    good, bad, none = Counter(0, 10), Counter(1, 10), Counter(0, 0)
    stratum, ripe = strata.piled(Stratum(), good, good, 4, changed=False, aligned=True)
    assert (stratum.pile, ripe) == (Block(10, 0, 10, 0), ())

    assert blocks(stratum, good, good, 6) == [Block(20, 0, 20, 0)]
    assert blocks(stratum, bad, good, 1) == [Block(10, 0, 10, 0), Block(10, 1, 10, 0)]
    assert blocks(stratum, good, good, 1, changed=True) == [Block(10, 0, 10, 0)]
    assert blocks(stratum, good, none, 1, aligned=False) == [Block(10, 0, 10, 0)]

    waits, ripe = strata.piled(Stratum(), none, bad, 50, changed=False, aligned=True)
    assert (waits.pile, ripe) == (Block(0, 0, 10, 1), ())
    assert blocks(waits, good, none, 1) == [Block(10, 0, 10, 1)]
    dropped, ripe = strata.piled(waits, none, good, 10, changed=False, aligned=True)
    assert (dropped.pile, ripe, dropped.seen) == (Block(), (), Counter(1, 20))


def blocks(stratum: Stratum, mine: Counter, theirs: Counter, seconds: float, *, changed: bool = False, aligned: bool = True) -> list[Block]:
    """What becomes ripe in a poll."""
    return [ripe.block for ripe in strata.piled(stratum, mine, theirs, seconds, changed=changed, aligned=aligned)[1]]


def test_bets_come_from_before_the_block() -> None:
    """The rate that a block is bet on with is that of stable before it, also for what waits for the promote rule."""
    history = Stratum(history=Counter(10.0, 1000.0))
    stratum, ripe = strata.piled(history, Counter(3, 10), Counter(9, 10), 1, changed=False, aligned=True)

    assert ripe[0].th0 == pytest.approx(0.01, rel=0.02)
    assert stratum.seen == Counter(9, 10)
    proving = strata.proving(stratum)
    assert proving is not None
    assert proving.block == Block(10, 3, 10, 9)
    assert proving.th0 == pytest.approx(0.01, rel=0.02)
    assert strata.proving(strata.proved(stratum)) is None
    assert strata.proved(stratum).seen == stratum.seen


def test_silence_is_counted_in_seconds() -> None:
    """While the candidate is missing stable's pile grows older by the clock, and is dropped after a minute and not before."""
    evidence = fold(CountsEvidence(), 0, Counters(at(0), {"s": Counter(0, 0)}), Counters(at(0), {"a": Counter(0, 0)}, {"a": at(0)}))
    for second in range(1, 50):
        evidence = fold(evidence, second, Counters(at(second), {"s": Counter(0, 10 * second)}), Missing("timeout"))

    assert evidence.strata[""].piled == pytest.approx(50)
    back = fold(evidence, 50, Counters(at(50), {"s": Counter(0, 500)}), Counters(at(50), {"a": Counter(1, 40)}, {"a": at(0)}))
    assert back.segments == (Block(40, 1, 500, 0),)
