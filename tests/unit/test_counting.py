"""From readings to evidence: deltas, resets, gaps, piles, windows, walks."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from deployguard.analysis import counts, enough, journeys
from deployguard.analysis.arms import same_factors
from deployguard.analysis.bets import REFERENCE, policy_grid
from deployguard.analysis.cases.counts import CountsCase
from deployguard.analysis.cases.journeys import JourneyCase
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.judge import Bench, judge
from deployguard.analysis.projection import boundary
from deployguard.model.evidence import Block, CountsEvidence, JourneyEvidence, Streak
from deployguard.model.reading import Answer, Counter, Counters, Missing, Run, Runs, Window
from deployguard.model.target import CANDIDATE, STABLE

T = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BOTH = (STABLE, CANDIDATE)
RULES = CountsRules(
    compare=True, ratio=1.25, margin=0.0002, floor=0.01, claims=10, limit=None, dispersion=1.0, late_onset=True, cap=10.0,
    alpha=0.01, weight=1.0, proof=False, grid=policy_grid(10, 1.25), interval=1.0,
)  # fmt: skip
LIMIT = dataclasses.replace(RULES, compare=False, limit=0.05)
PROOF = dataclasses.replace(RULES, proof=True)


def at(seconds: float) -> dt.datetime:
    return T + dt.timedelta(seconds=seconds)


def read(seconds: float, **by: tuple[float, float]) -> Counters:
    return Counters(at(seconds), {uid: Counter(*c) for uid, c in by.items()}, {"new": at(1)})


def fold(evidence: CountsEvidence, seconds: float, stable: Answer, candidate: Answer, rules: CountsRules = RULES) -> CountsEvidence:
    return counts.fold(evidence, {STABLE: stable, CANDIDATE: candidate}, BOTH, rules, T, at(seconds))


def history(evidence: CountsEvidence) -> Counter:
    return evidence.strata[""].history


def test_old_instances_begin_as_a_baseline_and_new_ones_from_zero() -> None:
    """What stable served before the rollout is history; what a new process served since its birth counts."""
    evidence = fold(CountsEvidence(), 2, read(2, old=(50, 10_000)), read(2, new=(1, 5)))

    assert evidence.counted == {STABLE: Counter(0, 0), CANDIDATE: Counter(1, 5)}
    assert history(evidence) == Counter(0.5 + 25, 50 + 5000)
    assert evidence.first_bad == at(2)


def test_a_counter_that_went_down_was_reset() -> None:
    """The new value is the delta."""
    evidence = fold(CountsEvidence(), 1, read(1, old=(5, 1000)), read(1, new=(0, 0)))
    evidence = fold(evidence, 2, read(2, old=(1, 30)), read(2, new=(0, 4)))

    assert evidence.counted[STABLE] == Counter(1, 30)


def test_an_instance_that_comes_and_one_that_does_not_answer() -> None:
    """A process met for the first time is a baseline; one that did not answer keeps its old value."""
    evidence = fold(CountsEvidence(), 1, read(1, a=(0, 100), b=(0, 100)), read(1, new=(0, 0)))
    partly = Counters(at(2), {"a": Counter(0, 110), "c": Counter(0, 900)}, {}, unread=("b", "never"))
    evidence = fold(evidence, 2, partly, read(2, new=(0, 1)))
    evidence = fold(evidence, 3, read(3, a=(0, 120), b=(0, 130), c=(0, 905)), read(3, new=(0, 2)))

    assert evidence.counted[STABLE].total == 10 + (10 + 30 + 5)


def test_a_process_that_changes_its_arm_takes_its_counters_along() -> None:
    """A reload moves a process to the candidate without a restart: what it served before is not the candidate's."""
    evidence = fold(CountsEvidence(), 1, read(1, a=(0, 100), new=(0, 40)), Missing("no_instance"))
    evidence = fold(evidence, 2, read(2, a=(0, 110)), read(2, new=(3, 43)))

    assert evidence.counted[CANDIDATE] == Counter(3, 3)


def test_a_gap_of_one_arm_is_covered_by_its_next_reading() -> None:
    """The comparison waits for the missing arm, and then counts the whole interval of both."""
    evidence = fold(CountsEvidence(), 1, read(1, a=(0, 0)), read(1, new=(0, 0)))
    dark = fold(evidence, 2, read(2, a=(0, 50)), Missing("timeout", "slow"))
    darker = fold(dark, 3, read(3, a=(0, 100)), Missing("timeout", "slow"))
    assert darker.gaps[CANDIDATE].since == at(2)
    assert darker.through == at(1)
    assert darker.blocks == 0

    back = fold(darker, 4, read(4, a=(0, 150)), read(4, new=(2, 15)))

    assert back.gaps == {}
    assert back.through == at(4)
    assert back.segments == (Block(15, 2, 150, 0),)


def test_nothing_read_leaves_only_the_gap() -> None:
    """Without any reading nothing is counted; a reading of another kind is an error, not a number."""
    evidence = fold(CountsEvidence(), 1, Missing("refused"), Runs(at(1), ()))

    assert {arm: g.reason for arm, g in evidence.gaps.items()} == {STABLE: "refused", CANDIDATE: "error"}
    assert evidence.counted == {}


def test_polls_without_traffic_in_one_arm_pile_up_and_are_dropped_in_the_end() -> None:
    """A pile waits for a request of each arm, a minute at most."""
    evidence = fold(CountsEvidence(), 1, read(1, a=(0, 0)), read(1, new=(0, 0)))
    for poll in range(2, 5):
        evidence = fold(evidence, poll, read(poll, a=(0, 10.0 * poll)), read(poll, new=(0, 0)))
    assert evidence.strata[""].pile.n0 == 40
    for poll in range(5, 63):
        evidence = fold(evidence, poll, read(poll, a=(0, 10.0 * poll)), read(poll, new=(0, 0)))

    assert evidence.strata[""].pile.n0 < 40
    assert evidence.blocks == 0


def test_segments_are_pooled_while_the_share_lasts() -> None:
    """A new share of traffic opens a new segment; there are never more than eight."""
    evidence, a, b = CountsEvidence(), 0.0, 0.0
    for poll in range(1, 40):
        a, b = a + 100, b + (1 if poll < 5 else 4 ** (poll % 7) / 10)
        evidence = fold(evidence, poll, read(poll, a=(poll, a)), read(poll, new=(0, b)))

    assert 2 <= len(evidence.segments) <= 8


def test_windows_must_follow_one_another() -> None:
    """A window that does not begin where the last one ended is a gap, and one that does is counted."""
    first = fold(CountsEvidence(), 1, Window(T, at(1), 0, 50), Window(T, at(1), 1, 5))
    assert first.counted[CANDIDATE] == Counter(1, 5)
    assert history(first) == Counter(0.5, 100)
    again = fold(first, 1, Window(T, at(1), 0, 50), Window(T, at(1), 1, 5))
    assert again.counted == first.counted

    second = fold(first, 2, Window(at(1), at(2), 0, 50), Window(at(1), at(2), 9, 5))

    assert second.counted[CANDIDATE] == Counter(6, 10)


def test_a_history_that_stable_contradicts_is_dropped() -> None:
    """After an outage the counters are full of errors that are over; they must not hide the next fault."""
    evidence = fold(CountsEvidence(), 1, read(1, a=(5000, 10_000)), read(1, new=(0, 0)))
    assert history(evidence).bad == 2500.5
    for poll in range(2, 14):
        evidence = fold(evidence, poll, read(poll, a=(5000, 10_000 + 95.0 * poll)), read(poll, new=(1.0 * poll, 5.0 * poll)))

    assert counts.worse_evidence(evidence, RULES) > 4.6


def test_without_a_floor_the_comparison_stands_alone() -> None:
    """A floor only ever lowers the evidence; without one the comparison is all there is."""
    bare = dataclasses.replace(RULES, floor=0.0)
    evidence = fold(CountsEvidence(), 1, read(1, a=(0, 0)), read(1, new=(0, 0)), bare)
    evidence = fold(evidence, 2, read(2, a=(0, 500)), read(2, new=(5, 20)), bare)

    assert evidence.floor is None
    assert counts.worse_evidence(evidence, bare) > 0


def test_before_the_exposure_stable_makes_history_and_shows_its_limit() -> None:
    """What stable does before the candidate is there is a prior, and exonerates the candidate from a fault that was there."""
    evidence = CountsEvidence()
    for poll in range(1, 5):
        answers: dict[str, Answer] = {STABLE: read(poll, a=(50.0 * poll, 100.0 * poll))}
        evidence = counts.fold(evidence, answers, (STABLE,), LIMIT, T, at(poll))

    assert counts.limit_evidence(evidence, STABLE) > 10
    assert evidence.counted == {}


def test_a_proof_needs_the_promote_rule_and_a_soak_its_samples() -> None:
    """Enough is measured by evidence against the claimed regression, or by the number of requests."""
    evidence = CountsEvidence()
    for poll in range(1, 30):
        evidence = fold(evidence, poll, read(poll, a=(poll, 1000.0 * poll)), read(poll, new=(0, 100.0 * poll)))
    assert enough.counts_enough(evidence, RULES)
    assert enough.counts_enough(evidence, PROOF)
    assert not enough.counts_enough(CountsEvidence(), RULES)
    assert not enough.counts_enough(CountsEvidence(), PROOF)
    assert enough.counts_needed(CountsEvidence(), LIMIT) > 10
    assert counts.worse_evidence(CountsEvidence(), RULES) == 0.0


def test_a_promote_bet_beyond_its_boundary_is_neutral() -> None:
    """Where the claimed rate would pass certainty nothing can be excluded."""
    assert same_factors(Block(5, 1, 5, 1), 0.9, 2.0, 0.0) == [0.0, 0.0, 0.0]


def test_a_start_outside_its_bracket_is_replaced_by_the_middle() -> None:
    """The projection also converges where Newton's first guess leaves the bracket."""
    q1, q0 = boundary(0.999, 0.9, 0.89, 1.0, 0.005)

    assert q1 == pytest.approx(q0 + 0.005)
    assert 0.89 <= q0 <= 0.9


def walk(evidence: JourneyEvidence, seconds: float, **paths: Answer) -> JourneyEvidence:
    return journeys.fold(evidence, paths, tuple(paths), at(seconds))


def runs(seconds: float, *ok: bool) -> Runs:
    return Runs(at(seconds), tuple(Run(at(seconds - len(ok) + n + 1), good, 0.1, "1 GET /", "got 500") for n, good in enumerate(ok)))


def test_walks_are_counted_once_by_their_instant() -> None:
    """The same walk reported again does not lengthen a streak; a green one ends it."""
    evidence = walk(JourneyEvidence(), 3, candidate=runs(3, False, False), stable=runs(3, True))
    evidence = walk(evidence, 4, candidate=runs(3, False, False), stable=runs(4, True))
    assert evidence.walks[CANDIDATE].red == 2
    assert evidence.first_bad == at(3)
    assert not journeys.vetoes(evidence)
    evidence = walk(evidence, 5, candidate=runs(5, False), stable=runs(5, True))
    assert journeys.vetoes(evidence)
    assert journeys.reddish(evidence, CANDIDATE)

    evidence = walk(evidence, 6, candidate=runs(6, True), stable=Missing("prober", "gone"))

    assert evidence.walks[CANDIDATE] == Streak(at(6), 0, 4, 3, "1 GET /", "got 500")
    assert evidence.gaps[STABLE].reason == "prober"
    assert walk(evidence, 7, stable=Window(T, T, 0, 0)).gaps[STABLE].since == at(6)
    assert not journeys.green(evidence, "all")


BENCH = Bench(at(100), at(0), dt.timedelta(seconds=2), True, 0.01)


def test_a_required_journey_without_a_green_walk_lacks_samples() -> None:
    """The soak is over, but nobody has walked the candidate's path."""
    case = JourneyCase("login", True, True, JourneyEvidence(through=at(99), walks={STABLE: Streak(at(99), 0, 3, 0)}))

    verdict = judge([case], BENCH)

    assert (verdict.word, verdict.reason) == ("blind", "too_few_samples")
    assert "no green walk" in verdict.text
    assert "candidate not walked" in case.finding("undecided", "").text


def test_a_proof_that_is_lacking_says_what_cannot_be_excluded() -> None:
    """Under `pass: proof` the lack is told as a ratio, under soak as requests."""
    assert "cannot yet exclude a ratio of 10" in judge([CountsCase("errors", True, CountsEvidence(), PROOF)], BENCH).text
    assert "has 0 of" in judge([CountsCase("errors", True, CountsEvidence(), RULES)], BENCH).text


def test_the_stronger_of_comparison_and_limit_is_told() -> None:
    """A finding names what its evidence is against."""
    both = dataclasses.replace(RULES, limit=0.9)
    evidence = fold(CountsEvidence(), 1, read(1, a=(0, 0)), read(1, new=(0, 0)), both)
    for poll in range(2, 9):
        evidence = fold(evidence, poll, read(poll, a=(1, 100.0 * poll)), read(poll, new=(2.0 * poll, 10.0 * poll)), both)

    found = CountsCase("errors", True, evidence, both).finding("undecided", "")

    assert found.limit.startswith("1.25 x stable")
    assert found.ratio is not None
    low = CountsCase("errors", True, evidence, LIMIT).finding("undecided", "")
    assert low.limit == "limit 5%"
    assert REFERENCE.psi[0] == pytest.approx(1.7)
