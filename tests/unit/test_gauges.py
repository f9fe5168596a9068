"""From samples of a gauge to evidence: blocks, chosen instances, warm-up, gaps, the bound, the other direction."""

from __future__ import annotations

import dataclasses
import datetime as dt

import msgspec

from deployguard.analysis import enough, gauges
from deployguard.analysis.cases.gauges import GaugeCase
from deployguard.analysis.gauges import GaugeRules
from deployguard.model.evidence import GaugeEvidence
from deployguard.model.reading import Answer, Gauges, Missing
from deployguard.model.target import CANDIDATE, STABLE

T = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BOTH = (STABLE, CANDIDATE)
RULES = GaugeRules(
    compare=True, ratio=1.25, claims=2.0, limit=None, lower=False, alpha=0.01, weight=1.0, proof=False, warmup=dt.timedelta(0)
)
BOUND = dataclasses.replace(RULES, compare=False, limit=100.0)


def at(seconds: float) -> dt.datetime:
    return T + dt.timedelta(seconds=seconds)


def read(second: float, born: float | None = None, **values: float) -> Gauges:
    return Gauges(at(second), values, {uid: at(born) for uid in values} if born is not None else {})


def fold(evidence: GaugeEvidence, second: float, stable: Answer, candidate: Answer, rules: GaugeRules = RULES) -> GaugeEvidence:
    return gauges.fold(evidence, {STABLE: stable, CANDIDATE: candidate}, BOTH, rules, at(second))


def watched(seconds: int, mine: float, theirs: float, rules: GaugeRules = RULES) -> GaugeEvidence:
    """The evidence after polls every five seconds of one instance of the candidate and two of stable's."""
    evidence = GaugeEvidence()
    for second in range(0, seconds + 1, 5):
        evidence = fold(evidence, second, read(second, a=theirs, b=3 * theirs), read(second, new=mine), rules)
    return evidence


def test_blocks_compare_as_many_instances_of_each_arm() -> None:
    """A block lasts a quarter of a minute and compares the mean of one instance with that of one other, chosen before."""
    evidence = watched(15, 126.0, 100.0)

    assert (evidence.blocks, evidence.above) == (1, 1)
    assert evidence.means == {STABLE: 100.0, CANDIDATE: 126.0}
    assert watched(14, 126.0, 100.0).blocks == 0
    assert watched(15, 125.0, 100.0).above == 0


def test_eight_blocks_in_a_row_condemn() -> None:
    """Eight worse blocks pass a hundred and seven do not; an equal gauge makes evidence of the contrary."""
    assert gauges.worse_evidence(watched(7 * 15, 200.0, 100.0)) < 4.6 < gauges.worse_evidence(watched(8 * 15, 200.0, 100.0))
    assert gauges.worse_evidence(watched(8 * 15, 100.0, 100.0)) < -1
    assert gauges.worse_evidence(GaugeEvidence()) == 0.0


def test_small_values_can_be_the_bad_ones() -> None:
    """For a gauge that is bad when low, such as free memory, less than four fifths of stable's is worse than tolerated."""
    lower = dataclasses.replace(RULES, lower=True)

    assert watched(15, 79.0, 100.0, lower).above == 1
    assert watched(15, 81.0, 100.0, lower).above == 0


def test_warm_up_delays_the_first_block() -> None:
    """An instance is compared when it is warm, and a block begins when both arms have one that is."""
    rules = dataclasses.replace(RULES, warmup=dt.timedelta(seconds=10))
    evidence = GaugeEvidence()
    for second in range(0, 26, 5):
        evidence = fold(evidence, second, read(second, a=100.0), read(second, born=0, new=900.0 if second < 10 else 100.0), rules)
        assert (evidence.began is not None) == (second >= 10)

    assert (evidence.blocks, evidence.above) == (1, 0)


def test_a_poll_without_an_arm_leaves_the_block_as_it_is() -> None:
    """A scrape that is lost inside a block, or at its end, costs one sample and not the block."""
    evidence = GaugeEvidence()
    for second in range(0, 16, 5):
        candidate = Missing("timeout") if second == 10 else read(second, new=200.0)
        evidence = fold(evidence, second, read(second, a=100.0), candidate)
        assert (CANDIDATE in evidence.gaps) == (second == 10)

    assert (evidence.blocks, evidence.above) == (1, 1)
    assert evidence.through == at(15)
    lost = fold(evidence, 20, Missing("refused"), Missing("refused"))
    assert (lost.sampled, sorted(lost.gaps)) == (evidence.sampled, sorted(BOTH))


def test_an_instance_that_is_never_read_spoils_its_block_alone() -> None:
    """A block compares every instance that was chosen for it or nothing; the next one begins with those that are there."""
    evidence = fold(GaugeEvidence(), 0, read(0, a=100.0, b=100.0), read(0, new=200.0, newer=200.0))
    assert evidence.chosen == {STABLE: ("a", "b"), CANDIDATE: ("new", "newer")}
    evidence = msgspec.structs.replace(evidence, sampled={})
    for second in range(5, 31, 5):
        evidence = fold(evidence, second, read(second, a=100.0, b=100.0), read(second, new=200.0))
        assert evidence.blocks == (second == 30)

    assert evidence.means == {STABLE: 100.0, CANDIDATE: 200.0}


def test_a_bound_needs_no_stable() -> None:
    """A bound is judged on the candidate alone; once both arms are beyond it nobody is blamed."""
    alone, both = GaugeEvidence(), watched(8 * 15, 150.0, 150.0, BOUND)
    for second in range(0, 8 * 15 + 1, 5):
        alone = fold(alone, second, Missing("no_instance"), read(second, new=150.0), BOUND)

    assert gauges.limit_evidence(alone, CANDIDATE) > 4.6
    assert GaugeCase("memory", True, alone, BOUND).signals() == (gauges.limit_evidence(alone, CANDIDATE),)
    assert GaugeCase("memory", True, both, BOUND).bad_everywhere()
    assert GaugeCase("memory", True, both, BOUND).signals() == (0.0,)
    assert not GaugeCase("memory", True, both, RULES).bad_everywhere()


def test_enough_blocks() -> None:
    """By soak it takes as many blocks as could condemn, by proof as many as exclude the claimed ratio."""
    proof = dataclasses.replace(RULES, proof=True)
    equal, slow = watched(8 * 15, 100.0, 100.0), watched(8 * 15, 300.0, 100.0)

    assert enough.gauges_enough(equal, RULES)
    assert not enough.gauges_enough(watched(7 * 15, 100.0, 100.0), RULES)
    assert enough.gauges_enough(equal, proof)
    assert not enough.gauges_enough(slow, proof)
    assert not enough.gauges_enough(GaugeEvidence(), proof)


def test_findings_in_words() -> None:
    """A finding tells the means, how often the candidate was worse, and what the stronger evidence is against."""
    both = dataclasses.replace(RULES, limit=1e6)
    slow = watched(8 * 15, 200.0, 100.0, both)
    found = GaugeCase("memory", True, slow, both).finding("fail", "evidence", interval=True)
    assert found.text == "memory: candidate 200, stable 100, worse than tolerated in 8 of 8 blocks"
    assert (found.ratio, found.limit, found.needed) == (2.0, "1.25 x stable in most blocks", 200)
    assert len(GaugeCase("memory", True, slow, both).signals()) == 2

    big = GaugeCase("memory", True, watched(30, 2e9, 2e9, BOUND), BOUND)
    assert big.finding("undecided", "").text.startswith("memory: candidate 2,000,000,000, stable")
    assert big.finding("undecided", "").limit == "above 100 in most blocks"
    low = GaugeCase("free", True, GaugeEvidence(), dataclasses.replace(BOUND, lower=True))
    assert low.finding("undecided", "").limit == "below 100 in most blocks"
    assert "not known yet" in low.finding("undecided", "").text
    assert low.lack() == "free has 0 of 8 blocks of 15 s needed"
    assert "cannot yet exclude a ratio of 2" in GaugeCase("m", True, slow, dataclasses.replace(RULES, proof=True)).lack()
    assert (low.passes(), low.vetoes(), low.unfit()) == (False, False, "")
