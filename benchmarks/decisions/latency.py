"""Simulated streams of latency: buckets of both arms in each poll, and of stable's instances before."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.decisions.floors import Part, shares
from benchmarks.decisions.streams import Floats, Ints

CLIENT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds: what Prometheus' Python client counts by when nothing else is asked for."""
FINE_BOUNDS = tuple(float(b) for b in np.geomspace(0.005, 10.0, 63))
"""64 buckets, evenly spaced in the logarithm."""
_MEDIAN, _SIGMA, _TAIL, _SLOWER = 0.1, 0.5, 0.01, 5.0
STABLE_PARTS: tuple[Part, ...] = ((1 - _TAIL, _MEDIAN, _SIGMA), (_TAIL, _SLOWER * _MEDIAN, _SIGMA))
"""Lognormal around 100 ms, one request in a hundred five times slower."""


def scaled(parts: tuple[Part, ...], factor: float) -> tuple[Part, ...]:
    """All requests slower by `factor`."""
    return tuple((a, m * factor, s) for a, m, s in parts)


def thinned(parts: tuple[Part, ...], share: float, factor: float) -> tuple[Part, ...]:
    """A `share` of all requests slower by `factor`, whichever they are."""
    return (*((a * (1 - share), m, s) for a, m, s in parts), *((a * share, m * factor, s) for a, m, s in parts))


LIFTS: dict[str, tuple[Part, ...]] = {
    "all x1.05": scaled(STABLE_PARTS, 1.05),
    "all x1.2": scaled(STABLE_PARTS, 1.2),
    "all x2": scaled(STABLE_PARTS, 2.0),
    "tail doubled": ((1 - 2 * _TAIL, _MEDIAN, _SIGMA), (2 * _TAIL, _SLOWER * _MEDIAN, _SIGMA)),
    "5% of requests x5": thinned(STABLE_PARTS, 0.05, _SLOWER),
}
"""The candidate's latency by the name of what is wrong with it. Doubling the slow hundredth moves the 99th percentile alone."""


@dataclass(frozen=True)
class Histograms:
    """A batch of runs: `h1`, `h0` (runs, polls, buckets), `history` (runs, polls, instances, buckets). Buckets do not overlap."""

    bounds: tuple[float, ...]
    share: float
    seconds: float
    h1: Ints
    h0: Ints
    history: Ints

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return int(self.h1.shape[0])

    @property
    def polls(self) -> int:
        """How many polls each run has."""
        return int(self.h1.shape[1])

    def quantile(self, counts: Ints, q: float, every: int) -> Floats:
        """The quantile of every so many polls, linear inside its bucket as Prometheus has it; NaN without requests. (runs, columns)."""
        runs, polls, buckets = counts.shape
        columns = polls // every
        summed = counts[:, : columns * every].reshape(runs, columns, every, buckets).sum(axis=2)
        below = np.cumsum(summed, axis=2)
        total = below[:, :, -1:]
        at = np.minimum((below < q * total).sum(axis=2), buckets - 1)
        pick = np.take_along_axis
        before = pick(np.concatenate([np.zeros_like(total), below], axis=2), at[:, :, None], 2)[:, :, 0]
        inside = pick(summed, at[:, :, None], 2)[:, :, 0]
        edges = np.concatenate([[0.0], self.bounds, [self.bounds[-1]]])
        low, high = edges[at], edges[at + 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            value = low + (high - low) * (q * total[:, :, 0] - before) / inside
        return np.where(total[:, :, 0] > 0, np.where(at == buckets - 1, self.bounds[-1], value), np.nan)


@dataclass(frozen=True)
class LatencyStream:
    """How one stream is made: both arms' latency, requests a poll of both arms together, and what `slowdown` does to both over time."""

    name: str
    parts1: tuple[Part, ...]
    parts0: tuple[Part, ...]
    share: float
    requests: float
    polls: int
    bounds: tuple[float, ...] = CLIENT_BOUNDS
    seconds: float = 10.0
    history_requests: float = 20_000.0
    history_polls: int = 40
    history_pods: int = 5
    slowdown: Callable[[int], Floats] | None = None

    @property
    def null(self) -> bool:
        """Whether the candidate is as fast as stable."""
        return self.parts1 == self.parts0


def doubling(every: int) -> Callable[[int], Floats]:
    """Both arms twice as slow in every second stretch of `every` polls."""

    def draw(polls: int) -> Floats:
        return np.where(np.arange(polls) // every % 2 == 1, 2.0, 1.0)

    return draw


def make(stream: LatencyStream, runs: int, seed: int, chunk: int) -> Histograms:
    """`runs` runs of `stream`; the same name, `seed` and `chunk` give the same runs."""
    rng = np.random.default_rng([seed, zlib.crc32(stream.name.encode()), chunk])
    slow = stream.slowdown(stream.polls) if stream.slowdown else np.ones(stream.polls)
    p1 = np.stack([shares(scaled(stream.parts1, float(f)), stream.bounds) for f in slow])
    p0 = np.stack([shares(scaled(stream.parts0, float(f)), stream.bounds) for f in slow])
    each = stream.history_requests / stream.history_polls / stream.history_pods
    history = rng.poisson(
        each * shares(stream.parts0, stream.bounds), (runs, stream.history_polls, stream.history_pods, len(stream.bounds) + 1)
    )
    h1 = rng.poisson(stream.requests * stream.share * p1, (runs, *p1.shape))
    h0 = rng.poisson(stream.requests * (1 - stream.share) * p0, (runs, *p0.shape))
    return Histograms(stream.bounds, stream.share, stream.seconds, h1, h0, history)


def part(batch: Histograms, runs: slice) -> Histograms:
    """Some of the runs."""
    return replace(batch, h1=batch.h1[runs], h0=batch.h0[runs], history=batch.history[runs])
