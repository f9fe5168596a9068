"""What stable's own past tells before a rollout: how its bad requests hang together, and what its rates are.

The dispersion is measured on blocks of stable alone, and then held against placebos: each stable instance plays the candidate against
the others, under the settings of the rollout to come. If one is condemned although there are fewer of them than the confidence allows
false alarms, the dispersion goes up a rung (docs/statistics.md, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from deployguard.analysis import tilts
from deployguard.analysis.arms import worse_factors
from deployguard.analysis.bets import settled
from deployguard.analysis.categories import LEAST, CategoriesRules, block_factors, marks_of, quieted
from deployguard.analysis.counters import added, plus, summed
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.dispersion import ENOUGH, UNFIT, measured, next_rung, spread_after
from deployguard.analysis.eprocess import play, start, tempered
from deployguard.model.evidence import Block, CategoriesEvidence, CountsEvidence, Learnt, Spread, Stratum, Tallies
from deployguard.model.reading import Counter

Blocks = Sequence[tuple[float, Mapping[str, Tallies]]]
"""The length of a block in seconds, and what each instance's counters grew by in it."""
MOST_PLACEBOS = 20
HOPELESS = 2 * UNFIT
"""The dispersion of a signal that no rung makes fit for counting."""


def counts_learnt(blocks: Blocks, rules: CountsRules) -> CountsEvidence:
    """The evidence that a rollout begins with: stable's history, and its dispersion where enough went bad to measure it."""
    polls = [(seconds, {uid: Counter(*grown) for uid, grown in by.items()}) for seconds, by in blocks]
    spread, history = Spread(), Counter(0.5, 50.0)
    for _, by in polls:
        whole = summed(list(by.values()))
        spread, history = spread_after(spread, list(by.values()), whole), plus(history, whole)

    def reached(uid: str, phi: float) -> float:
        return _counts_placebo(polls, uid, rules, phi)

    learnt = _learnt(spread, history.bad - 0.5, sum(s for s, _ in polls), _names(blocks), rules.alpha, reached)
    return CountsEvidence(learnt=learnt, strata={"": Stratum(history)})


def _counts_placebo(polls: Sequence[tuple[float, Mapping[str, Counter]]], uid: str, rules: CountsRules, phi: float) -> float:
    """The largest log evidence that an instance of stable meets as if it were the candidate."""
    process, past = start(len(rules.grid.psi), late_onset=rules.late_onset), Counter(0.5, 50.0)
    for seconds, by in polls:
        mine = by.get(uid)
        theirs = summed([c for other, c in by.items() if other != uid])
        if mine is None or mine.total < 1 or theirs.total < 1:
            continue
        block = Block(mine.total, mine.bad, theirs.total, theirs.bad)
        factors = worse_factors(block, settled(past.bad, past.total), rules.grid, rules.ratio, rules.margin)
        process = play(process, tempered(factors, phi, None), rules.grid.weight, seconds)
        past = plus(past, theirs)
    return process.best


def categories_learnt(blocks: Blocks, rules: CategoriesRules) -> CategoriesEvidence:
    """As `counts_learnt`, for requests by category, with a dispersion for each of the compared tails.

    The placebos are judged by rank: the edges of the categories are those of the first reading to come.
    """
    history: Tallies = ()
    for _, by in blocks:
        for grown in by.values():
            history = added(history, grown)
    if sum(history) < LEAST:
        return CategoriesEvidence()
    marks, seconds, names = marks_of(history), sum(s for s, _ in blocks), _names(blocks)
    spreads = [_tail_spread(blocks, mark) for mark in marks[: len(tilts.TAILS)]]
    found = [(measured(spread, ENOUGH), max(spread.free, spread.paired_free)) for spread in spreads]
    condemned, rung = math.log(1 / rules.alpha), 1.0
    phis = tuple(phi or 1.0 for phi, _ in found)
    while rung <= UNFIT and any(_categories_placebo(blocks, uid, history, rules, phis) >= condemned for uid in names):
        rung = next_rung(rung)
        phis = tuple(max(phi, rung) for phi in phis)
    learnt = tuple(
        Learnt(min(phi, HOPELESS), bad if known is not None else 0.0, seconds, len(names))
        for phi, (known, bad) in zip(phis, found, strict=True)
    )
    return CategoriesEvidence(history=history, learnt=learnt)


def _tail_spread(blocks: Blocks, mark: int) -> Spread:
    spread = Spread()
    for _, by in blocks:
        slow = [Counter(sum(grown[mark:]), sum(grown)) for grown in by.values()]
        spread = spread_after(spread, slow, summed(slow))
    return spread


def _categories_placebo(blocks: Blocks, uid: str, history: Tallies, rules: CategoriesRules, phis: tuple[float, ...]) -> float:
    process, marks = start(len(rules.weights), late_onset=rules.late_onset), marks_of(history)
    for seconds, by in blocks:
        mine, theirs = by.get(uid, ()), tuple(map(sum, zip(*(g for other, g in by.items() if other != uid), strict=True)))
        if sum(mine) < 1 or sum(theirs) < 1:
            continue
        factors = quieted(block_factors(mine, theirs, history, (), marks, rules), phis, rules)
        process = play(process, factors, rules.weights, seconds)
    return process.best


def _names(blocks: Blocks) -> list[str]:
    seen = {uid: None for _, by in blocks for uid in by}
    return list(seen)[:MOST_PLACEBOS] if len(seen) > 1 else []


def _learnt(
    spread: Spread, bad: float, seconds: float, placebos: list[str], alpha: float, reached: Callable[[str, float], float]
) -> Learnt:
    """The measured dispersion, raised until no placebo is condemned. Too few bad requests: nothing is known yet."""
    phi = measured(spread, ENOUGH)
    if phi is None:
        return Learnt(bad=0.0, seconds=seconds)
    condemned = math.log(1 / alpha)
    while phi <= UNFIT and any(reached(uid, phi) >= condemned for uid in placebos):
        phi = next_rung(phi)
    return Learnt(phi if phi <= UNFIT else HOPELESS, bad, seconds, len(placebos))
