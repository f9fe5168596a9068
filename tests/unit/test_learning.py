"""What stable's own past tells before a rollout: its rates, its noise, and placebos that nobody may condemn."""

from __future__ import annotations

import dataclasses
import random

from deployguard.analysis import learning
from deployguard.analysis.bets import policy_grid
from deployguard.analysis.dispersion import UNFIT
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence, Learnt, Stratum
from deployguard.model.reading import Counter
from tests.unit.enumeration import BARE
from tests.unit.test_categories import RULES as TILTED
from tests.unit.test_categories import TOLERANT

RULES = dataclasses.replace(BARE, ratio=1.25, margin=0.0002, dispersion=None, late_onset=True, grid=policy_grid(2, 1.25))
Hour = list[tuple[float, dict[str, tuple[float, ...]]]]


def hour(rates: list[float], clump: int = 1, requests: int = 200, blocks: int = 60, seed: int = 5) -> Hour:
    """Blocks of ten seconds in which instances with these rates of bad requests each served so many, bad ones in clumps."""
    rng = random.Random(seed)

    def bad(rate: float) -> float:
        return float(clump * sum(rng.random() < rate / clump for _ in range(requests)))

    return [(10.0, {f"i{n}": (min(bad(rate), requests), float(requests)) for n, rate in enumerate(rates)}) for _ in range(blocks)]


def test_independent_errors_are_learnt_as_such() -> None:
    """An hour of three instances alike gives their history, a dispersion of one, and a placebo for each."""
    blocks = hour([0.02, 0.02, 0.02])
    found = learning.counts_learnt(blocks, RULES)
    bad = sum(grown[0] for _, by in blocks for grown in by.values())

    assert found.learnt == Learnt(1.0, bad, 600.0, 3)
    assert found.strata == {"": Stratum(Counter(0.5 + bad, 50.0 + 36_000))}


def test_clumps_are_learnt() -> None:
    """Errors that come five at a time on one instance are a dispersion of about five, and no placebo is condemned with it."""
    found = learning.counts_learnt(hour([0.03, 0.03, 0.03], clump=5), RULES)

    assert 3.5 < found.learnt.phi < 8


def test_a_placebo_that_is_condemned_raises_the_dispersion() -> None:
    """An instance that always fails more than the others would be condemned as a candidate: nothing fine can be told on such a stable."""
    odd = learning.counts_learnt(hour([0.01, 0.01, 0.05]), RULES)
    even = learning.counts_learnt(hour([0.03, 0.03, 0.03]), RULES)

    assert odd.learnt.phi > even.learnt.phi
    broken = learning.counts_learnt(hour([0.01, 0.01, 0.95]), RULES)
    assert broken.learnt.phi == learning.HOPELESS > UNFIT


def test_too_little_is_not_known() -> None:
    """Few bad requests leave the dispersion to be measured later; a lone instance has no placebo, and one that comes late is left out."""
    few = learning.counts_learnt(hour([0.0005, 0.0005], blocks=10), RULES)
    assert few.learnt == Learnt(seconds=100.0)
    alone = learning.counts_learnt(hour([0.05]), RULES)
    assert alone.learnt.placebos == 0
    assert alone.learnt.phi < 1.6  # thirty pairs of blocks know it no better
    assert learning.counts_learnt([], RULES) == CountsEvidence(strata={"": Stratum(Counter(0.5, 50.0))})

    late = hour([0.02, 0.02, 0.02])
    late = [(s, {uid: g for uid, g in by.items() if uid != "i2" or n > 30}) for n, (s, by) in enumerate(late)]
    assert learning.counts_learnt(late, RULES).learnt.placebos == 3


def latencies(slow: list[float], clump: int = 1, blocks: int = 60) -> Hour:
    """Blocks of ten seconds of instances of which this part of the requests falls into the last two of four categories."""
    rng = random.Random(9)

    def row(share: float) -> tuple[float, ...]:
        tail = min(float(clump * sum(rng.random() < share / clump for _ in range(300))), 300.0)
        return 200.0 - tail / 2, 100.0 - tail / 2, float(int(tail * 0.8)), tail - int(tail * 0.8)

    return [(10.0, {f"i{n}": row(share) for n, share in enumerate(slow)}) for _ in range(blocks)]


def test_the_tails_of_latency_are_learnt() -> None:
    """The history is the sum of all, and each tail has a dispersion; clumps of slow requests raise that of their tails alone."""
    blocks = latencies([0.05, 0.05, 0.05])
    calm = learning.categories_learnt(blocks, dataclasses.replace(TILTED, dispersion=None))
    assert sum(calm.history) == 60 * 3 * 300
    assert max(known.phi for known in calm.learnt) < 1.6
    assert {known.placebos for known in calm.learnt} == {3}

    clumped = learning.categories_learnt(latencies([0.05, 0.05, 0.05], clump=6), dataclasses.replace(TOLERANT, dispersion=None))
    assert clumped.learnt[1].phi > 3
    assert learning.categories_learnt(latencies([0.05], blocks=0), TILTED) == CategoriesEvidence()


def test_an_instance_that_is_slower_makes_placebos_fail() -> None:
    """Where one instance of stable is always slower, no dispersion makes the tails fit, and the judge is told so."""
    odd = learning.categories_learnt(latencies([0.02, 0.02, 0.5]), dataclasses.replace(TILTED, dispersion=None))

    assert max(known.phi for known in odd.learnt) > UNFIT
    slightly = latencies([0.03, 0.03, 0.06])
    slightly = [(s, {uid: g for uid, g in by.items() if uid != "i0" or n > 5}) for n, (s, by) in enumerate(slightly)]
    raised = learning.categories_learnt(slightly, dataclasses.replace(TILTED, dispersion=None))
    assert 1 < min(known.phi for known in raised.learnt) < UNFIT
    alone = learning.categories_learnt(latencies([0.05]), TILTED)
    assert {known.placebos for known in alone.learnt} == {0}
