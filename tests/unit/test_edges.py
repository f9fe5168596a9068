"""Which edges of a histogram with many a rollout keeps, and when it decides on them."""

from __future__ import annotations

import datetime as dt

import pytest

from deployguard.analysis import categories, tilts
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.rebin import MOST_EDGES, chosen_edges
from deployguard.model.evidence import CategoriesEvidence
from deployguard.model.reading import Buckets
from deployguard.model.target import CANDIDATE, STABLE

T = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MANY = tuple(2.0 ** (j / 4) for j in range(-80, 81))
"""The edges of a native histogram: from a microsecond to twelve days."""
RULES = CategoriesRules(
    ratio=1.0, margin=0.0, claims=2.0, dispersion=1.0, late_onset=True, cap=10.0, alpha=0.01, weight=1.0, proof=False,
    grid=tilts.SHIPPED, interval=1.0, warmup=dt.timedelta(0),
)  # fmt: skip


def counts(each: float, first: int, last: int) -> tuple[float, ...]:
    """So many requests in each of these categories."""
    return tuple(each if first <= j <= last else 0.0 for j in range(len(MANY) + 1))


def fold(evidence: CategoriesEvidence, second: int, stable: tuple[float, ...], candidate: tuple[float, ...]) -> CategoriesEvidence:
    now = T + dt.timedelta(seconds=second)
    born = {"new": T + dt.timedelta(seconds=0.5)}
    answers = {STABLE: Buckets(now, MANY, {"old": stable}), CANDIDATE: Buckets(now, MANY, {"new": candidate}, born)}
    return categories.fold(evidence, answers, (STABLE, CANDIDATE), RULES, T, now)


def test_edges_are_chosen_when_requests_have_shown_which_matter() -> None:
    """Below a hundred requests of stable's nothing is chosen, counted or missing; what was served until then is a baseline only."""
    early = fold(CategoriesEvidence(), 1, counts(24, 60, 63), counts(5, 60, 63))
    assert (early.edges, early.counted, early.gaps) == ((), {}, {})
    chosen = fold(early, 2, counts(26, 60, 63), counts(9, 60, 63))
    assert (len(chosen.edges), chosen.counted) == (MOST_EDGES, {})
    later = fold(chosen, 3, counts(28, 60, 63), counts(12, 60, 63))
    assert {arm: sum(served) for arm, served in later.counted.items()} == {STABLE: 8, CANDIDATE: 12}


@pytest.mark.parametrize(("each", "first", "last"), [(25.0, 60, 63), (5000.0, 60, 63), (100.0, 35, 35), (300.0, 70, 90)])
def test_edges_stand_where_requests_are_and_above(each: float, first: int, last: int) -> None:
    """Requests are told apart as finely as the histogram can, as far as the edges suffice, and what is slower than all of them still is."""
    kept = chosen_edges(Buckets(T, MANY, {"a": counts(each, first, last)}))
    assert kept is not None
    inside = [edge for edge in MANY[first : last + 1] if edge in kept]
    assert len(inside) >= min(last - first + 1, MOST_EDGES - 4)
    assert len([edge for edge in kept if MANY[last] < edge < 300 * MANY[last]]) >= min(3, MOST_EDGES - len(inside))


def test_few_edges_are_all_kept_at_once() -> None:
    """A histogram with classic bounds need not be seen at work first."""
    assert chosen_edges(Buckets(T, MANY[:MOST_EDGES], {})) == MANY[:MOST_EDGES]
