"""How many errors come in one clump: retries and repeat visitors make bad requests depend on one another.

A process of evidence that takes them for independent condemns the innocent, so its factors are raised to the power 1/phi. phi is
measured on stable alone, between comparable units inside the same interval (docs/statistics.md, section 4):

    p_b = sum e_bi / n_b,   phi = sum (e_bi - n_bi p_b)^2 / sum_b [p_b (1-p_b) n_b/(n_b-1) sum n_bi (1 - n_bi/n_b)]

Units are the instances inside a poll, which shared drift cannot deceive, or the two polls of a pair. Only past polls are used, so
tempering by it stays valid for independent outcomes (Jensen).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from deployguard.model.evidence import Learnt, Spread
from deployguard.model.reading import Counter

ENOUGH = 30.0
"""Degrees of freedom from which on a measurement before the rollout counts as one, and bad requests that it needs."""
RUNNING = 60.0
"""Degrees of freedom from which on what is seen during the rollout is believed too."""
_ERRORS, _RUNNING_ERRORS = 2.0, 3.0
"""Standard errors above one that chance is granted: before the rollout, and during it, where every poll looks again."""
PAIRED_MOST = 2.0
"""The most that neighbouring polls may add to what instances show."""
UNFIT = 12.0
"""Errors in larger clumps are unfit for counting."""


def spread_after(spread: Spread, parts: Sequence[Counter], whole: Counter) -> Spread:
    """The sums after one more poll of stable: `parts` by instance, `whole` their sum. A poll without bad requests adds nothing."""
    num, den, free = spread.num, spread.den, spread.free
    if whole.bad > 0 and len(parts) > 1:
        more = _sums(parts, whole)
        num, den, free = num + more[0], den + more[1], free + min(whole.bad, len(parts) - 1)
    pnum, pden, pfree = spread.paired_num, spread.paired_den, spread.paired_free
    if spread.total < 0:
        return Spread(num, den, free, pnum, pden, pfree, whole.total, whole.bad)
    pair = Counter(spread.missed + whole.bad, spread.total + whole.total)
    if pair.bad > 0:
        more = _sums((Counter(spread.missed, spread.total), whole), pair)
        pnum, pden, pfree = pnum + more[0], pden + more[1], pfree + min(pair.bad, 1)
    return Spread(num, den, free, pnum, pden, pfree)


def _sums(parts: Sequence[Counter], whole: Counter) -> tuple[float, float]:
    n, p = whole.total, whole.bad / whole.total
    if n <= 1 or p >= 1:
        return 0.0, 0.0
    num = inner = 0.0
    for part in parts:
        num += (part.bad - part.total * p) ** 2
        inner += part.total * (1 - part.total / n)
    return num, p * (1 - p) * n / (n - 1) * inner


def phi_of(num: float, den: float, free: float, least: float, errors: float) -> float | None:
    """The dispersion on so many degrees of freedom; None when they are fewer than `least`.

    One that independence could have produced by chance (within so many standard errors) is 1: noise must not cost time.
    """
    if free < least or den <= 0:
        return None
    phi = num / den
    return phi if phi > 1 + errors * math.sqrt(2 / free) else 1.0


def measured(spread: Spread, least: float) -> float | None:
    """The dispersion on the hour before a rollout; None when it is not known.

    Between instances, or between neighbouring polls if that is larger: bursts of a whole arm show there alone. But so do blips that
    all share, and the more the more traffic there is; beside instances, pairs count for `PAIRED_MOST` at most.
    """
    between, paired = _between(spread, least, _ERRORS), _paired(spread, least, _ERRORS)
    if between is None:
        return paired
    return between if paired is None else max(between, min(paired, PAIRED_MOST))


def running(spread: Spread) -> float | None:
    """The dispersion as seen during a rollout: between instances, for a lone one between neighbouring polls; None when not known."""
    between = _between(spread, RUNNING, _RUNNING_ERRORS)
    return between if between is not None else _paired(spread, RUNNING, _RUNNING_ERRORS)


def _between(spread: Spread, least: float, errors: float) -> float | None:
    return phi_of(spread.num, spread.den, spread.free, least, errors)


def _paired(spread: Spread, least: float, errors: float) -> float | None:
    """Between polls; never unfit, because what all arms share over time looks like clumps here."""
    phi = phi_of(spread.paired_num, spread.paired_den, spread.paired_free, least, errors)
    return None if phi is None else min(phi, UNFIT)


def in_use(learnt: Learnt, spread: Spread, stated: float | None) -> tuple[float, bool]:
    """The dispersion to temper by, and whether it is known: stated by the policy, measured before the rollout or during it."""
    if stated is not None:
        return stated, True
    now = running(spread)
    return max(learnt.phi, now or 1.0), learnt.bad >= ENOUGH or now is not None


LADDER = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)


def next_rung(phi: float) -> float:
    """The next dispersion to try when a placebo was condemned; infinity beyond the last."""
    return next((rung for rung in LADDER if rung > phi), math.inf)
