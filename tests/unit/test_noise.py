"""Dispersion, restarts and the traffic share: what is noise, what is an event, and what is somebody else's traffic."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math

import pytest

from deployguard.analysis import beta, counts, dispersion, events, limits, share
from deployguard.analysis.bets import REFERENCE
from deployguard.analysis.cases.counts import CountsCase
from deployguard.analysis.cases.events import EventsCase
from deployguard.engine.restarts import restarts
from deployguard.model.evidence import CountsEvidence, EventsEvidence, Happened, Learnt, Split, Spread
from deployguard.model.reading import Answer, Counter, Counters
from deployguard.model.target import CANDIDATE, STABLE, Instance, TargetView
from deployguard.model.version import Version
from tests.unit.enumeration import BARE, at, folded

OLD, NEW = Version("a" * 64), Version("b" * 64)


def spread_of(polls: list[list[tuple[float, float]]]) -> Spread:
    """The sums after polls of (bad, total) by instance."""
    spread = Spread()
    for parts in polls:
        counted = [Counter(*part) for part in parts]
        spread = dispersion.spread_after(spread, counted, Counter(sum(c.bad for c in counted), sum(c.total for c in counted)))
    return spread


def test_clumps_on_one_instance_are_dispersion_and_shared_blips_are_not() -> None:
    """Ten errors at once on one of four instances are noise of ten; a blip that all instances share is none."""
    clumped = spread_of([[(10.0 * (n % 4 == i), 100) for i in range(4)] for n in range(40)])
    shared = spread_of([[(5.0 if 8 <= n < 20 else 1.0, 100) for _ in range(4)] for n in range(40)])

    assert dispersion.measured(clumped, 100) == pytest.approx(10, rel=0.1)
    assert dispersion.measured(shared, 100) == 1.0


def test_bursts_of_a_whole_arm_count_beside_instances_up_to_two() -> None:
    """Instances that burst together show it between polls alone, and only before the rollout is that believed, in part."""
    together = spread_of([[(10.0 * (n % 2), 100) for _ in range(4)] for n in range(40)])

    assert dispersion.running(together) == 1.0
    assert dispersion.measured(together, 10) == 2.0


def test_bursts_of_a_lone_instance_are_seen_between_polls() -> None:
    """Where stable has one instance, neighbouring polls are the units; a poll without bad requests adds nothing by itself."""
    bursts = spread_of([[(20.0 * (n % 2), 200)] for n in range(20)])

    assert bursts.den == 0
    assert bursts.paired_free == 10
    assert dispersion.measured(bursts, 10) == 12  # blips that all share would look the same: never unfit
    assert spread_of([[(0.0, 100)], [(0.0, 100)]]) == Spread()
    assert spread_of([[(1.0, 1)], [(0.0, 0)]]).paired_den == 0  # one request says nothing of clumps
    assert spread_of([[(5.0, 5), (5.0, 5)]]).num == 0  # nor do requests that all went bad


def test_chance_is_not_dispersion_and_little_is_not_known() -> None:
    """Below so many standard errors the dispersion is one; on too few degrees of freedom there is none."""
    assert dispersion.phi_of(128.0, 100.0, 100, 30, 2) == 1.0
    assert dispersion.phi_of(150.0, 100.0, 100, 30, 2) == 1.5
    assert dispersion.phi_of(142.0, 100.0, 100, 30, 3) == 1.0
    assert dispersion.phi_of(150.0, 100.0, 29, 30, 2) is None
    assert dispersion.phi_of(0.0, 0.0, 100, 30, 2) is None
    assert dispersion.measured(Spread(), 1) is None


def test_the_dispersion_in_use() -> None:
    """The policy's word counts first, then the larger of what was learnt before and what is seen now."""
    now = Spread(num=400, den=100, free=150)

    assert dispersion.in_use(Learnt(9, 50), now, 2.0) == (2.0, True)
    assert dispersion.in_use(Learnt(), Spread(), None) == (1.0, False)
    assert dispersion.in_use(Learnt(5.0, 50), Spread(), None) == (5.0, True)
    assert dispersion.in_use(Learnt(5.0, 50), now, None) == (5.0, True)
    assert dispersion.in_use(Learnt(), now, None) == (4.0, True)
    assert [dispersion.next_rung(phi) for phi in (1.0, 1.2, 8.0, 12.0)] == [1.5, 1.5, 12.0, math.inf]


def test_what_a_poll_says_of_the_noise_tempers_the_next_one_alone() -> None:
    """A poll is judged by the dispersion from before it, and its block is capped until the dispersion was known before it."""
    rules = dataclasses.replace(BARE, dispersion=None, cap=2.0)
    before = dataclasses.replace(rules, dispersion=1.0)
    known = Spread(paired_num=59, paired_den=59, paired_free=59)
    start = folded(CountsEvidence(spread=known), 0, Counter(0, 0), Counter(0, 0), rules, ("a",))
    crossed = folded(start, 1, Counter(5, 20), Counter(3, 400), rules, ("a",))

    assert dispersion.in_use(Learnt(), start.spread, None) == (1.0, False)
    assert dispersion.in_use(Learnt(), crossed.spread, None)[1]
    assert 0.5 < counts.worse_evidence(crossed, rules) <= math.log(2)
    assert counts.worse_evidence(folded(start, 1, Counter(5, 20), Counter(3, 400), before, ("a",)), before) > 3


def instance(slot: str, version: Version, exits: int = 0, *, running: bool = True) -> Instance:
    return Instance(slot, f"{slot}-x", version, version, ready=running, started=at(0) if running else None, exits=exits)


def view(*instances: Instance) -> TargetView:
    return TargetView(fence=0, basis="", wanted=2, told=None, instances=instances)


def test_exits_are_counted_from_the_first_look_on() -> None:
    """Exits from before the first look are the past; later ones count for the arm that runs there, with the seconds that it ran."""
    first = restarts(EventsEvidence(), view(instance("1", OLD, 3), instance("2", NEW)), NEW, at(10), late_onset=True)
    assert first.counted == {}
    second = restarts(first, view(instance("1", OLD, 4), instance("2", NEW, 2)), NEW, at(15), late_onset=True)

    assert second.counted == {STABLE: Happened(1, 5), CANDIDATE: Happened(2, 5)}
    assert second.worse is not None
    assert events.worse_evidence(first, REFERENCE) == 0.0


def test_a_place_that_changes_its_version_starts_anew() -> None:
    """Exits are counted since the place runs its version, so that those of the old one are not the candidate's."""
    first = restarts(EventsEvidence(), view(instance("1", OLD, 3), instance("2", OLD, 1)), NEW, at(10), late_onset=True)
    moved = restarts(first, view(instance("1", OLD, 3), instance("2", NEW, 1)), NEW, at(11), late_onset=True)
    back = restarts(moved, view(instance("1", OLD, 1), instance("2", NEW, 1)), NEW, at(12), late_onset=True)

    assert moved.counted[CANDIDATE] == Happened(1, 1)
    assert back.counted == {STABLE: Happened(1, 2), CANDIDATE: Happened(1, 2)}


def test_nobody_knows_how_long_instances_ran_in_a_long_gap() -> None:
    """After a gap of more than a minute exits are counted without seconds, and an instance that does not run has none."""
    first = restarts(EventsEvidence(), view(instance("1", OLD), instance("2", NEW, running=False)), NEW, at(0), late_onset=True)
    short = restarts(first, view(instance("1", OLD), instance("2", NEW, running=False)), NEW, at(60), late_onset=True)
    long = restarts(first, view(instance("1", OLD), instance("2", NEW, 1)), NEW, at(61), late_onset=True)

    assert short.counted == {STABLE: Happened(0, 60), CANDIDATE: Happened(0, 0)}
    assert long.counted == {STABLE: Happened(0, 0), CANDIDATE: Happened(1, 0)}
    assert events.worse_evidence(long, REFERENCE) == pytest.approx(0.0, abs=1e-9)


def test_a_crash_loop_is_found_and_told() -> None:
    """A candidate that exits every five seconds beside a quiet stable is beyond doubt in two minutes; in equal arms it is not."""
    evidence = same = EventsEvidence()
    for n in range(21):
        evidence = restarts(evidence, view(instance("1", OLD), instance("2", NEW, n)), NEW, at(5 * n), late_onset=True)
        same = restarts(same, view(instance("1", OLD, n), instance("2", NEW, n)), NEW, at(5 * n), late_onset=True)
    case = EventsCase("health.restarts", False, evidence, REFERENCE, 0.01, 1.0)

    assert case.signals()[0] > math.log(100)
    assert events.worse_evidence(same, REFERENCE) < 0
    found = case.finding("fail", "evidence", interval=True)
    assert found.text == "health.restarts: candidate 20 exits in 100 instance-seconds, stable 0 exits in 100 instance-seconds"
    assert found.limit == "2 x stable"
    assert (case.passes(), case.lack(), case.vetoes(), case.bad_everywhere(), case.unfit()) == (True, "", False, False, "")
    assert case.silent(at(0), at(100), dt.timedelta(0)) == ""


def test_the_share_starts_anew_at_each_stage_with_what_speaks_for_it() -> None:
    """A new share has a mixture of its own; evidence for a share that was kept is carried along, evidence against one is not."""
    kept = share.split_after(Split(), 300, 700, 0.3, 1.25)
    off = share.split_after(Split(), 100, 900, 0.3, 1.25)
    assert share.value_of(Split(), 1.25) == 0.0
    assert share.value_of(kept, 1.25) < 0 < 4.6 < share.value_of(off, 1.25)

    after = [share.split_after(split, 0, 0, 0.6, 1.25) for split in (kept, off)]

    assert [split.carried for split in after] == [share.value_of(kept, 1.25), 0.0]
    assert share.value_of(after[0], 1.25) == after[0].carried
    more = share.split_after(after[0], 450, 50, 0.6, 1.25)
    assert (more.mine, more.theirs) == (450, 50)
    assert share.value_of(more, 1.25) > 4.6


def test_a_share_that_cannot_be_exceeded_is_not() -> None:
    """Given nine tenths and tolerating a quarter more, only too little is ever found."""
    assert share.log_evidence(1000, 0, 0.9, 1.25)[0] == 0.0
    assert share.log_evidence(500, 500, 0.9, 1.25)[1] > 10


def test_a_candidate_without_its_share_cannot_be_judged() -> None:
    """When the candidate gets a tenth of the requests instead of the half it was given, the check is unfit and says so."""
    rules = dataclasses.replace(BARE, traffic_share=1.25)
    evidence = CountsEvidence(split=Split(0.5, 100, 900))

    assert CountsCase("errors", True, evidence, rules).unfit() == "the candidate got 10% of the requests and was given 50%"
    assert CountsCase("errors", True, evidence, BARE).unfit() == ""
    assert CountsCase("errors", True, CountsEvidence(split=Split(0.5, 480, 520)), rules).unfit() == ""
    noisy = CountsCase("errors", True, CountsEvidence(learnt=Learnt(24.0, 50.0)), dataclasses.replace(rules, dispersion=None))
    assert "errors come in clumps of 24" in noisy.unfit()
    assert "errors in clumps of 24" in noisy.finding("blind", "unfit").text


BETA = [(2.0, 3.0, 0.3), (0.2, 3.8, 0.05), (0.5, 0.5, 0.999), (400.0, 5000.0, 0.08), (3.0, 1e-3, 1 - 1e-12)]


@pytest.mark.parametrize(("a", "b", "x"), BETA)
def test_the_incomplete_beta_function(a: float, b: float, x: float) -> None:
    """Both tails agree with an independent implementation, also where they are tiny."""
    special = pytest.importorskip("scipy.special")
    low, high = beta.log_incomplete(a, b, x)

    assert low == pytest.approx(math.log(special.betainc(a, b, x)), abs=1e-9)
    assert high == pytest.approx(math.log(special.betaincc(a, b, x)), abs=1e-8)


def test_the_share_is_counted_only_while_it_was_given() -> None:
    """Requests of both arms are added to the split when the candidate has some of the ready instances and not all of them."""
    rules = dataclasses.replace(BARE, traffic_share=1.25)
    for given, expected in ((0.0, Split()), (1.0, Split()), (0.3, Split(0.3, 4, 10))):
        evidence = folded(CountsEvidence(), 0, Counter(0, 0), Counter(0, 0), rules, ("a",))
        answers: dict[str, Answer] = {
            STABLE: Counters(at(1), {"s": Counter(0, 10)}),
            CANDIDATE: Counters(at(1), {"a": Counter(0, 4)}, {"a": at(0)}),
        }
        assert counts.fold(evidence, answers, (STABLE, CANDIDATE), rules, at(0), at(1), given).split == expected


def test_good_and_bad_requests_are_tempered_alike_against_the_floor() -> None:
    """Where errors come in clumps of four, every request counts for a quarter, in a block without a bad one too."""
    rules = dataclasses.replace(BARE, floor=0.01, dispersion=4.0)
    for bad in (0, 3):
        evidence = folded(CountsEvidence(), 0, Counter(0, 0), Counter(0, 0), rules, ("a",))
        evidence = folded(evidence, 10, Counter(bad, 200), Counter(0, 2000), rules, ("a",))
        assert evidence.floor is not None
        assert evidence.floor.process.whole == pytest.approx([f / 4 for f in limits.limit_factors(200, bad, 0.01, REFERENCE)])
