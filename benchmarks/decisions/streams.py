"""Simulated streams of counts: what both arms count in each poll, and what stable's instances counted in the hour before.

Requests arrive as a Poisson process; each fails with a probability that the process of the stream prescribes. All rules get the same
arrays.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PODS = 20
"""Instances of the stable version, each with a row of its own in the history."""
HOUR = 360
"""Polls of ten seconds."""
NEVER = -1
"""What a rule returns for a run that it does not roll back."""


@dataclass(frozen=True)
class Counts:
    """A batch of runs of one stream. Arrays are (runs, polls); those of the history (runs, polls, instances).

    `seen` is false where the candidate's scrape was lost: its counts are 0 there and the next delta covers the gap. `share` is the share
    that the router was told; the realised one may differ. `p0` and `p1` are what a user or a rule may know beforehand: the nominal rates
    of bad requests.
    """

    p0: float
    p1: float
    share: float
    seconds: float
    n1: Ints
    e1: Ints
    n0: Ints
    e0: Ints
    seen: Bools
    history_n: Ints
    history_e: Ints

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return int(self.n1.shape[0])

    @property
    def polls(self) -> int:
        """How many polls each run has."""
        return int(self.n1.shape[1])


@dataclass(frozen=True)
class Stream:
    """How one stream is made. Rates are requests per second of both arms together.

    `rate(rng, runs, polls)` gives the probability of a bad request of stable, (runs, polls) or (1, polls); the candidate's is `p1/p0`
    times that, at most 1. `clump` draws the bad ones of `n` requests that fail with probability `p` each. `burst` is the shape of a gamma
    factor of mean 1 on the rate, drawn for each poll and arm (`burst_of` "arm") or instance ("pod").
    """

    name: str
    p0: float
    p1: float
    share: float
    rps: float
    seconds: float = 10.0
    polls: int = HOUR
    history_polls: int = HOUR
    history_requests: float | None = None
    rate: Callable[[np.random.Generator, int, int], Floats] | None = None
    realised: Callable[[int], Floats] | None = None
    clump: Callable[[np.random.Generator, Ints, Floats], Ints] | None = None
    burst: float | None = None
    burst_of: str = "arm"
    lost: float = 0.0
    tags: dict[str, float | str] = field(default_factory=dict)

    @property
    def null(self) -> bool:
        """Whether the candidate is as good as stable."""
        return self.p1 <= self.p0


def binomial(rng: np.random.Generator, n: Ints, p: Floats) -> Ints:
    """Independent outcomes."""
    return rng.binomial(n, p)


def copies_of(size: int) -> Callable[[np.random.Generator, Ints, Floats], Ints]:
    """Every outcome comes in `size` identical copies, the rest of the requests alone."""

    def draw(rng: np.random.Generator, n: Ints, p: Floats) -> Ints:
        return size * rng.binomial(n // size, p) + rng.binomial(n % size, p)

    return draw


def geometric(mean: float) -> Callable[[np.random.Generator, Ints, Floats], Ints]:
    """Bad requests come in clumps of geometric size; as many clumps as keep the rate."""

    def draw(rng: np.random.Generator, n: Ints, p: Floats) -> Ints:
        clumps = rng.poisson(n * p / mean)
        more = rng.negative_binomial(np.maximum(clumps, 1), 1 / mean)
        return np.minimum(n, np.where(clumps > 0, clumps + more, 0))

    return draw


def blips(
    rate: float, *, low: float = 0.05, high: float = 0.10, length: int = 12, every: float = 90.0
) -> Callable[[np.random.Generator, int, int], Floats]:
    """`rate`, and now and then `low` to `high` for `length` polls; a blip begins once in `every` polls in the mean."""

    def draw(rng: np.random.Generator, runs: int, polls: int) -> Floats:
        p = np.full((runs, polls), rate)
        begins = rng.random((runs, polls)) < 1 / every
        for run, poll in np.argwhere(begins):
            p[run, poll : poll + length] = rng.uniform(low, high)
        return p

    return draw


def drift(rate: float, *, factor: float = 3.0) -> Callable[[np.random.Generator, int, int], Floats]:
    """`rate` swinging between a `factor`-th and `factor` times itself within the hour, from a random phase."""

    def draw(rng: np.random.Generator, runs: int, polls: int) -> Floats:
        phase = rng.uniform(0, 2 * np.pi, (runs, 1))
        swing: Floats = rate * factor ** np.sin(2 * np.pi * np.arange(polls)[None, :] / HOUR + phase)
        return swing

    return draw


def one_blip(rate: float, begin: int, length: int) -> Callable[[np.random.Generator, int, int], Floats]:
    """`rate`, and 5 to 10 % for `length` polls from `begin` on."""

    def draw(rng: np.random.Generator, runs: int, polls: int) -> Floats:
        p = np.full((runs, polls), rate)
        p[:, begin : begin + length] = rng.uniform(0.05, 0.10, (runs, 1))
        return p

    return draw


def ramp(low: float, high: float, begin: int, length: int) -> Callable[[int], Floats]:
    """The candidate's share: `low`, growing to `high` within `length` polls from `begin` on."""

    def draw(polls: int) -> Floats:
        return low + (high - low) * np.clip((np.arange(polls) - begin) / length, 0.0, 1.0)

    return draw


def _rates(stream: Stream, rng: np.random.Generator, runs: int, polls: int) -> Floats:
    if stream.rate is None:
        return np.full((1, polls), stream.p0)
    return stream.rate(rng, runs, polls)


def _history(stream: Stream, rng: np.random.Generator, runs: int) -> tuple[Ints, Ints]:
    polls, draw = stream.history_polls, stream.clump or binomial
    total = stream.history_requests if stream.history_requests is not None else stream.rps * stream.seconds * polls
    n = rng.poisson(total / polls / PODS, (runs, polls, PODS))
    p = np.broadcast_to(_rates(stream, rng, runs, polls)[:, :, None], n.shape)
    if stream.burst is not None:
        each = n.shape if stream.burst_of == "pod" else (runs, polls, 1)
        p = np.minimum(p * rng.gamma(stream.burst, 1 / stream.burst, each), 1.0)
    return n, draw(rng, n, p)


def make(stream: Stream, runs: int, seed: int, chunk: int) -> Counts:
    """`runs` runs of `stream`; the same name, `seed` and `chunk` give the same runs."""
    rng = np.random.default_rng([seed, zlib.crc32(stream.name.encode()), chunk])
    polls, draw = stream.polls, stream.clump or binomial
    history_n, history_e = _history(stream, rng, runs)
    share = stream.realised(polls) if stream.realised else np.full(polls, stream.share)
    requests = stream.rps * stream.seconds
    n1, n0 = rng.poisson(requests * share, (runs, polls)), rng.poisson(requests * (1 - share), (runs, polls))
    p = _rates(stream, rng, runs, polls)
    lift = stream.p1 / stream.p0
    p1, p0 = np.broadcast_to(np.minimum(p * lift, 1.0), n1.shape), np.broadcast_to(p, n0.shape)
    if stream.burst is not None:
        p1 = np.minimum(p1 * rng.gamma(stream.burst, 1 / stream.burst, n1.shape), 1.0)
        shape = stream.burst * (PODS if stream.burst_of == "pod" else 1)
        p0 = np.minimum(p0 * rng.gamma(shape, 1 / shape, n0.shape), 1.0)
    e1, e0 = draw(rng, n1, p1), draw(rng, n0, p0)
    seen = np.ones(n1.shape, dtype=bool) if stream.lost == 0 else rng.random(n1.shape) >= stream.lost
    if stream.lost > 0:
        n1, e1 = _late(n1, seen), _late(e1, seen)
    return Counts(stream.p0, stream.p1, stream.share, stream.seconds, n1, e1, n0, e0, seen, history_n, history_e)


def _late(values: Ints, seen: Bools) -> Ints:
    """What the scrapes that arrived show: each delta covers the polls since the last one that arrived."""
    total = np.cumsum(values, axis=1)
    known = np.maximum.accumulate(np.where(seen, total, 0), axis=1)
    return np.diff(known, prepend=0, axis=1)


def part(counts: Counts, runs: slice) -> Counts:
    """Some of the runs."""
    names = ("n1", "e1", "n0", "e0", "seen", "history_n", "history_e")
    return replace(counts, **{name: getattr(counts, name)[runs] for name in names})
