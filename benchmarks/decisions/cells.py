"""Which streams are played, and which rules on each of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.decisions import floors, latency, streams
from benchmarks.decisions.engine import BARE, NO_TOLERANCE, SHIPPED, Deployguard, Settings, bets_of
from benchmarks.decisions.latency import CLIENT_BOUNDS, FINE_BOUNDS, LIFTS, STABLE_PARTS, LatencyStream
from benchmarks.decisions.peers import Rule
from benchmarks.decisions.peers.dkw import Bands
from benchmarks.decisions.peers.kayenta import Kayenta
from benchmarks.decisions.peers.sequential import LindonMalek, MixtureSPRT, NaiveZ, Oracle
from benchmarks.decisions.peers.tools import Argo, Flagger
from benchmarks.decisions.reference import ReferenceGRO
from benchmarks.decisions.streams import Stream
from deployguard.analysis.eprocess import LATE_SHARE

ALPHA = 0.01
SHARES = (0.01, 0.05, 0.5)
RATES = (0.1, 1.0, 10.0, 1000.0)
LIFTED = ((0.001, 0.002), (0.001, 0.01), (0.01, 0.02), (0.01, 0.1), (0.001, 1.0))
FAMILIES = ("grid", "stress", "requests", "hour", "latency", "latency-null", "real")
"""A/A grid, A/A under stress, detection in requests, detection in seconds, latency shifts, latency A/A, real data."""


@dataclass(frozen=True)
class Played:
    """A rule and how many runs it plays. `null` is the tolerance that its floor is computed for; `alpha` None: it has none."""

    rule: Rule
    runs: int
    alpha: float | None = ALPHA
    null: Any = None


@dataclass(frozen=True)
class Cell:
    """A stream and the rules that play it."""

    family: str
    stream: Stream | LatencyStream
    played: Sequence[Played]

    @property
    def runs(self) -> int:
        """The most runs that any rule plays."""
        return max(played.runs for played in self.played)


def _ours(settings: Settings, runs: int) -> Played:
    return Played(Deployguard(settings), runs, null={"ratio": settings.ratio, "margin": settings.margin, "floor": settings.floor})


def _reference(late: float, runs: int) -> Played:
    return Played(ReferenceGRO(*bets_of(BARE), late_share=late), runs)


def _tools(runs: int, kayenta: int, *, strict: bool) -> list[Played]:
    found = [Argo(0), Argo(3), Argo(3, guarded=True), Flagger(5)]
    judges = [Kayenta(), *([Kayenta(strict=True)] if strict else [])]
    return [*(Played(rule, runs, None) for rule in found), *(Played(rule, kayenta, None) for rule in judges)]


def _literature(runs: int, *, knows: bool = False) -> list[Played]:
    return [Played(rule, runs) for rule in (MixtureSPRT(knows=knows), LindonMalek(), Bands(), NaiveZ())]


def null_rules(quick: bool, ours: int) -> list[Played]:
    """All rules on a stream without a regression: how often do they roll back a good version within the hour?"""
    some, many, kayenta = (20, 300, 40) if quick else (100, 3000, 400)
    variants = [_ours(SHIPPED, ours), _ours(NO_TOLERANCE, some), _ours(BARE, some), _reference(LATE_SHARE, many)]
    return [*variants, *_tools(many, kayenta, strict=True), *_literature(many)]


def grid(quick: bool) -> Iterator[Cell]:
    """A/A: 24 cells of traffic, share and rate."""
    for rps, share, p0 in itertools.product(RATES, SHARES, (0.001, 0.01)):
        if quick and (share == 0.01 or rps in (0.1, 10.0)):
            continue
        rules = null_rules(quick, 60 if quick else 3000)
        yield Cell("grid", Stream(f"A/A p0={p0:.1%} w={share:.0%} rps={rps:g}", p0, p0, share, rps), rules)


def stress(quick: bool) -> Iterator[Cell]:
    """A/A under what happens in practice: w 5 %, 50 requests a second, 0.3 % of them bad."""
    p = 0.003
    special: dict[str, dict[str, Any]] = {
        "independent": {},
        "shared blips 5-10 %": {"rate": streams.blips(p)},
        "baseline drift": {"rate": streams.drift(p)},
        "realised share 6.2 %": {"realised": streams.ramp(0.062, 0.062, 0, 1)},
        "ramp 4 to 15 % in a shared blip": {"realised": streams.ramp(0.04, 0.15, 120, 24), "rate": streams.one_blip(p, 120, 24)},
        "30 % of the candidate's scrapes lost": {"lost": 0.3},
        "arm bursts, gamma 1": {"burst": 1.0},
        "arm bursts, gamma 0.3": {"burst": 0.3},
        "instance bursts, gamma 1": {"burst": 1.0, "burst_of": "pod"},
        "instance bursts, gamma 0.3": {"burst": 0.3, "burst_of": "pod"},
        "errors in clumps of 5": {"clump": streams.copies_of(5)},
        "geometric clumps, mean 4": {"clump": streams.geometric(4.0)},
    }
    for name, how in special.items():
        yield Cell("stress", Stream(f"stress: {name}", p, p, 0.05, 50.0, **how), null_rules(quick, 60 if quick else 1000))


def in_requests(quick: bool) -> Iterator[Cell]:
    """Detection counted in requests: a poll holds a fiftieth of the floor's requests, at least ten, so that looking costs nothing."""
    runs = 40 if quick else 400
    for share, (p0, p1) in itertools.product(SHARES, LIFTED):
        floor = floors.requests(p1, p0, share, ALPHA)
        each = max(floor / 50, 10.0)
        name = f"lift p0={p0:.1%} p1={p1:.1%} w={share:.0%}, in requests"
        stream = Stream(name, p0, p1, share, each / 10, polls=max(int(15 * floor / each), 80), history_requests=20_000.0, history_polls=100)
        ours = [_ours(settings, runs) for settings in (SHIPPED, NO_TOLERANCE, BARE)]
        checks = [_reference(LATE_SHARE, runs), _reference(0.0, runs), Played(Oracle(), runs)]
        yield Cell("requests", stream, [*ours, *checks, *_literature(runs, knows=True)[:3]])


def in_an_hour(quick: bool) -> Iterator[Cell]:
    """Detection in seconds, by polls of ten."""
    runs = 20 if quick else 200
    for rps, share, (p0, p1) in itertools.product(RATES, SHARES, LIFTED):
        if quick and (share != 0.05 or rps in (0.1, 1.0)):
            continue
        stream = Stream(f"lift p0={p0:.1%} p1={p1:.1%} w={share:.0%} rps={rps:g}", p0, p1, share, rps)
        ours = [_ours(settings, runs) for settings in (SHIPPED, NO_TOLERANCE)]
        rules = [*ours, *_tools(runs, runs, strict=False), *_literature(runs)[:2], Played(Oracle(), runs)]
        yield Cell("hour", stream, rules)


def _latency_rules(runs: int) -> list[Played]:
    ours = [Played(Deployguard(settings), runs, null=settings) for settings in (SHIPPED, NO_TOLERANCE, BARE)]
    return [*ours, Played(Bands(), runs), Played(Kayenta(), min(runs, 200), None)]


def slower(quick: bool) -> Iterator[Cell]:
    """Latency shifts, counted in requests, on few buckets and on many."""
    runs = 15 if quick else 200
    for (bounds, many), share, (name, parts) in itertools.product(((CLIENT_BOUNDS, 14), (FINE_BOUNDS, 64)), (0.05, 0.5), LIFTS.items()):
        if quick and (many == 64 or share == 0.5):
            continue
        floor = floors.latency_requests(parts, STABLE_PARTS, share, ALPHA)
        each = max(floor / 50, 10.0)
        polls = max(int(12 * floor / each), 80)
        stream = LatencyStream(
            f"latency {name} w={share:.0%}, {many} buckets, in requests", parts, STABLE_PARTS, share, each, polls, bounds
        )
        yield Cell("latency", stream, _latency_rules(runs))


def as_fast(quick: bool) -> Iterator[Cell]:
    """A/A on latency, with a baseline that stays and one that doubles every 30 polls."""
    runs = 10 if quick else 300
    for share, requests, doubles in itertools.product((0.05, 0.5), (100.0, 2000.0), (False, True)):
        if quick and share == 0.5:
            continue
        name = f"latency A/A w={share:.0%}, {requests:g} requests a poll" + (", doubling every 30 polls" if doubles else "")
        stream = LatencyStream(
            name, STABLE_PARTS, STABLE_PARTS, share, requests, streams.HOUR, slowdown=latency.doubling(30) if doubles else None
        )
        yield Cell("latency-null", stream, _latency_rules(runs))


def floor_of(cell: Cell, played: Played) -> float | None:
    """The floor of the rule's own null on the cell's stream; for latency that of the whole distributions, whatever the tolerance."""
    stream = cell.stream
    if stream.null:
        return None
    if isinstance(stream, LatencyStream):
        return floors.latency_requests(stream.parts1, stream.parts0, stream.share, ALPHA)
    found = floors.requests(min(stream.p1, 1.0), stream.p0, stream.share, ALPHA, **(played.null or {}))
    return found if math.isfinite(found) else None


def scaled(cell: Cell, scale: float) -> Cell:
    """The cell with `scale` times as many runs of each rule, ten at least."""
    return replace(cell, played=[replace(played, runs=max(round(played.runs * scale), 10)) for played in cell.played])


MAKERS = {"stress": stress, "requests": in_requests, "latency": slower, "grid": grid, "hour": in_an_hour, "latency-null": as_fast}
"""In the order in which they are played: what tells most comes first, so that an interrupted benchmark has it."""
