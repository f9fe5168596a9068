"""When evidence that grows by chance passes a bar for the first time: the laws that the planner rests on.

The logarithm of an e-process is a random walk with a drift and a spread (variance) per request. Wald's law is the first passage of
Brownian motion (Schrödinger 1915; Wald 1947); `Restarting` is that of a motion that is set back to zero whenever it falls below, as the
capital that bets on a late onset is (the quasi-limit of cumulative sums: Siegmund, Sequential Analysis, 1985, chapter III).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

EXCESS = 0.583
"""A walk in steps passes a bar by this many standard deviations of a step, on average (Siegmund 1985, section X.2)."""
_MODES = 4
_HALVINGS = 45


def normal(z: float) -> float:
    """P(a standard normal variable is at most z)."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def passed(drift: float, spread: float, bar: float, requests: float) -> float:
    """P(a walk with `drift` and `spread` per request has reached `bar` > 0 within `requests`)."""
    if requests <= 0:
        return 0.0
    if spread <= 0:
        return float(drift * requests >= bar)
    deviation = math.sqrt(spread * requests)
    straight = normal((drift * requests - bar) / deviation)
    z = -(drift * requests + bar) / deviation
    tail = normal(z)
    if tail > 0:
        power = 2 * drift * bar / spread + math.log(tail)
    else:  # beyond what erfc can hold: the leading term of the tail
        power = 2 * drift * bar / spread - z * z / 2 - math.log(-z * math.sqrt(2 * math.pi))
    return min(straight + math.exp(min(power, 0.0)), 1.0)


@dataclass(frozen=True, slots=True)
class Restarting:
    """A walk that never falls below zero, with `drift` and `spread` per request, on its way to `bar`.

    The probability that it has not arrived after n requests is a sum of exponentials in n, `modes` of (factor, rate): the solution of
    the heat equation with drift that reflects at zero and absorbs at the bar.
    """

    modes: tuple[tuple[float, float], ...]

    def passed(self, requests: float) -> float:
        """P(it has reached the bar within `requests`)."""
        left = sum(factor * math.exp(-min(rate * requests, 700.0)) for factor, rate in self.modes)
        return 1 - min(max(left, 0.0), 1.0)


def restarting(drift: float, spread: float, bar: float) -> Restarting | None:
    """The walk's law; None where it cannot be computed to use: the drift outweighs the spread, or works against it."""
    tilt = drift * bar / spread
    if not -4 <= tilt <= 20:
        return None
    first = _flat(drift, spread, bar) if tilt < -1 else _mode(0, drift, spread, bar)
    return Restarting((first, *(_mode(number, drift, spread, bar) for number in range(1, _MODES))))


def _mode(number: int, drift: float, spread: float, bar: float) -> tuple[float, float]:
    """One mode: tan(t) = -t / tilt, t between `number` and `number` + 1 half turns."""
    tilt = drift * bar / spread
    low, high = number * math.pi + 1e-9, (number + 1) * math.pi - 1e-9
    rising = tilt * math.sin(low) + low * math.cos(low) > 0
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        low, high = (t, high) if (tilt * math.sin(t) + t * math.cos(t) > 0) == rising else (low, t)
    t, k = low, drift / spread
    a = t / bar
    factor = math.exp(tilt) * a / (a * a + k * k) / (bar / 2 * (1 - math.sin(2 * t) / (2 * t)))
    return factor * math.sin(t), spread / 2 * (a * a + k * k)


def _flat(drift: float, spread: float, bar: float) -> tuple[float, float]:
    """The first mode of a walk that is driven back: tanh(t) = -t / tilt."""
    tilt = drift * bar / spread
    low, high = 1e-9, 1 - tilt
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        low, high = (t, high) if math.tanh(t) + t / tilt > 0 else (low, t)
    t, k = low, drift / spread
    a = t / bar
    factor = math.exp(tilt) * a / (k * k - a * a) / (bar / 2 * (math.sinh(2 * t) / (2 * t) - 1))
    return factor * math.sinh(t), spread / 2 * (k * k - a * a)
