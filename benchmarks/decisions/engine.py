"""deployguard's own analysis as a rule: every poll is folded into evidence by the code that guards rollouts, and judged by its evidence.

Before the exposure stable's instances are counted for an hour; from that come the history for the bets and the dispersion of the errors.
Then both arms are read at every poll, each as one counter of the whole arm.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from benchmarks.decisions.before import counts_before, latency_before
from benchmarks.decisions.latency import Histograms
from benchmarks.decisions.streams import NEVER, Counts, Ints
from deployguard.analysis import categories, counts
from deployguard.engine.rules import rules_of
from deployguard.model.evidence import CountsEvidence
from deployguard.model.policy import Policy
from deployguard.model.reading import Answer, Buckets, Counter, Counters, Missing
from deployguard.model.target import CANDIDATE, STABLE

_BEGAN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_BOTH = (CANDIDATE, STABLE)
_LOST: Answer = Missing("timeout")


@dataclass(frozen=True)
class Settings:
    """A variant of the check: its tolerance and its protections. `dispersion` None: measured; `alone`: all of alpha, not nine tenths."""

    name: str
    ratio: float = 1.25
    margin: float = 0.0002
    floor: float = 0.001
    late_onset: bool = True
    capped: bool = True
    alone: bool = False
    claims: float = 2.0
    dispersion: float | None = None
    alpha: float = 0.01

    def policy(self, kind: str) -> Policy:
        """The policy that a user would write for it; `kind` is "counts" or "latency"."""
        worse: dict[str, Any] = {"ratio": self.ratio, "margin": self.margin}
        check: dict[str, Any] = {"name": "it", "source": "balancer", "claims": self.claims, "worse_than_stable": worse}
        if self.dispersion is not None:
            check["dispersion"] = self.dispersion
        if kind == "latency":
            check |= {"source": "scrape", "histogram": "seconds"}
        else:
            worse["floor"] = self.floor
        protect = {"late_onset": self.late_onset, **({} if self.capped else {"block_cap": None})}
        stages = [{"exposure": "50%", "soak": "60s"}, {"exposure": "100%", "soak": "60s"}]
        return Policy.model_validate(
            {"stages": stages, "interval": "10s", "warmup": "0s", "lease": "30s", "checks": [check], "protect": protect}
        )

    def least(self, weight: float) -> float:
        """log E from which on the candidate is rolled back."""
        return -math.log(self.alpha * (1.0 if self.alone else weight))


SHIPPED = Settings("deployguard")
NO_TOLERANCE = Settings("deployguard, ratio 1", ratio=1.0, margin=0.0, floor=0.0, alone=True)
BARE = Settings("deployguard, ratio 1, bare", ratio=1.0, margin=0.0, floor=0.0, late_onset=False, capped=False, alone=True)
VARIANTS = (SHIPPED, NO_TOLERANCE, BARE)


def digest() -> str:
    """Twelve hexadecimal digits that change with the settings of any variant."""
    written = [msgspec.json.encode(settings.policy("counts").model_dump(mode="json", by_alias=True)) for settings in VARIANTS]
    return hashlib.sha256(json.dumps([text.decode() for text in written]).encode()).hexdigest()[:12]


class Deployguard:
    """One variant on counts and on latency."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.name = settings, settings.name

    def decide(self, batch: Counts) -> Ints:
        """For each run the poll at which the evidence condemns the candidate, or NEVER."""
        policy = self.settings.policy("counts")
        rules = rules_of(policy, policy.checks[0])  # type: ignore[arg-type]
        begin = counts_before(batch.history_n, batch.history_e, batch.seconds, rules)
        return np.array([self._run(batch, run, rules, begin[run]) for run in range(batch.runs)])

    def _run(self, batch: Counts, run: int, rules: Any, evidence: CountsEvidence) -> int:
        least, step = self.settings.least(rules.weight), dt.timedelta(seconds=batch.seconds)
        bad, total = float(batch.history_e[run].sum()), float(batch.history_n[run].sum())
        evidence = counts.fold(evidence, {STABLE: _counters(_BEGAN, "s", bad, total)}, (STABLE,), rules, _BEGAN, _BEGAN)
        n1, e1 = np.cumsum(batch.n1[run]).tolist(), np.cumsum(batch.e1[run]).tolist()
        n0, e0 = np.cumsum(batch.n0[run]).tolist(), np.cumsum(batch.e0[run]).tolist()
        seen, now = batch.seen[run].tolist(), _BEGAN
        for poll in range(batch.polls):
            now += step
            mine = _counters(now, "c", e1[poll], n1[poll]) if seen[poll] else _LOST
            answers = {CANDIDATE: mine, STABLE: _counters(now, "s", bad + e0[poll], total + n0[poll])}
            evidence = counts.fold(evidence, answers, _BOTH, rules, _BEGAN, now)
            best = evidence.worse.best if evidence.worse else 0.0  # never below the evidence now: ask for that when it may matter
            if best >= least - 1e-9 and counts.worse_evidence(evidence, rules) >= least:
                return poll
        return NEVER

    def decide_latency(self, batch: Histograms) -> Ints:
        """As `decide`, on the buckets of a histogram."""
        policy = self.settings.policy("latency")
        rules = rules_of(policy, policy.checks[0])  # type: ignore[arg-type]
        return np.array([self._latency(batch, run, rules) for run in range(batch.runs)])

    def _latency(self, batch: Histograms, run: int, rules: Any) -> int:
        least, step = self.settings.least(rules.weight), dt.timedelta(seconds=batch.seconds)
        before = batch.history[run].sum(axis=(0, 1))
        evidence = latency_before(batch, run, rules)
        first = Buckets(_BEGAN, batch.bounds, {"s": tuple(before.tolist())}, {"s": _BEGAN - dt.timedelta(hours=2)})
        evidence = categories.fold(evidence, {STABLE: first}, (STABLE,), rules, _BEGAN, _BEGAN)
        h1, h0 = np.cumsum(batch.h1[run], axis=0).tolist(), (before + np.cumsum(batch.h0[run], axis=0)).tolist()
        now, born = _BEGAN, {"c": _BEGAN, "s": _BEGAN - dt.timedelta(hours=2)}
        for poll in range(batch.polls):
            now += step
            answers: dict[str, Answer] = {
                CANDIDATE: Buckets(now, batch.bounds, {"c": tuple(h1[poll])}, {"c": born["c"]}),
                STABLE: Buckets(now, batch.bounds, {"s": tuple(h0[poll])}, {"s": born["s"]}),
            }
            evidence = categories.fold(evidence, answers, _BOTH, rules, _BEGAN, now)
            best = evidence.worse.best if evidence.worse else 0.0
            if best >= least - 1e-9 and categories.worse_evidence(evidence, rules) >= least:
                return poll
        return NEVER


def _counters(at: dt.datetime, uid: str, bad: float, total: float) -> Counters:
    return Counters(at, {uid: Counter(bad, total)}, {uid: _BEGAN} if uid == "c" else {})


def bets_of(settings: Settings) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Odds ratios and weights of the bets of a variant on counts."""
    policy = settings.policy("counts")
    grid = rules_of(policy, policy.checks[0]).grid  # type: ignore[arg-type,union-attr]
    return grid.psi, grid.weight  # type: ignore[union-attr]
