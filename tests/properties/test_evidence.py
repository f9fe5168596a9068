"""What holds for evidence of any readings: nothing is counted twice or invented, and nothing but requests moves it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from deployguard.analysis import arms, bets, categories, counts, gauges, tilts
from deployguard.analysis.bets import policy_grid
from deployguard.analysis.cases.base import Case
from deployguard.analysis.cases.categories import CategoriesCase
from deployguard.analysis.cases.counts import CountsCase
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.eprocess import accuses, log_sum, log_value, play, start
from deployguard.analysis.gauges import GaugeRules
from deployguard.model.evidence import Block, CategoriesEvidence, CountsEvidence, Evidence, GaugeEvidence
from deployguard.model.reading import Answer, Buckets, Counter, Counters, Gauges, Missing
from deployguard.model.target import CANDIDATE, STABLE

T = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BOTH = (STABLE, CANDIDATE)
RULES = CountsRules(
    compare=True, ratio=1.25, margin=0.0002, floor=0.001, claims=2, limit=0.3, dispersion=None, late_onset=True, cap=10.0, alpha=0.01,
    weight=1.0, proof=True, grid=policy_grid(2, 1.25), interval=1.0, traffic_share=1.25,
)  # fmt: skip
INDEPENDENT = dataclasses.replace(RULES, dispersion=1.0, floor=0.0)
TILTED = CategoriesRules(
    ratio=1.0, margin=0.0, claims=2.0, dispersion=None, late_onset=True, cap=10.0, alpha=0.01, weight=1.0, proof=True,
    grid=tilts.SHIPPED, interval=1.0, warmup=dt.timedelta(seconds=2),
)  # fmt: skip
GAUGED = GaugeRules(
    compare=True, ratio=1.25, claims=2.0, limit=5.0, lower=False, alpha=0.01, weight=1.0, proof=True, warmup=dt.timedelta(0)
)
EDGES = (0.1, 0.5)


def at(seconds: float) -> dt.datetime:
    return T + dt.timedelta(seconds=seconds)


class Instance(msgspec.Struct, frozen=True):
    """One process in one poll: what it served in it by category, whether it restarted before, whether it answers."""

    served: tuple[int, int, int]
    restarts: bool = False
    answers: bool = True


instances = st.builds(Instance, st.tuples(*[st.integers(0, 4)] * 3), st.booleans(), st.sampled_from([True, True, False]))
polls = st.lists(
    st.fixed_dictionaries({arm: st.dictionaries(st.sampled_from(["a", "b", "c"]), instances, max_size=3) for arm in BOTH}),
    min_size=2,
    max_size=8,
)
World = list[dict[str, dict[str, Instance]]]


def readings(world: World, kind: str, rename: str = "") -> list[dict[str, Answer]]:
    """What is read of a world poll by poll: an arm where nobody answers is missing, and who has gone comes back as a new process."""
    totals: dict[str, tuple[int, ...]] = {}
    born: dict[str, dt.datetime] = {}
    there: dict[str, str] = {}
    found = []
    for n, poll in enumerate(world):
        answers: dict[str, Answer] = {}
        there = {name: uid for name, uid in there.items() if any(name == f"{arm}{one}" for arm, members in poll.items() for one in members)}
        for arm, members in poll.items():
            now, unread = {}, []
            for name, one in members.items():
                uid = there.setdefault(f"{arm}{name}", f"{arm[0]}-{name}-{n}{rename}")
                if uid not in totals or one.restarts:
                    totals[uid] = (0, 0, 0)
                    born.setdefault(uid, at(n - 0.5))
                totals[uid] = tuple(a + b for a, b in zip(totals[uid], one.served, strict=True))
                if one.answers:
                    now[uid] = totals[uid]
                else:
                    unread.append(uid)
            answers[arm] = _read(kind, n, now, {uid: born[uid] for uid in now}, tuple(unread)) if now else Missing("refused")
        found.append(answers)
    return found


def _read(kind: str, n: int, now: dict[str, tuple[int, ...]], born: dict[str, dt.datetime], unread: tuple[str, ...]) -> Answer:
    if kind == "counts":
        return Counters(at(n), {uid: Counter(float(v[2]), float(sum(v))) for uid, v in now.items()}, born, unread)
    if kind == "categories":
        return Buckets(at(n), EDGES, {uid: tuple(map(float, v)) for uid, v in now.items()}, born, unread)
    return Gauges(at(n), {uid: float(v[2] + 1) for uid, v in now.items()}, born, unread)


def fold(kind: str, evidence: Any, answers: dict[str, Answer], n: int) -> Any:
    """The evidence of either kind after one poll, twenty seconds after the last one."""
    if kind == "counts":
        return counts.fold(evidence, answers, BOTH, RULES, at(-1), at(n), 0.5)
    if kind == "categories":
        return categories.fold(evidence, answers, BOTH, TILTED, at(-1), at(n))
    return gauges.fold(evidence, answers, BOTH, GAUGED, at(20 * n))


FRESH: dict[str, Evidence] = {"counts": CountsEvidence(), "categories": CategoriesEvidence(), "gauge": GaugeEvidence()}
kinds = st.sampled_from(sorted(FRESH))


def told(kind: str, found: list[dict[str, Answer]]) -> list[Evidence]:
    evidence, history = FRESH[kind], []
    for n, answers in enumerate(found):
        evidence = fold(kind, evidence, answers, n)
        history.append(evidence)
    return history


@settings(max_examples=150, deadline=None)
@given(polls)
def test_nothing_is_counted_that_was_not_served(world: World) -> None:
    """With restarts, processes that come and go, and scrapes that fail, no count is negative and none exceeds what was served."""
    last = told("counts", readings(world, "counts"))[-1]
    assert isinstance(last, CountsEvidence)
    for arm, counted in last.counted.items():
        served = [one.served for poll in world for one in poll[arm].values()]
        assert 0 <= counted.bad <= sum(s[2] for s in served)
        assert counted.bad <= counted.total <= sum(map(sum, served))
    tallied = told("categories", readings(world, "categories"))[-1]
    assert isinstance(tallied, CategoriesEvidence)
    for arm, tallies in tallied.counted.items():
        served = [one.served for poll in world for one in poll[arm].values()]
        assert all(0 <= c <= sum(s[j] for s in served) for j, c in enumerate(tallies))


@settings(max_examples=100, deadline=None)
@given(kinds, polls)
def test_evidence_survives_being_saved_at_any_poll(kind: str, world: World) -> None:
    """Evidence that is written and read again between any two polls goes on identically, to the byte."""
    straight = told(kind, readings(world, kind))
    evidence = FRESH[kind]
    for n, answers in enumerate(readings(world, kind)):
        evidence = fold(kind, msgspec.json.decode(msgspec.json.encode(evidence), type=type(evidence)), answers, n)
        assert msgspec.json.encode(evidence) == msgspec.json.encode(straight[n])


def compared(evidence: Any) -> list[float]:
    """What the arms were compared on, and what waits to be: a second look may close a pile or drop it, and must not add to it."""
    if not isinstance(evidence, CountsEvidence):
        return [evidence.blocks]
    blocks = [*evidence.segments, *(stratum.pile for stratum in evidence.strata.values())]
    return [sum(getattr(block, field) for block in blocks) for field in ("n1", "e1", "n0", "e0")]


@settings(max_examples=100, deadline=None)
@given(kinds, polls)
def test_a_poll_read_twice_counts_once(kind: str, world: World) -> None:
    """A tick that is repeated after a crash finds the same readings, and adds nothing to what was counted."""
    if kind == "gauge":
        return  # a gauge's sample is a look, not a count: a second look is a second sample
    for n, answers in enumerate(readings(world, kind)):
        once: Any = told(kind, readings(world, kind)[: n + 1])[-1]
        again = fold(kind, once, answers, n)
        assert again.counted == once.counted
        assert all(after <= before for after, before in zip(compared(again), compared(once), strict=True))


@settings(max_examples=100, deadline=None)
@given(kinds, polls)
def test_the_order_and_the_names_of_instances_do_not_matter(kind: str, world: World) -> None:
    """Instances read in another order, or called otherwise, leave the same evidence."""
    turned: World = [{arm: dict(reversed(members.items())) for arm, members in reversed(poll.items())} for poll in world]
    straight, back, named = (told(kind, readings(w, kind, rename))[-1] for w, rename in ((world, ""), (turned, ""), (world, "-x")))
    for process in ("worse", "same", "blocks", "counted", "above"):
        found = [getattr(evidence, process, None) for evidence in (straight, back, named)]
        assert found[0] == found[1] == found[2]


@settings(max_examples=200, deadline=None)
@given(
    served=st.tuples(st.integers(1, 60), st.integers(1, 400)),
    bad=st.tuples(st.floats(0, 1), st.floats(0, 0.5)),
    past=st.floats(1e-4, 0.4),
    ratio=st.sampled_from([1.0, 1.25, 2.0]),
    margin=st.sampled_from([0.0, 0.0002, 0.02]),
)
def test_more_bad_requests_are_more_evidence(
    served: tuple[int, int], bad: tuple[float, float], past: float, ratio: float, margin: float
) -> None:
    """One more bad request of the candidate's never speaks for it, and never against the promote rule's null."""
    (n1, n0), grid = served, bets.REFERENCE
    e1, e0 = min(int(bad[0] * n1), n1 - 1), int(bad[1] * n0)
    less, more = Block(n1, e1, n0, e0), Block(n1, e1 + 1, n0, e0)

    assert all(b >= a - 1e-9 for a, b in zip(*(arms.worse_factors(x, past, grid, ratio, margin) for x in (less, more)), strict=True))
    proofs = [arms.same_factors(x, past, 2.0, margin) for x in (less, more)]
    assert all(b <= a + 1e-9 for a, b in zip(*proofs, strict=True))


@settings(max_examples=200, deadline=None)
@given(
    mine=st.tuples(*[st.integers(0, 30)] * 4).filter(lambda c: sum(c[:3]) > 0),
    theirs=st.tuples(*[st.integers(0, 300)] * 4).filter(lambda c: sum(c) > 0),
    base=st.tuples(*[st.integers(0, 1000)] * 4),
    move=st.integers(0, 2),
    tolerant=st.booleans(),
)
def test_slower_requests_are_more_evidence(
    mine: tuple[int, ...], theirs: tuple[int, ...], base: tuple[int, ...], move: int, tolerant: bool
) -> None:
    """A request of the candidate's that moves to a worse category never speaks for it, by tilts or by tails."""
    source = next(j for j in (move, 0, 1, 2) if mine[j])
    slower = tuple(c - (j == source) + (j == source + 1) for j, c in enumerate(mine))
    rules = dataclasses.replace(TILTED, ratio=1.25, margin=0.01) if tolerant else TILTED
    marks = categories.marks_of(base)
    fast, slow = (categories.block_factors(m, theirs, base, (0.1, 0.2, 0.5), marks, rules) for m in (mine, slower))

    assert all(b >= a - 1e-9 for a, b in zip(fast, slow, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(0, 3), st.integers(1, 90)), min_size=1, max_size=6))
def test_a_block_does_not_know_the_order_inside_it(blocks: list[tuple[int, int, int, int]]) -> None:
    """Requests count for a block however they were spread over the instances that served them."""
    e1, n1, e0, n0 = (float(sum(column)) for column in zip(*((e1, e1 + n1, e0, e0 + n0) for e1, n1, e0, n0 in blocks), strict=True))

    def evidence(parts: list[tuple[int, int, int, int]]) -> float:
        """What one poll of twenty seconds is worth when the requests are spread over as many instances as there are parts."""
        last = CountsEvidence()
        for second in (0, 20):
            mine = {f"c{i}": Counter(p[0] * second / 20, (p[0] + p[1]) * second / 20) for i, p in enumerate(parts)}
            theirs = {f"s{i}": Counter(p[2] * second / 20, (p[2] + p[3]) * second / 20) for i, p in enumerate(parts)}
            answers: dict[str, Answer] = {
                STABLE: Counters(at(second), theirs),
                CANDIDATE: Counters(at(second), mine, dict.fromkeys(mine, at(-0.5))),
            }
            last = counts.fold(last, answers, BOTH, INDEPENDENT, at(-1), at(second))
        return counts.worse_evidence(last, INDEPENDENT)

    factors = arms.worse_factors(Block(n1, e1, n0, e0), bets.settled(0.5, 50.0), INDEPENDENT.grid, 1.25, 0.0002)
    played = play(start(len(factors), late_onset=True), factors, INDEPENDENT.grid.weight, 21.0)  # a second before the first reading
    alone = log_value(played, INDEPENDENT.grid.weight)

    assert math.isclose(evidence(blocks), alone, abs_tol=1e-9)
    assert math.isclose(evidence(blocks[::-1]), alone, abs_tol=1e-9)


@settings(max_examples=60, deadline=None)
@given(polls, st.booleans())
def test_the_cheap_bound_of_the_evidence_holds(world: World, histograms: bool) -> None:
    """What the judge looks at first is never smaller than the evidence itself, at any poll."""
    kind = "categories" if histograms else "counts"
    for evidence in told(kind, readings(world, kind)):
        case: Case
        if isinstance(evidence, CountsEvidence):
            case = CountsCase("errors", True, evidence, RULES)
        else:
            assert isinstance(evidence, CategoriesEvidence)
            case = CategoriesCase("latency", True, evidence, TILTED)
        assert case.most() >= log_sum(case.signals()) - 1e-9


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3, st.floats(0.1, 4000)), max_size=12), st.booleans())
def test_a_process_that_accuses_nobody_has_no_evidence(blocks: list[tuple[float, float, float, float]], late: bool) -> None:
    """The cheap look at single bets never overlooks evidence above one, and the largest ever reached is never below the present one."""
    process, weights = start(3, late_onset=late), (0.5, 0.3, 0.2)
    for *factors, seconds in blocks:
        process = play(process, factors, weights, seconds)
        value = log_value(process, weights)
        assert accuses(process) or value <= 1e-12
        assert process.best >= value - 1e-9
        assert 0 <= process.rest <= 1
