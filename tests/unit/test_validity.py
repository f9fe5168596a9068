"""Validity of the tests by enumeration and by certificate: the expected factor never exceeds one on the null."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployguard.analysis import arms, bets, limits, projection
from deployguard.analysis.eprocess import log_sum, tempered
from deployguard.model.evidence import Block


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize(("ratio", "margin"), [(1.0, 0.0), (1.25, 0.0), (1.25, 0.02), (2.0, 0.0)])
@pytest.mark.parametrize("p0", [0.01, 0.2, 0.45])
@pytest.mark.parametrize("cap", [None, 10.0])
def test_the_expected_factor_of_a_block_is_at_most_one(ratio: float, margin: float, p0: float, cap: float | None) -> None:
    """Enumerating every outcome of small blocks at the boundary of the null, E[L] <= 1 for the whole mixture of bets."""
    p1, past = min(ratio * p0 + margin, 1.0), 0.03
    for n1, n0 in ((1, 3), (3, 1), (4, 6)):
        total = 0.0
        for e1, e0 in itertools.product(range(n1 + 1), range(n0 + 1)):
            factors = arms.worse_factors(Block(n1, e1, n0, e0), past, bets.REFERENCE, ratio, margin)
            value = math.exp(log_sum([math.log(w) + f for w, f in zip(bets.REFERENCE.weight, tempered(factors, 1.0, cap), strict=True)]))
            total += value * binomial(n1, e1, p1) * binomial(n0, e0, p0)

        assert total <= 1 + 1e-9


@pytest.mark.parametrize("p0", [0.01, 0.1, 0.3])
def test_the_promote_rule_is_valid_at_its_boundary(p0: float) -> None:
    """A regression exactly as large as claimed is excluded with expectation at most one."""
    ratio, margin, past = 2.0, 0.01, 0.05
    p1 = ratio * p0 + margin
    for n1, n0 in ((2, 5), (4, 4)):
        total = 0.0
        for e1, e0 in itertools.product(range(n1 + 1), range(n0 + 1)):
            factors = arms.same_factors(Block(n1, e1, n0, e0), past, ratio, margin)
            value = math.exp(log_sum([math.log(w) + f for w, f in zip(arms.PROMOTE_WEIGHTS, factors, strict=True)]))
            total += value * binomial(n1, e1, p1) * binomial(n0, e0, p0)

        assert total <= 1 + 1e-9


@pytest.mark.parametrize("limit", [0.01, 0.2])
def test_the_fixed_limit_is_valid_at_the_limit(limit: float) -> None:
    """At exactly the limit the expected factor of every bet is one."""
    for g in range(len(bets.REFERENCE.psi)):
        total = sum(math.exp(limits.limit_factors(6, e, limit, bets.REFERENCE)[g]) * binomial(6, e, limit) for e in range(7))

        assert total == pytest.approx(1.0, abs=1e-9)


rates = st.floats(1e-4, 0.6)


@settings(max_examples=300, deadline=None)
@given(w=st.floats(0.005, 0.95), th0=rates, lift=st.floats(1.01, 60), ratio=st.floats(1, 3), margin=st.sampled_from([0.0, 0.0002, 0.01]))
def test_the_projection_has_its_certificate(w: float, th0: float, lift: float, ratio: float, margin: float) -> None:
    """At the projected point no null anywhere gives a bet a positive expected gain."""
    th1 = bets.shifted(th0, lift)
    if th1 <= ratio * th0 + margin + 1e-6:
        return
    q1, q0 = projection.boundary(w, th1, th0, ratio, margin)

    assert projection.log_certificate(w, th1, th0, q1, q0, ratio, margin) <= 1e-9


@settings(max_examples=200, deadline=None)
@given(w=st.floats(0.005, 0.95), th0=st.floats(0.001, 0.3), share=st.sampled_from([0.5, 1.0, 1.25]), margin=st.sampled_from([0.0, 0.005]))
def test_the_mirrored_projection_has_its_certificate(w: float, th0: float, share: float, margin: float) -> None:
    """The same holds for the null of the promote rule."""
    th1 = share * th0
    q1, q0 = projection.boundary(w, th1, th0, 2.0, margin)

    assert projection.log_certificate(w, th1, th0, q1, q0, 2.0, margin, above=True) <= 1e-9


def test_the_certificate_knows_a_corner_beyond_one() -> None:
    """With a ratio below one the boundary leaves the square on its other side; the certificate still bounds it."""
    q1, q0 = projection.boundary(0.2, 0.3, 0.1, 0.5, 0.0)

    assert projection.log_certificate(0.2, 0.3, 0.1, q1, q0, 0.5, 0.0) <= 1e-9


@settings(max_examples=100, deadline=None)
@given(bad=st.integers(0, 20), more=st.integers(1, 5))
def test_more_bad_requests_are_never_less_evidence(bad: int, more: int) -> None:
    """Evidence grows with the candidate's bad requests when all else is equal."""
    past = 0.005

    def evidence(e1: int) -> float:
        factors = arms.worse_factors(Block(40, e1, 400, 2), past, bets.REFERENCE, 1.25, 0.0002)
        return log_sum([math.log(w) + f for w, f in zip(bets.REFERENCE.weight, factors, strict=True)])

    assert evidence(bad + more) >= evidence(bad)


def test_split_and_merged_polls_play_alike_at_a_constant_share() -> None:
    """For a fixed bet and share, one block of two polls is worth what the two are worth one after the other."""
    th1, th0 = 0.05, 0.01
    q1, q0 = projection.boundary(0.1, th1, th0, 1.25)
    apart = arms.log_factor(Block(10, 1, 90, 1), th1, th0, q1, q0) + arms.log_factor(Block(10, 0, 90, 2), th1, th0, q1, q0)

    assert arms.log_factor(Block(20, 1, 180, 3), th1, th0, q1, q0) == pytest.approx(apart, abs=1e-9)
