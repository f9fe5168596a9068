"""Does the planner keep its word? Rollouts at exactly the regression that `plan` says is seen with 90 % power, through the engine's folds.

For every cell the planner is asked for the smallest regression that a soak shows. That regression is then rolled out many times, every
request drawn anew, and read poll by poll by `counts.fold` or `categories.fold` with the rules of a shipped policy. The row is the share
of rollouts that were condemned within the soak, with its interval of 95 % (Clopper, Pearson 1934). `promote` rows: how many candidates
that are as good as stable were proven to be so within the requests that the planner asks for.

`python -m benchmarks power`; in full about ten minutes on one core.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from benchmarks.rows import Result, Row
from deployguard.analysis import categories, counts, sights
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.planner import POWER, Pace
from deployguard.analysis.sights import PROVEN
from deployguard.engine.rules import rules_of
from deployguard.files.shipped import shipped_policy
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence
from deployguard.model.policy import Policy
from deployguard.model.reading import Answer, Buckets, Counter, Counters
from deployguard.model.target import CANDIDATE, STABLE

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BOTH = (STABLE, CANDIDATE)
BASELINES = (0.001, 0.005, 0.01, 0.05)
SHARES = (0.05, 0.25, 0.5)
TRAFFIC = (10.0, 100.0, 1000.0)
SOAK = 300.0
PODS = 4
"""Instances of the stable arm."""
HISTORY = 20_000
"""Requests that stable had served before the rollout."""
LAYERS = (0.525, 0.38, 0.045, 0.031, 0.009, 0.0062, 0.0038)
"""Stable's requests by bucket: the tails beyond the edges are a little smaller than the marks aim at."""
EDGES = (0.1, 0.25, 0.4, 0.6, 1.0, 2.0)
TAIL = 0.05
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting: what is checked (errors, latency or promote), stable's rate, the candidate's share, requests a second of both arms."""

    what: str
    p0: float
    share: float
    rps: float
    soak: float = SOAK

    @property
    def name(self) -> str:
        """The cell in a row of the table."""
        base = "" if self.what == "latency" else f" of {self.p0:.1%}"
        return f"{self.what}{base}, {self.share:.0%} of {self.rps:g}/s"


@dataclass(frozen=True, slots=True)
class Stated:
    """What the planner said of a cell: the candidate's rate that is seen (or proven) within so many seconds, and the ratio means."""

    p1: float
    ratio: float
    seconds: float


def policy() -> Policy:
    """The shipped policy `production` with a check on errors and one on latency, each judged as if it were alone."""
    checks: list[dict[str, Any]] = [
        {"name": "errors", "source": "balancer"},
        {"name": "latency", "source": "scrape", "histogram": "request_seconds"},
    ]
    return Policy.model_validate({**shipped_policy("production").model_dump(mode="json", by_alias=True), "checks": checks})


def rules_for(what: str) -> Any:
    """The engine's own rules for the errors, or for the latency."""
    found = policy()
    check = next(c for c in found.checks if c.name == ("latency" if what == "latency" else "errors"))
    assert check.source != "probe"
    return rules_of(found, check)


def pace(rules: CountsRules | CategoriesRules, cell: Cell) -> Pace:
    """As `plan` sees it: the cap is off once stable has shown enough bad requests to measure their dispersion."""
    rate = cell.p0 if cell.what != "latency" else 0.5
    known = rules.dispersion is not None or cell.rps * (1 - cell.share) * cell.soak / 2 * rate >= 100
    return Pace(cell.share, cell.rps, rules.interval, 1.0, None if known else rules.cap)


def stated(rules: Any, cell: Cell) -> Stated | None:
    """What the planner says of a cell; None when it sees nothing."""
    how = pace(rules, cell)
    if cell.what == "promote":
        needed = sights.counts_proof(rules, how, cell.p0)
        return Stated(cell.p0, 1.0, needed / cell.rps) if math.isfinite(needed) else None
    if cell.what == "latency":
        ratio = sights.tail_sight(rules, how, TAIL, cell.rps * cell.soak)
        return None if ratio is None else Stated(ratio * TAIL + rules.margin, ratio, cell.soak + rules.warmup.total_seconds())
    ratio = sights.counts_sight(rules, how, cell.p0, cell.rps * cell.soak)
    return None if ratio is None else Stated(sights.to_rate(rules, cell.p0, ratio), ratio, cell.soak)


def seen(cell: Cell, rules: Any, said: Stated, runs: int, seed: int = 1) -> int:
    """In how many of `runs` rollouts the engine came to the stated verdict in the stated time."""
    found = 0
    for rng in np.random.default_rng(seed).spawn(runs):
        if cell.what == "latency":
            found += _condemned_latency(cell, rules, said, rng)
        else:
            found += _errors(cell, rules, said, rng)
    return found


def _times(rules: Any, seconds: float) -> list[dt.datetime]:
    return [START + dt.timedelta(seconds=rules.interval * n) for n in range(math.ceil(seconds / rules.interval) + 1)]


def _arrivals(cell: Cell, polls: int, interval: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Requests of the candidate and of each stable instance in every poll."""
    mine = rng.poisson(cell.rps * cell.share * interval, polls)
    return mine, rng.poisson(cell.rps * (1 - cell.share) * interval / PODS, (polls, PODS))


def _errors(cell: Cell, rules: CountsRules, said: Stated, rng: np.random.Generator) -> bool:
    times = _times(rules, said.seconds)
    n1, n0 = _arrivals(cell, len(times) - 1, rules.interval, rng)
    e1, e0 = rng.binomial(n1, said.p1), rng.binomial(n0, cell.p0)
    before = rng.poisson(HISTORY / PODS, PODS)
    was = rng.binomial(before, cell.p0)
    mine = np.vstack([np.zeros((1, 2)), np.cumsum(np.stack([e1, n1], axis=1), axis=0)]).tolist()
    bads, totals = np.vstack([was, was + np.cumsum(e0, axis=0)]).tolist(), np.vstack([before, before + np.cumsum(n0, axis=0)]).tolist()
    needed, evidence = math.log(rules.parts / (rules.alpha * rules.weight)), CountsEvidence()
    for now, (bad, total), bad0, total0 in zip(times, mine, bads, totals, strict=True):
        answers: dict[str, Answer] = {
            STABLE: Counters(now, {f"s{i}": Counter(b, t) for i, (b, t) in enumerate(zip(bad0, total0, strict=True))}),
            CANDIDATE: Counters(now, {"new": Counter(bad, total)}, {"new": START}),
        }
        evidence = counts.fold(evidence, answers, BOTH, rules, START, now)
        if cell.what != "promote" and counts.worse_evidence(evidence, rules) >= needed:
            return True
    return cell.what == "promote" and counts.same_evidence(evidence, rules) >= PROVEN


def _condemned_latency(cell: Cell, rules: CategoriesRules, said: Stated, rng: np.random.Generator) -> bool:
    """The slowest twentieth has become larger, its shape unchanged."""
    stable = np.array(LAYERS)
    slow = int(np.searchsorted(-np.cumsum(stable[::-1])[::-1], -TAIL - 1e-9))
    grown = np.concatenate([stable[:slow] * (1 - said.p1) / (1 - TAIL), stable[slow:] * said.p1 / TAIL])
    grown[:slow] = stable[:slow] - np.eye(slow)[0] * (said.p1 - TAIL)
    if grown[0] < 0:
        grown[:slow] = stable[:slow] * (1 - said.p1) / (1 - TAIL)
    times = _times(rules, said.seconds)
    n1, n0 = _arrivals(cell, len(times) - 1, rules.interval, rng)
    mine = np.vstack([np.zeros((1, len(LAYERS))), np.cumsum(rng.multinomial(n1, grown / grown.sum()), axis=0)])
    before = rng.multinomial(HISTORY // PODS, stable / stable.sum(), size=PODS)
    theirs = np.concatenate([before[None], before + np.cumsum(rng.multinomial(n0, stable / stable.sum()), axis=0)])
    needed, evidence = math.log(1 / (rules.alpha * rules.weight)), CategoriesEvidence()
    for now, one, all_ in zip(times, mine.tolist(), theirs.tolist(), strict=True):
        answers: dict[str, Answer] = {
            STABLE: Buckets(now, EDGES, {f"s{i}": tuple(map(float, c)) for i, c in enumerate(all_)}),
            CANDIDATE: Buckets(now, EDGES, {"new": tuple(map(float, one))}, {"new": START}),
        }
        evidence = categories.fold(evidence, answers, BOTH, rules, START, now)
        if categories.worse_evidence(evidence, rules) >= needed:
            return True
    return False


def interval(hits: int, runs: int) -> tuple[float, float]:
    """The Clopper-Pearson interval of 95 % of a share, in per cent."""
    low = beta.ppf(0.025, hits, runs - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, runs - hits) if hits < runs else 1.0
    return 100 * float(low), 100 * float(high)


def cells() -> Iterator[Cell]:
    """The whole grid: errors over baselines, shares and traffic; latency and the promote rule over a few of them."""
    for p0 in BASELINES:
        for share in SHARES:
            for rps in TRAFFIC:
                yield Cell("errors", p0, share, rps)
    for share in SHARES:
        for rps in (100.0, 1000.0):
            yield Cell("latency", TAIL, share, rps)
    for p0 in (0.001, 0.01):
        for share in (0.05, 0.5):
            yield Cell("promote", p0, share, 100.0)


QUICK = (
    Cell("errors", 0.001, 0.05, 1000.0),
    Cell("errors", 0.01, 0.05, 100.0),
    Cell("errors", 0.01, 0.5, 10.0),
    Cell("errors", 0.05, 0.25, 1000.0, 100.0),
    Cell("latency", TAIL, 0.25, 100.0),
    Cell("promote", 0.01, 0.05, 100.0),
)


def row(cell: Cell, runs: int) -> Row:
    """The share of rollouts in which the engine saw what the planner said it would."""
    rules = replace(rules_for(cell.what), weight=0.9)
    said = stated(rules, cell)
    if said is None:
        return Row(f"{cell.name}: sees nothing", "%", 0.0, 0.0, 0.0, 0)
    hits = seen(cell, rules, said, runs)
    what = f"proven in {said.seconds:.0f} s" if cell.what == "promote" else f"x{said.ratio:.3g} in {said.seconds:.0f} s"
    return Row(f"{cell.name}: {what}", "%", 100 * hits / runs, *interval(hits, runs), runs)


def measure(*, quick: bool) -> Result:
    """The whole grid, or a few cells of it."""
    runs = 100 if quick else 500
    rows = tuple(row(cell, runs) for cell in (QUICK if quick else cells()))
    told = [r for r in rows if r.runs]
    near = sum(86 <= r.median <= 96 for r in told)
    return Result(
        subject="power",
        compared=f"the share of rollouts at exactly the planned regression that the engine condemned in time; {POWER:.0%} is stated. "
        "The columns min and max are the ends of the interval of 95 %",
        rows=rows,
        notes=("", f"{near} of {len(told)} cells lie between 86 and 96 %"),
    )
