"""What stable's own past tells before a rollout: how its bad requests hang together, and what its rates are.

The dispersion is measured on blocks of stable alone, and then held against placebos: each stable instance plays the candidate against
the others, under the settings of the rollout to come. If one is condemned although there are fewer of them than the confidence allows
false alarms, the dispersion goes up a rung (docs/statistics.md, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from deployguard.analysis import tilts
from deployguard.analysis.arms import worse_factors
from deployguard.analysis.bets import settled
from deployguard.analysis.categories import LEAST, CategoriesRules, block_factors, marks_of, quieted, tail_spread
from deployguard.analysis.counters import added_up, plus, summed
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

    seconds, placebos, phi = sum(s for s, _ in polls), _names(blocks), measured(spread, ENOUGH)
    if phi is None:
        return CountsEvidence(learnt=Learnt(bad=0.0, seconds=seconds), strata={"": Stratum(history)})
    phi = _rung(phi, rules.alpha, lambda phi: (_counts_placebo(polls, uid, rules, phi) for uid in placebos))
    learnt = Learnt(phi, history.bad - 0.5, seconds, len(placebos))
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
    history = added_up(grown for _, by in blocks for grown in by.values())
    if sum(history) < LEAST:
        return CategoriesEvidence()
    marks, seconds, names = marks_of(history), sum(s for s, _ in blocks), _names(blocks)
    spreads = [_tail_spread(blocks, mark) for mark in marks[: len(tilts.TAILS)]]
    found = [(measured(spread, ENOUGH), max(spread.free, spread.paired_free)) for spread in spreads]
    phis = tuple(phi or 1.0 for phi, _ in found)

    def reached(rung: float) -> Iterator[float]:
        raised = tuple(max(phi, rung) for phi in phis)
        return (_categories_placebo(blocks, uid, history, marks, rules, raised) for uid in names)

    rung = _rung(1.0, rules.alpha, reached)
    learnt = tuple(
        Learnt(min(max(phi, rung), HOPELESS), bad if known is not None else 0.0, seconds, len(names))
        for phi, (known, bad) in zip(phis, found, strict=True)
    )
    return CategoriesEvidence(history=history, learnt=learnt)


def _tail_spread(blocks: Blocks, mark: int) -> Spread:
    spread = Spread()
    for _, by in blocks:
        spread = tail_spread(spread, list(by.values()), [sum(grown) for grown in by.values()], mark)
    return spread


def _categories_placebo(
    blocks: Blocks, uid: str, history: Tallies, marks: tuple[int, ...], rules: CategoriesRules, phis: tuple[float, ...]
) -> float:
    """As `_counts_placebo`, with a dispersion for each of the compared tails."""
    process = start(len(rules.weights), late_onset=rules.late_onset)
    for seconds, by in blocks:
        mine, theirs = by.get(uid, ()), added_up(grown for other, grown in by.items() if other != uid)
        if sum(mine) < 1 or sum(theirs) < 1:
            continue
        factors = quieted(block_factors(mine, theirs, history, (), marks, rules), phis, rules)
        process = play(process, factors, rules.weights, seconds)
    return process.best


def _names(blocks: Blocks) -> list[str]:
    seen = {uid: None for _, by in blocks for uid in by}
    return list(seen)[:MOST_PLACEBOS] if len(seen) > 1 else []


def _rung(phi: float, alpha: float, reached: Callable[[float], Iterable[float]]) -> float:
    """The first rung from `phi` on at which no placebo is condemned; `reached` is the log evidence of each at a dispersion."""
    condemned = math.log(1 / alpha)
    while phi <= UNFIT and any(value >= condemned for value in reached(phi)):
        phi = next_rung(phi)
    return phi if phi <= UNFIT else HOPELESS
