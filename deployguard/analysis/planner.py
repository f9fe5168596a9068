"""How many requests it takes to see a regression, and the smallest regression that so many requests show.

A bet's log capital is a walk: every request adds a drift and a spread, the first two moments of its log factor under the regression in
question. The evidence passes 1/alpha no later than its best bet alone would, so the bar of a bet is

    ln(1/alpha) + ln(1/weight of the signal) + ln(1/weight of the bet) + ln(1/part that does not wait for a late onset) + the excess

where the excess is what a walk that is looked at once per poll lacks on average when it arrives (`passage.EXCESS`). The probability of
having passed the bar is Wald's law of the first passage, not the normal law at the end, which forgets the paths that had been there and
fell back. The part that waits for a late onset restarts all the time: where the drift is small beside the spread it arrives first.
Measured against the engine: docs/statistics.md, section 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployguard.analysis.bets import Grid, shifted
from deployguard.analysis.eprocess import LATE_SHARE, ONSET_SECONDS
from deployguard.analysis.passage import EXCESS, Restarting, passed, restarting
from deployguard.analysis.projection import boundary
from deployguard.analysis.strata import PATIENCE

POWER = 0.9
"""How certainly a regression is seen that is called visible, unless somebody asks for another power."""
_FAR = 1e13
_AGES = 3
_LONGEST = 20.0
_OFTEN, _SOME = 0.5, 2.0
"""Bad requests in a poll from which on polls are taken as blocks; later where a poll holds fewer than `_SOME` of the candidate's."""
_MANY = 40.0
"""Requests of the candidate in a block from which on its share is as good as the mean one."""
_TYPICAL = 4.0
"""A walk of spread V per request stays near its lowest point for about 4/V requests: twice the Green function of a Bessel process."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How the requests come: `rate` per second of both arms together, of which `share` the candidate's, read every `interval` seconds.

    A rate of 0 is an unknown one: then nothing is known of the blocks, and what depends on them is left out. `phi` is the dispersion,
    `cap` the most that a block may multiply the evidence by, None for no cap.
    """

    share: float
    rate: float = 0.0
    interval: float = 1.0
    phi: float = 1.0
    cap: float | None = None


@dataclass(frozen=True, slots=True)
class Bet:
    """What a bad and a good request of each arm add to the log capital of one bet, and the bet's weight."""

    weight: float
    bad1: float
    good1: float
    bad0: float = 0.0
    good0: float = 0.0


@dataclass(frozen=True, slots=True)
class Walk:
    """The log capital of one bet: drift and spread per request of both arms, the bar, and that of the part that bets on a late onset."""

    drift: float
    spread: float
    bar: float
    late: float | None = None


def worse_bets(p0: float, share: float, grid: Grid, ratio: float, margin: float) -> list[Bet]:
    """The bets against "not worse than tolerated" where stable's rate is `p0`; those inside the null are left out."""
    rates = [(shifted(p0, psi), weight) for psi, weight in zip(grid.psi, grid.weight, strict=True)]
    return [_bet(th1, p0, weight, share, ratio, margin) for th1, weight in rates if th1 > ratio * p0 + margin]


def same_bets(p0: float, share: float, ratios: Sequence[float], weights: Sequence[float], claims: float, margin: float) -> list[Bet]:
    """The bets of the promote rule, against "as much worse as claimed"."""
    rates = [(min(max(r * p0, 1e-7), 0.9995), weight) for r, weight in zip(ratios, weights, strict=True)]
    return [_bet(th1, p0, weight, share, claims, margin) for th1, weight in rates if th1 < claims * p0 + margin < 1]


def _bet(th1: float, p0: float, weight: float, share: float, ratio: float, margin: float) -> Bet:
    q1, q0 = boundary(share, th1, p0, ratio, margin)
    return Bet(weight, math.log(th1 / q1), math.log1p(-th1) - math.log1p(-q1), math.log(p0 / q0), math.log1p(-p0) - math.log1p(-q0))


def limit_bets(limit: float, grid: Grid) -> list[Bet]:
    """The bets of one arm against a fixed rate."""
    rates = [(shifted(limit, psi), weight) for psi, weight in zip(grid.psi, grid.weight, strict=True)]
    return [Bet(weight, math.log(th / limit), math.log1p(-th) - math.log1p(-limit)) for th, weight in rates]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of block: how often it comes, and what it holds. `mine` and `theirs` are requests, of which so many are bad on average.

    `loose` are those of them whose number chance draws, with this as its variance; the rest is certain, in a block that something bad
    of the candidate (`led`) or of stable ended.
    """

    often: float
    mine: float
    bad1: float
    loose1: float
    theirs: float
    bad0: float
    loose0: float
    led: bool = False


def _drawn(often: float, mine: float, p1: float, theirs: float, p0: float) -> _Kind:
    """A block of so many requests whatever is bad among them."""
    return _Kind(often, mine, mine * p1, mine * p1 * (1 - p1), theirs, theirs * p0, theirs * p0 * (1 - p0))


def walks(
    bets_at: Callable[[float], Sequence[Bet]], p1: float, p0: float, pace: Pace, bar: float, *, late_onset: bool, least: float = 0.0
) -> list[Walk]:
    """The walks of the bets when the candidate's rate is `p1` and stable's `p0`, bet by bet; `bar` is that of the evidence as a whole.

    `bets_at` gives the bets for a share. A block is bet on with the share that it really had, and where it holds a handful of the
    candidate's requests that is another one in every block; `least` seconds go into a block whatever is in it.
    """
    kinds = _kinds(pace, p1, p0, least)
    laid = [(kind, bets_at(kind.mine / (kind.mine + kind.theirs))) for kind in kinds]
    size = sum(kind.often * (kind.mine + kind.theirs) for kind in kinds) / sum(kind.often for kind in kinds)
    most = None if pace.cap is None or pace.rate <= 0 else math.log(pace.cap)
    found = []
    for number, bet in enumerate(laid[0][1]):
        mean, variance = _moments([(kind, bets[number]) for kind, bets in laid], pace.phi, most)
        drift, spread = mean / size, variance / size
        excess = max(EXCESS * math.sqrt(variance), _leap([(kind, bets[number]) for kind, bets in laid], pace.phi)) if pace.rate > 0 else 0.0
        own = bar + math.log(1 / bet.weight) + excess
        late = None
        if late_onset and pace.rate > 0 and spread > 0:
            entering = ONSET_SECONDS * pace.rate / (_TYPICAL / spread + size)
            late = own + math.log(1 / LATE_SHARE) + math.log(max(entering, 1.0)) + excess
        found.append(Walk(drift, spread, own + (math.log(1 / (1 - LATE_SHARE)) if late_onset else 0.0), late))
    return found


def _kinds(pace: Pace, p1: float, p0: float, least: float) -> list[_Kind]:
    """The blocks that the engine will make of the requests (`strata`): each ends with the poll that saw a bad one, or after a while."""
    rate1, rate0 = pace.rate * pace.share, pace.rate * (1 - pace.share)
    bad = rate1 * p1 + rate0 * p0
    seconds = max(pace.interval, least)
    if pace.rate <= 0 or rate0 <= 0:
        size = pace.rate * seconds or 1.0
        return [_drawn(1.0, pace.share * size, p1, (1 - pace.share) * size, p0)]
    busy = _OFTEN if rate1 * pace.interval >= _SOME else 6 * _OFTEN
    if least >= PATIENCE or pace.interval * bad > busy:
        return [_drawn(o, n1, p1, n0, p0) for o, n1, n0 in _held(rate1 * seconds, rate0 * seconds)]
    quiet, guilty = math.exp(-PATIENCE * bad), rate1 * p1 / bad
    poll1, poll0 = rate1 * pace.interval, rate0 * pace.interval
    more = pace.interval * bad / -math.expm1(-pace.interval * bad) - 1  # bad requests in a bad poll beside the first
    more1, more0 = more * guilty, more * (1 - guilty)
    kinds = [_Kind(quiet * o, n1, 0.0, 0.0, n0, 0.0, 0.0) for o, n1, n0 in _held(rate1 * PATIENCE, rate0 * PATIENCE)]
    for number in range(_AGES):
        # How old the pile is when something bad comes: an exponential time in whole polls, cut off where a quiet pile is closed. What is
        # in it by then is a block of its own, unless nothing of the candidate is.
        age = -math.log1p(-(number + 0.5) / _AGES * (1 - quiet)) / bad // pace.interval * pace.interval
        often, empty = (1 - quiet) / _AGES, math.exp(-rate1 * age)
        if empty < 1:
            kinds.append(_Kind(often * (1 - empty), max(rate1 * age / (1 - empty), 1.0), 0.0, 0.0, max(rate0 * age, 1.0), 0.0, 0.0))
        for before, waited in ((1 - empty, 0.0), (empty, age)):
            several = _held(poll1, poll0 + rate0 * waited, least=0)
            kinds += [
                _Kind(often * before * guilty * o, n1 + 1, 1 + more1, more1, n0 + more0, more0, more0, led=True) for o, n1, n0 in several
            ]
        innocent = _held(poll1, poll0)
        kinds += [_Kind(often * (1 - guilty) * o, n1, more1, more1, n0 + 1, 1 + more0, more0) for o, n1, n0 in innocent]
    return [kind for kind in kinds if kind.often > 1e-9]


def _held(mine: float, theirs: float, least: int = 1) -> list[tuple[float, float, float]]:
    """How many requests a block holds of each arm, when so many are expected: probability, the candidate's, stable's.

    At least `least` of the candidate's, or the pile goes on. Stable's, of which there are mostly more, are taken as they are expected.
    """
    if mine > _MANY:
        return [(1.0, mine, theirs)]
    if mine > 6:
        swing = math.sqrt(3 * mine)
        return [(1 / 6, mine - swing, theirs), (2 / 3, mine, theirs), (1 / 6, mine + swing, theirs)]
    last = math.ceil(mine + 4 * math.sqrt(mine) + 2)
    raw = [(k, math.exp(k * math.log(mine) - mine - math.lgamma(k + 1))) for k in range(least, last + 1)]
    whole = sum(chance for _, chance in raw)
    if least:  # the pile goes on until there is one
        theirs *= min(1 / -math.expm1(-mine), _LONGEST)
    theirs = max(theirs, 1.0)
    return [(chance / whole, float(k), theirs) for k, chance in raw]


def _moments(laid: Sequence[tuple[_Kind, Bet]], phi: float, most: float | None) -> tuple[float, float]:
    """Mean and variance of what a block adds to the log capital of a bet, when it can add no more than `most`."""
    first = second = 0.0
    for kind, bet in laid:
        step1, step0 = (bet.bad1 - bet.good1) / phi, (bet.bad0 - bet.good0) / phi
        mean = kind.bad1 * step1 + kind.mine * bet.good1 / phi + kind.bad0 * step0 + kind.theirs * bet.good0 / phi
        inner = kind.loose1 * step1 * step1 + kind.loose0 * step0 * step0
        if most is not None:
            mean, inner = _capped(mean, inner, kind.loose1, step1, most) if inner else (min(mean, most), 0.0)
        first += kind.often * mean
        second += kind.often * (mean * mean + inner)
    whole = sum(kind.often for kind, _ in laid)
    first, second = first / whole, second / whole
    return first, phi * max(second - first * first, 0.0)


def _leap(laid: Sequence[tuple[_Kind, Bet]], phi: float) -> float:
    """What a walk overshoots that arrives by single leaps: a third of what one bad request of the candidate adds (measured)."""
    leaps = [(kind.often, (bet.bad1 - bet.good1) / phi) for kind, bet in laid if kind.led]
    return sum(often * leap for often, leap in leaps) / sum(often for often, _ in leaps) / 3 if leaps else 0.0


def _capped(mean: float, variance: float, expected: float, step: float, most: float) -> tuple[float, float]:
    """Mean and variance of a block's gain when it can be no more than `most`.

    `expected` bad requests of the candidate come by chance and add `step` each. Few of them are counted out, many taken as normal.
    """
    if step <= 0 or mean + 5 * math.sqrt(variance) + step < most:
        return mean, variance
    if expected > 25:
        deviation = math.sqrt(variance)
        gains = [(mean + z * deviation, math.exp(-z * z / 2)) for z in (x / 8 for x in range(-40, 41))]
    else:
        base = mean - expected * step
        last = math.ceil(expected + 6 * math.sqrt(expected) + 6)
        gains = [(base + k * step, math.exp(k * math.log(expected) - expected - math.lgamma(k + 1))) for k in range(last + 1)]
    whole = sum(chance for _, chance in gains)
    first = sum(chance * min(gain, most) for gain, chance in gains) / whole
    second = sum(chance * (min(gain, most) - first) ** 2 for gain, chance in gains) / whole
    return first, second


def chance(found: Sequence[Walk], requests: float) -> float:
    """P(the evidence passes within so many requests of both arms): that of the best bet, whether or not it waits for a late onset."""
    whole = max((passed(walk.drift, walk.spread, walk.bar, requests) for walk in found), default=0.0)
    return max([whole, *(law.passed(requests) for walk in found if (law := _late(walk, requests)) is not None)])


def sees(found: Sequence[Walk], requests: float, power: float) -> bool:
    """Whether the evidence passes within so many requests with probability `power`."""
    if any(passed(walk.drift, walk.spread, walk.bar, requests) >= power for walk in found):
        return True
    laws = (_late(walk, requests) for walk in found)
    return any(law.passed(requests) >= power for law in laws if law is not None)


def _late(walk: Walk, requests: float) -> Restarting | None:
    """The law of the part that waits for a late onset, where the spread is large enough for it to matter."""
    if walk.late is None or walk.spread * requests < 0.3 * walk.late * walk.late:
        return None
    return restarting(walk.drift, walk.spread, walk.late)


def needed(found: Sequence[Walk], power: float = POWER) -> float:
    """Requests of both arms after which the evidence has passed with probability `power`; infinity when no bet gains."""
    return min((_requests(walk, power) for walk in found if walk.drift > 0), default=math.inf)


def normal_requests(drift: float, spread: float, bar: float, z: float = 1.281552) -> float:
    """Requests after which a walk is above its bar with the probability of the normal quantile `z`: Wald's approximation."""
    return ((z * math.sqrt(spread) + math.sqrt(z * z * spread + 4 * drift * bar)) / (2 * drift)) ** 2


def _requests(walk: Walk, power: float) -> float:
    high = max(normal_requests(walk.drift, walk.spread, walk.bar), 1e-6)
    while high < _FAR and passed(walk.drift, walk.spread, walk.bar, high) < power:
        high *= 2
    if high >= _FAR:
        return math.inf
    return _lowest(lambda n: passed(walk.drift, walk.spread, walk.bar, n) >= power, high / 1e3, high)


def smallest(seen: Callable[[float], bool], least: float, most: float) -> float | None:
    """The smallest value between `least` and `most` that is `seen`, to a thousandth; None when even `most` is not."""
    if not seen(most):
        return None
    return least if seen(least) else _lowest(seen, least, most, halvings=16)


def _lowest(holds: Callable[[float], bool], low: float, high: float, halvings: int = 24) -> float:
    """Where `holds` becomes true, between a value for which it does not and one for which it does; halved on the logarithm."""
    for _ in range(halvings):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
