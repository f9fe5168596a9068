"""Checks on requests by ordered category: latency histograms, and classes of status codes.

Without a tolerance the whole distributions are compared, by tilts. With one, the shares of requests beyond four marks are: a tail that
stable's own history fixes, "slower than the slowest fiftieth", compared as bad requests are (docs/statistics.md, section 5).
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from deployguard.analysis import tilts
from deployguard.analysis.arms import PROMOTE_WEIGHTS, same_factors, worse_factors
from deployguard.analysis.bets import Grid, settled
from deployguard.analysis.counters import added, added_up, kept, same_crew, summed, tallied
from deployguard.analysis.dispersion import UNFIT, in_use, spread_after
from deployguard.analysis.eprocess import log_value, play, start, tempered
from deployguard.analysis.gaps import elapsed, heard
from deployguard.analysis.rebin import chosen_edges, rebinned
from deployguard.analysis.strata import LONGEST_PILE, PATIENCE, alike
from deployguard.model.evidence import Block, Both, CategoriesEvidence, Learnt, Process, Spread, Tallies
from deployguard.model.reading import Answer, Buckets, Counter, Missing
from deployguard.model.target import CANDIDATE, STABLE

SLOW = (0.05, 0.01)
"""The tails of which the promote rule must show that they did not grow: beyond the 95th and the 99th percentile."""
PSI = Grid((2.0, 4.0, 16.0), (1 / 3, 1 / 3, 1 / 3))
LEAST = 100.0
"""Stable's requests below which there is no distribution to bet on yet."""
MOST_SEGMENTS = 4
"""Shares of traffic that are kept apart for the interval of the ratio; there are as many as stages with a control."""
FRESH = 1.05
"""Bets are made anew when what is known of stable has grown by this factor."""


@dataclass(frozen=True, slots=True, eq=False)
class CategoriesRules:
    """What a policy says about one check on categories, in plain numbers. `warmup`: a new instance's first time is left out."""

    ratio: float
    margin: float
    claims: float
    dispersion: float | None
    late_onset: bool
    cap: float | None
    alpha: float
    weight: float
    proof: bool
    grid: tilts.Tilts
    interval: float
    warmup: dt.timedelta

    @property
    def tolerant(self) -> bool:
        """Whether some worsening is tolerated, so that marked shares are compared and not whole distributions."""
        return self.ratio > 1 or self.margin > 0

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the bets of the comparison."""
        bets = len(tilts.TAILS) * len(PSI.psi)
        return (1 / bets,) * bets if self.tolerant else self.grid.weight


def fold(
    evidence: CategoriesEvidence,
    answers: Mapping[str, Answer],
    arms: tuple[str, ...],
    rules: CategoriesRules,
    began: dt.datetime,
    now: dt.datetime,
) -> CategoriesEvidence:
    """The evidence after one poll of `arms`. Each arm that answered is counted; they are compared only over the same interval."""
    gaps, readings = heard(evidence, answers, arms, now, Buckets)
    if not readings:
        return msgspec.structs.replace(evidence, gaps=gaps)
    known = readings[STABLE] if STABLE in readings else next(iter(readings.values()))
    edges = evidence.edges or chosen_edges(known)
    if edges is None:
        return msgspec.structs.replace(evidence, gaps=gaps)
    if edges not in (evidence.edges, known.edges):
        began = now  # polls went by without edges: what was counted meanwhile, warm-up included, is a baseline only
    binned: dict[str, dict[str, Tallies]] = {}
    for arm, reading in readings.items():
        fitted = rebinned(reading, edges)
        if isinstance(fitted, Missing):
            gaps = {**heard(evidence, {arm: fitted}, (arm,), now, Buckets)[0], **gaps}
        else:
            binned[arm] = fitted
    if not binned:
        return msgspec.structs.replace(evidence, gaps=gaps)
    aligned = len(binned) == len(arms)
    at = {arm: readings[arm].at for arm in binned}
    through = min(at.values())
    seconds = elapsed(evidence, max(at.values()), rules.interval)
    parts = {
        arm: tallied(evidence.last, arm, values, readings[arm].born, began, readings[arm].at - rules.warmup)
        for arm, values in binned.items()
    }
    moved = {arm: added_up(found) for arm, found in parts.items()}
    changed = CANDIDATE in binned and not same_crew(readings[CANDIDATE], evidence.last.get(CANDIDATE, {}))
    history = evidence.history
    if STABLE in binned and STABLE not in evidence.read_at:
        learnt = len(history) == len(next(iter(binned[STABLE].values()), ()))
        history = history if learnt else _history(list(binned[STABLE].values()))
    last: dict[str, dict[str, Tallies]] = {} if aligned else dict(evidence.last)
    for arm, values in binned.items():
        last[arm] = kept(evidence.last.get(arm, {}), values, readings[arm].unread)
    after = msgspec.structs.replace(
        evidence,
        edges=edges,
        through=through if aligned else evidence.through,
        read_at={**evidence.read_at, **at},
        last=last,
        gaps=gaps,
        history=history,
    )
    if CANDIDATE not in arms:
        spreads = _spreads(after, parts.get(STABLE, ()), rules)
        return msgspec.structs.replace(after, history=added(history, moved.get(STABLE, ())), spreads=spreads)
    return _counted(after, parts, moved, rules, seconds, now, changed=changed, aligned=aligned)


def _history(values: Sequence[Tallies], most: float = 5000.0) -> Tallies:
    was = added_up(values)
    total = sum(was)
    return tuple(v * min(1.0, most / total) for v in was) if total > 0 else ()


def _counted(
    evidence: CategoriesEvidence,
    parts: Mapping[str, Sequence[Tallies]],
    moved: Mapping[str, Tallies],
    rules: CategoriesRules,
    seconds: float,
    now: dt.datetime,
    *,
    changed: bool,
    aligned: bool,
) -> CategoriesEvidence:
    """The evidence after the deltas of this poll have been counted, and played when both arms have served."""
    counted = {**evidence.counted, **{arm: added(evidence.counted.get(arm, ()), m) for arm, m in moved.items() if m}}
    pile = {} if changed else dict(evidence.pile)
    pile = {**pile, **{arm: added(pile.get(arm, ()), m) for arm, m in moved.items() if m}}
    piled = (0.0 if changed else evidence.piled) + seconds
    # What this poll says of the noise tempers the polls after it: tempering must not look into what it tempers.
    spreads = _spreads(evidence, parts.get(STABLE, ()), rules)
    mine, theirs = pile.get(CANDIDATE, ()), pile.get(STABLE, ())
    if aligned and sum(mine) >= 1 and sum(theirs) >= 1:
        evidence = _played(evidence, mine, theirs, rules, piled, now)
        pile, piled, blocks, seen = {}, 0.0, evidence.blocks + 1, added(evidence.seen, theirs)
    elif aligned and piled >= LONGEST_PILE:
        pile, piled, blocks, seen = {}, 0.0, evidence.blocks, added(evidence.seen, theirs)
    else:
        blocks, seen = evidence.blocks, evidence.seen
    return msgspec.structs.replace(evidence, counted=counted, pile=pile, piled=piled, spreads=spreads, blocks=blocks, seen=seen)


def _played(
    evidence: CategoriesEvidence, mine: Tallies, theirs: Tallies, rules: CategoriesRules, seconds: float, now: dt.datetime
) -> CategoriesEvidence:
    past = added(evidence.history, evidence.seen)
    if sum(past) < LEAST:
        return evidence  # no distribution to bet on: what stable serves now becomes it
    base = evidence.base if evidence.base and sum(past) < FRESH * sum(evidence.base) else past
    marks = evidence.marks or marks_of(past)
    phis, known = dispersions(evidence, rules)
    factors = quieted(block_factors(mine, theirs, base, evidence.edges, marks, rules), phis, rules)
    worse = evidence.worse or start(len(rules.weights), late_onset=rules.late_onset)
    worse = play(worse, tempered(factors, 1.0, None if known else rules.cap), rules.weights, seconds)
    proof = {CANDIDATE: added(evidence.proof.get(CANDIDATE, ()), mine), STABLE: added(evidence.proof.get(STABLE, ()), theirs)}
    proven, same = evidence.proven + seconds, evidence.same
    if proven >= PATIENCE:
        same, proof, proven = _same(same, proof, _before_proof(evidence), marks, rules, phis), {}, 0.0
    slow = sum(mine[min(marks[-1], len(base) - 1) :])
    return msgspec.structs.replace(
        evidence,
        base=base,
        marks=marks,
        worse=worse,
        same=same,
        proof=proof,
        proven=proven,
        segments=_pooled(evidence.segments, mine, theirs),
        first_bad=evidence.first_bad or (now if slow > 0 else None),
    )


def _before_proof(evidence: CategoriesEvidence) -> Tallies:
    """What was known of stable before what waits for the promote rule."""
    past, waits = added(evidence.history, evidence.seen), evidence.proof.get(STABLE, ())
    return tuple(max(known - new, 0.0) for known, new in zip(past, waits, strict=True)) if waits else past


def marks_of(past: Tallies) -> tuple[int, ...]:
    """The categories from which requests count as slow: four for the comparison, two for the promote rule."""
    return (*tilts.tail_marks(past, tilts.TAILS), *tilts.tail_marks(past, SLOW))


def block_factors(
    mine: Tallies, theirs: Tallies, base: Tallies, edges: tuple[float, ...], marks: tuple[int, ...], rules: CategoriesRules
) -> list[float]:
    """One log factor per bet of the comparison, for what both arms served in a block."""
    if not rules.tolerant:
        return tilts.tilt_factors(mine, theirs, base, edges, rules.grid)
    return _tail_factors(mine, theirs, base, marks, rules)


def quieted(factors: list[float], phis: tuple[float, ...], rules: CategoriesRules) -> list[float]:
    """Each factor tempered by the dispersion of what it bets on; a bet on a tail in which requests clump too much is neutral.

    A bet on a marked tail has that tail's dispersion, one on the whole distribution the largest.
    """
    if rules.tolerant:
        by_bet = [phi for phi in phis for _ in PSI.psi]
    else:
        by_bet = [max(phis)] * len(rules.grid.lam) + [phis[tilts.TAILS.index(share)] for share, _ in rules.grid.tails]
    return [0.0 if phi > UNFIT else f / phi for f, phi in zip(factors, by_bet, strict=True)]


def _block(mine: Tallies, theirs: Tallies, mark: int) -> Block:
    return Block(sum(mine), sum(mine[mark:]), sum(theirs), sum(theirs[mark:]))


def _slow(base: Tallies, mark: int) -> float:
    return settled(sum(base[mark:]) + tilts.PRIOR * (len(base) - mark), sum(base) + tilts.PRIOR * len(base))


def _tail_factors(mine: Tallies, theirs: Tallies, base: Tallies, marks: tuple[int, ...], rules: CategoriesRules) -> list[float]:
    """Each mark is a check of its own on "beyond the mark"; a mark beyond the last category says nothing."""
    factors: list[float] = []
    for mark in marks[: len(tilts.TAILS)]:
        if mark >= len(base):
            factors += [0.0] * len(PSI.psi)
        else:
            factors += worse_factors(_block(mine, theirs, mark), _slow(base, mark), PSI, rules.ratio, rules.margin)
    return factors


def _same(
    processes: tuple[Process, ...],
    proof: Mapping[str, Tallies],
    base: Tallies,
    marks: tuple[int, ...],
    rules: CategoriesRules,
    phis: tuple[float, ...],
) -> tuple[Process, ...]:
    """The promote rule on the slowest twentieth and hundredth: each must be shown not to have grown to what the check claims to see."""
    mine, theirs = proof.get(CANDIDATE, ()), proof.get(STABLE, ())
    processes = processes or tuple(start(len(PROMOTE_WEIGHTS), late_onset=False) for _ in SLOW)
    if sum(mine) < 1 or sum(theirs) < 1:
        return processes
    found = []
    for process, mark, phi in zip(processes, marks[len(tilts.TAILS) :], phis[1:], strict=False):
        mark = min(mark, len(base) - 1)
        factors = same_factors(_block(mine, theirs, mark), _slow(base, mark), rules.claims, rules.margin)
        found.append(play(process, tempered(factors, phi, None), PROMOTE_WEIGHTS, 0.0))
    return tuple(found)


def _spreads(evidence: CategoriesEvidence, parts: Sequence[Tallies], rules: CategoriesRules) -> tuple[Spread, ...]:
    """The dispersion of the requests beyond each mark, once the marks are fixed."""
    if rules.dispersion is not None or not parts or not evidence.marks:
        return evidence.spreads
    before = evidence.spreads or (Spread(),) * len(tilts.TAILS)
    totals = [sum(part) for part in parts]
    return tuple(tail_spread(spread, parts, totals, mark) for spread, mark in zip(before, evidence.marks, strict=False))


def tail_spread(spread: Spread, parts: Sequence[Tallies], totals: Sequence[float], mark: int) -> Spread:
    """The dispersion of the requests from `mark` on after one more poll of stable: `parts` by instance, and the requests of each."""
    slow = [Counter(sum(part[mark:]), total) for part, total in zip(parts, totals, strict=True)]
    return spread_after(spread, slow, summed(slow))


def dispersions(evidence: CategoriesEvidence, rules: CategoriesRules) -> tuple[tuple[float, ...], bool]:
    """The dispersion of each of the compared tails, and whether any is known.

    The promote rule's two tails borrow those of their neighbours, the slowest tenth and fiftieth.
    """
    learnt = evidence.learnt or (Learnt(),) * len(tilts.TAILS)
    spreads = evidence.spreads or (Spread(),) * len(tilts.TAILS)
    found = [in_use(known, spread, rules.dispersion) for known, spread in zip(learnt, spreads, strict=True)]
    return tuple(phi for phi, _ in found), any(sure for _, sure in found)


def worse_evidence(evidence: CategoriesEvidence, rules: CategoriesRules) -> float:
    """log E that the candidate's requests are worse than tolerated; 0 before anything was compared."""
    return log_value(evidence.worse, rules.weights) if evidence.worse else 0.0


def same_evidence(evidence: CategoriesEvidence, rules: CategoriesRules) -> float:
    """The smaller of the two tails' largest log E ever reached against "worse than claimed", what waits to be played included."""
    if not evidence.marks:
        return 0.0
    phis, _ = dispersions(evidence, rules)
    return min(p.best for p in _same(evidence.same, evidence.proof, _before_proof(evidence), evidence.marks, rules, phis))


def _pooled(segments: tuple[Both, ...], mine: Tallies, theirs: Tallies) -> tuple[Both, ...]:
    """What was compared, pooled while the share of traffic stays within half of what it was."""
    if not segments:
        return (Both(mine, theirs),)
    last = segments[-1]
    if len(segments) >= MOST_SEGMENTS or alike(sum(last.mine), sum(last.theirs), sum(mine), sum(theirs)):
        return (*segments[:-1], Both(added(last.mine, mine), added(last.theirs, theirs)))
    return (*segments, Both(mine, theirs))


def telling(evidence: CategoriesEvidence) -> int | None:
    """The category from which on the candidate's requests have grown most against stable's, beyond chance; None before a comparison.

    It is the worst category when none has grown. That is what a person is told of, with an interval that holds for each category by
    itself; nothing is decided by it.
    """
    if not evidence.segments:
        return None
    mine, theirs = (added_up([getattr(s, arm) for s in evidence.segments]) for arm in ("mine", "theirs"))
    growth = {mark: _growth(_block(mine, theirs, mark)) for mark in range(len(mine) - 1, 0, -1)}
    return max(growth, key=growth.__getitem__)


def _growth(block: Block) -> float:
    """How much more likely the bad requests are with a rate for each arm than with one for both, in nats; 0 when they are not more."""
    p1, p0 = block.e1 / block.n1, block.e0 / block.n0
    p = (block.e1 + block.e0) / (block.n1 + block.n0)
    return block.n1 * _divergence(p1, p) + block.n0 * _divergence(p0, p) if p1 > p0 else 0.0


def _divergence(p: float, q: float) -> float:
    return (p * math.log(p / q) if p else 0.0) + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def beyond(evidence: CategoriesEvidence, mark: int) -> tuple[Block, ...]:
    """What was compared, as requests in category `mark` or a worse one, one block for each share of traffic."""
    return tuple(_block(s.mine, s.theirs, mark) for s in evidence.segments)


def counted_beyond(evidence: CategoriesEvidence, arm: str, mark: int) -> Counter:
    """The requests that `arm` served in category `mark` or a worse one, and all of them."""
    counts = evidence.counted.get(arm, ())
    return Counter(sum(counts[mark:]), sum(counts))


def history_beyond(evidence: CategoriesEvidence, mark: int) -> Counter:
    """As `counted_beyond`, for what was known of stable before the exposure."""
    return Counter(sum(evidence.history[mark:]), sum(evidence.history))
