"""From histograms and classes to evidence: edges, deltas, warm-up, piles, marks, noise, proof."""

from __future__ import annotations

import dataclasses
import datetime as dt

import msgspec
import pytest

from deployguard.analysis import categories, enough, tilts
from deployguard.analysis.cases.categories import CategoriesCase
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counters import added
from deployguard.analysis.rebin import MOST_EDGES, chosen_edges, rebinned
from deployguard.model.evidence import Both, CategoriesEvidence, Learnt
from deployguard.model.reading import Answer, Buckets, Missing
from deployguard.model.target import CANDIDATE, STABLE

T = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BOTH = (STABLE, CANDIDATE)
EDGES = (0.1, 0.25, 0.5)
RULES = CategoriesRules(
    ratio=1.0, margin=0.0, claims=2.0, dispersion=1.0, late_onset=True, cap=10.0, alpha=0.01, weight=1.0, proof=False,
    grid=tilts.SHIPPED, interval=1.0, warmup=dt.timedelta(0),
)  # fmt: skip
TOLERANT = dataclasses.replace(RULES, ratio=1.25, margin=0.01)
PROOF = dataclasses.replace(RULES, proof=True, claims=3.0)
HISTORY = (600.0, 260.0, 110.0, 30.0)
Row = tuple[float, ...]


def at(seconds: float) -> dt.datetime:
    return T + dt.timedelta(seconds=seconds)


def read(second: float, edges: Row = EDGES, unread: tuple[str, ...] = (), born: float = 0.5, **by: Row) -> Buckets:
    return Buckets(at(second), edges, by, {uid: at(born) for uid in by if uid.startswith("new")}, unread)


def times(factor: float, row: Row) -> Row:
    return tuple(factor * v for v in row)


def fold(
    evidence: CategoriesEvidence, second: float, stable: Answer, candidate: Answer, rules: CategoriesRules = RULES
) -> CategoriesEvidence:
    return categories.fold(evidence, {STABLE: stable, CANDIDATE: candidate}, BOTH, rules, T, at(second))


def begun(rules: CategoriesRules = RULES) -> CategoriesEvidence:
    """Evidence that knows a thousand requests of stable's past, and an instance of the candidate that has served none."""
    return fold(CategoriesEvidence(), 1, read(1, old=HISTORY), read(1, new=(0, 0, 0, 0)), rules)


def served(evidence: CategoriesEvidence, polls: int, mine: Row, theirs: Row, rules: CategoriesRules = RULES) -> CategoriesEvidence:
    """The evidence after so many polls in each of which the arms served this."""
    for n in range(1, polls + 1):
        old = added(HISTORY, times(n, theirs))
        evidence = fold(evidence, 1 + n, read(1 + n, old=old), read(1 + n, new=times(n, mine)), rules)
    return evidence


def test_histories_and_deltas() -> None:
    """What stable had served is history, at most five thousand requests of it; a new process counts from its birth, a reset anew."""
    evidence = fold(CategoriesEvidence(), 1, read(1, old=times(10, HISTORY)), read(1, new=(3, 0, 0, 1), met=(5, 5, 5, 5)))
    assert sum(evidence.history) == 5000
    assert evidence.counted == {CANDIDATE: (3, 0, 0, 1)}

    evidence = fold(evidence, 2, read(2, old=(2, 1, 0, 0)), read(2, unread=("met",), new=(3, 1, 0, 1)))
    evidence = fold(evidence, 3, read(3, old=(2, 1, 1, 0)), read(3, new=(3, 1, 0, 1), met=(6, 5, 5, 7)))

    assert evidence.counted == {STABLE: (2, 1, 1, 0), CANDIDATE: (4, 1, 0, 3)}


def test_a_process_that_changes_its_arm_takes_its_counters_along() -> None:
    """A reload moves a process to the candidate: what it served before is not the candidate's."""
    evidence = fold(CategoriesEvidence(), 1, read(1, old=HISTORY, new=(40, 0, 0, 0)), Missing("no_instance"))
    evidence = fold(evidence, 2, read(2, old=HISTORY), read(2, new=(41, 0, 0, 2)))

    assert evidence.counted[CANDIDATE] == (1, 0, 0, 2)


def test_warm_up_is_left_out() -> None:
    """What a new instance serves while it warms up counts for nothing, then and later; old instances have no warm-up."""
    rules = dataclasses.replace(RULES, warmup=dt.timedelta(seconds=3))
    evidence = fold(CategoriesEvidence(), 1, read(1, old=HISTORY), read(1, new=(0, 0, 0, 9)), rules)
    evidence = fold(evidence, 2, read(2, old=times(2, HISTORY)), read(2, new=(0, 0, 0, 20)), rules)
    assert evidence.counted == {STABLE: HISTORY}

    evidence = fold(evidence, 4, read(4, old=times(2, HISTORY)), read(4, new=(5, 0, 0, 21)), rules)

    assert evidence.counted[CANDIDATE] == (5, 0, 0, 1)


def test_gaps_are_covered_by_the_next_reading() -> None:
    """An arm that is missing leaves a gap and a pile; its next delta covers the whole time, and the two are compared again."""
    evidence = served(begun(), 1, (9, 3, 1, 0), (90, 30, 10, 3))
    assert evidence.blocks == 1
    dark = fold(evidence, 3, read(3, old=added(HISTORY, (180, 60, 20, 6))), Missing("timeout", "slow"))
    assert (dark.blocks, dark.through) == (1, at(2))
    assert dark.gaps[CANDIDATE].reason == "timeout"

    back = fold(dark, 4, read(4, old=added(HISTORY, (270, 90, 30, 9))), read(4, new=(27, 9, 3, 1)))

    assert (back.blocks, back.through, back.gaps) == (2, at(4), {})
    assert back.segments == (Both((27, 9, 3, 1), (270, 90, 30, 9)),)
    assert fold(back, 5, Missing("refused"), Missing("refused")).counted == back.counted


def test_edges_that_vanish_are_a_gap() -> None:
    """A histogram that lost an edge cannot be compared and says which; one with finer edges is summed onto those of the rollout."""
    finer = fold(begun(), 2, read(2, old=HISTORY), read(2, edges=(0.05, *EDGES), new=(1, 2, 3, 4, 5)))
    assert finer.counted[CANDIDATE] == (3, 3, 4, 5)

    coarse = read(2, edges=(0.1, 0.5), new=(1, 2, 3))
    lost = fold(begun(), 2, read(2, old=HISTORY), coarse)
    assert lost.gaps[CANDIDATE].reason == "edges"
    assert "0.25" in lost.gaps[CANDIDATE].detail
    assert CANDIDATE not in lost.counted or not sum(lost.counted[CANDIDATE])
    both = fold(begun(), 2, read(2, edges=(0.1, 0.5), old=(1, 2, 3)), coarse)
    assert sorted(both.gaps) == sorted(BOTH)


def test_many_edges_become_few_where_it_costs_least() -> None:
    """Sixteen edges at most are kept, those of the crowded places and of the tail among them; no request is lost."""
    edges = tuple(round(0.001 * 1.3**j, 6) for j in range(40))
    counts = tuple(1000.0 if 15 <= j < 25 else 5.0 if j >= 25 else 0.0 for j in range(41))
    assert chosen_edges(Buckets(T, edges[:10], {"a": counts[:11]})) == edges[:10]

    reading = Buckets(T, edges, {"a": counts, "b": counts})
    kept = chosen_edges(reading)
    assert kept is not None
    summed = rebinned(reading, kept)

    assert len(kept) == MOST_EDGES
    assert set(kept) <= set(edges)
    assert sum(15 <= edges.index(edge) <= 25 for edge in kept) >= 9
    assert not isinstance(summed, Missing)
    assert sum(summed["a"]) == sum(counts)


def test_piles_wait_for_both_arms_a_minute_at_most() -> None:
    """Polls in which an arm served nothing pile up, are dropped after a minute, and are dropped when the candidate's instances change."""
    evidence = served(begun(), 5, (0, 0, 0, 0), (9, 3, 1, 0))
    assert (evidence.blocks, sum(evidence.pile[STABLE])) == (0, 65)
    grown = fold(evidence, 7, read(7, old=times(2, HISTORY)), read(7, new=(0, 0, 0, 0), newer=(0, 0, 0, 0)))
    assert sum(grown.pile[STABLE]) == sum(HISTORY) - 65

    old = served(begun(), 70, (0, 0, 0, 0), (9, 3, 1, 0))

    assert old.blocks == 0
    assert sum(old.pile[STABLE]) < 13 * 60
    assert sum(old.seen) + sum(old.pile[STABLE]) == 13 * 70


def test_nothing_is_bet_on_before_stable_is_known() -> None:
    """A hundred requests of stable's make its distribution; what it serves until then becomes it."""
    evidence = fold(CategoriesEvidence(), 1, read(1, old=(0, 0, 0, 0)), read(1, new=(0, 0, 0, 0)))
    for n in (1, 2, 3):
        evidence = fold(evidence, 1 + n, read(1 + n, old=times(n, (30, 10, 5, 5))), read(1 + n, new=times(n, (3, 1, 1, 0))))
        assert (evidence.worse is not None) == (n == 3)
    assert evidence.blocks == 3


@pytest.mark.parametrize("rules", [RULES, TOLERANT])
def test_a_slow_candidate_is_found_and_an_equal_one_is_not(rules: CategoriesRules) -> None:
    """Half a minute of a candidate whose tail has doubled is beyond doubt; an equal one says nothing against itself."""
    slow = served(begun(rules), 30, (9, 3, 2, 6), (450, 195, 82, 23), rules)
    equal = served(begun(rules), 30, (12, 5, 2, 1), (450, 195, 82, 23), rules)

    assert categories.worse_evidence(slow, rules) > 4.6
    assert slow.first_bad == at(2)
    assert categories.worse_evidence(equal, rules) < 1
    assert categories.worse_evidence(CategoriesEvidence(), rules) == 0.0


def test_the_proof_of_equality() -> None:
    """An equal candidate is proven within minutes not to have tripled its tails, a slow one is not; by soak the number decides."""
    equal = served(begun(PROOF), 60, (24, 10, 4, 1), (450, 195, 82, 23), PROOF)
    slow = served(begun(PROOF), 60, (18, 7, 8, 6), (450, 195, 82, 23), PROOF)

    assert enough.categories_enough(equal, PROOF)
    assert not enough.categories_enough(slow, PROOF)
    assert categories.same_evidence(CategoriesEvidence(), PROOF) == 0.0
    assert not enough.categories_enough(CategoriesEvidence(), RULES)
    assert "slowest 5% and 1%" in CategoriesCase("latency", True, slow, PROOF).lack()


def test_a_waiting_proof_counts() -> None:
    """What waits ten seconds for the promote rule is part of its evidence, so that every poll of an equal candidate adds to it."""
    grown = [categories.same_evidence(served(begun(PROOF), n, (24, 10, 4, 2), (450, 195, 82, 23), PROOF), PROOF) for n in range(5, 25)]

    assert grown[0] > 0
    assert grown == sorted(grown)
    assert len(set(grown)) > 15


def test_noise_is_measured_while_it_runs() -> None:
    """Slow requests that come in clumps on one instance raise the dispersion of the tails, and tails too noisy are not bet on."""
    rules = dataclasses.replace(RULES, dispersion=None)
    evidence = fold(CategoriesEvidence(), 1, read(1, old=HISTORY, other=HISTORY), read(1, new=(0, 0, 0, 0)), rules)
    a: Row = HISTORY
    b: Row = HISTORY
    for n in range(1, 71):
        a, b = added(a, (60, 26, 11, 3 + 40 * (n % 5 == 0))), added(b, (60, 26, 11, 3))
        evidence = fold(evidence, 1 + n, read(1 + n, old=a, other=b), read(1 + n, new=times(n, (6, 3, 1, 0))), rules)
    phis, known = categories.dispersions(evidence, rules)

    assert known
    assert 5 < phis[1] < 40
    assert phis[0] < 3
    noisy = categories.quieted([1.0] * 7, (1.0, 2.0, 13.0, 4.0), RULES)
    assert noisy == [0.0] * 6 + [0.25]
    assert categories.quieted([1.0] * 12, (1.0, 2.0, 13.0, 4.0), TOLERANT) == [1.0] * 3 + [0.5] * 3 + [0.0] * 3 + [0.25] * 3


def test_what_a_poll_says_of_the_noise_tempers_the_next_one_alone() -> None:
    """Stable's requests of a poll in clumps or evenly spread: the same requests, so the same evidence, and another dispersion after."""
    rules, found = dataclasses.replace(RULES, dispersion=None), []
    for a, b in (((60, 26, 11, 40), (60, 26, 11, 0)), ((60, 26, 11, 20), (60, 26, 11, 20))):
        evidence = fold(CategoriesEvidence(), 1, read(1, old=HISTORY, other=HISTORY), read(1, new=(0, 0, 0, 0)), rules)
        for n in range(1, 5):
            last = n == 4
            old = added(times(n, (60, 26, 11, 30)), (0, 0, 0, a[3] - 30) if last else (0, 0, 0, 0))
            other = added(times(n, (60, 26, 11, 30)), (0, 0, 0, b[3] - 30) if last else (0, 0, 0, 0))
            stable = read(1 + n, old=added(HISTORY, old), other=added(HISTORY, other))
            evidence = fold(evidence, 1 + n, stable, read(1 + n, new=times(n, (6, 3, 1, 1))), rules)
        found.append(evidence)

    assert found[0].worse == found[1].worse
    assert found[0].spreads != found[1].spreads


def test_before_the_exposure_stable_makes_history() -> None:
    """What stable serves before the candidate is there is known of it; what was learnt of it before is not overwritten."""
    evidence = CategoriesEvidence()
    for n in (1, 2):
        evidence = categories.fold(evidence, {STABLE: read(n, old=times(n, HISTORY))}, (STABLE,), RULES, T, at(n))
    assert evidence.history == times(2, HISTORY)
    assert evidence.counted == {}

    learnt = CategoriesEvidence(history=(5.0, 5.0, 5.0, 5.0), learnt=(Learnt(2.0, 50.0),) * 4)
    kept = fold(learnt, 1, read(1, old=HISTORY), Missing("no_instance"))
    assert kept.history == (5.0, 5.0, 5.0, 5.0)


def test_classes_have_no_edges() -> None:
    """Classes are compared by rank, and told by their number."""
    evidence = fold(CategoriesEvidence(), 1, read(1, (), old=HISTORY), read(1, (), new=(0, 0, 0, 0)))
    for n in range(1, 21):
        old = added(HISTORY, times(n, (450, 195, 82, 23)))
        evidence = fold(evidence, 1 + n, read(1 + n, (), old=old), read(1 + n, (), new=times(n, (6, 5, 4, 5))))

    assert categories.worse_evidence(evidence, RULES) > 4.6
    found = CategoriesCase("codes", True, evidence, RULES).finding("fail", "evidence", interval=True)
    assert "in class 4 of 4 or worse" in found.text
    assert found.ratio is not None
    assert found.low is not None
    assert found.low > 1


def test_findings_in_words() -> None:
    """A finding names the latency from which on the candidate is slower, its shares and the ratio with its interval."""
    slow = served(begun(TOLERANT), 30, (9, 3, 2, 6), (450, 195, 82, 23), TOLERANT)
    case = CategoriesCase("latency", True, slow, TOLERANT)
    found = case.finding("fail", "evidence", interval=True)

    assert found.text.startswith("latency: slower than 0.5 s: candidate 30% (180 of 600), stable 3.067% (690 of 22500), ratio 9.78 [")
    assert found.limit == "1.25 x stable + 1% in any tail"
    assert found.needed == 100
    assert (case.unfit(), case.vetoes(), case.bad_everywhere()) == ("", False, False)
    assert "nothing compared yet" in CategoriesCase("latency", True, CategoriesEvidence(), RULES).finding("undecided", "").text
    assert CategoriesCase("latency", True, CategoriesEvidence(), RULES).finding("undecided", "").limit == "not slower than stable"
    assert "of" in CategoriesCase("latency", True, slow, RULES).lack()
    noisy = CategoriesEvidence(learnt=(Learnt(24.0, 50.0),) * 4)
    assert "clumps of 24 or more" in CategoriesCase("latency", True, noisy, dataclasses.replace(RULES, dispersion=None)).unfit()


def test_other_categories_than_before_start_anew() -> None:
    """A check that is read by other categories after its policy was changed takes no difference between them."""
    evidence = fold(CategoriesEvidence(), 1, read(1, (), old=(5.0, 5.0)), read(1, (), new=(1.0, 1.0)))
    evidence = msgspec.structs.replace(evidence, counted={}, pile={}, history=(), seen=())
    evidence = fold(evidence, 2, read(2, old=HISTORY), read(2, new=(3, 3, 3, 3)))

    assert evidence.counted == {}
