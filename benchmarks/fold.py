"""What a poll costs a check: folding one reading of each arm into its evidence, late onset included, and how large that evidence is.

A rollout of 200 polls is folded again and again, and the mean over its polls is one measurement: a poll with errors costs more than one
without, because then both arms are compared at once.
"""

from __future__ import annotations

import bisect
import datetime as dt
import random
from collections.abc import Callable
from typing import Any

from benchmarks.rows import Result, Row, microseconds, row
from deployguard.analysis import categories, counts
from deployguard.engine.rules import rules_of
from deployguard.model.base import encode
from deployguard.model.evidence import CategoriesEvidence, CountsEvidence
from deployguard.model.policy import Policy
from deployguard.model.reading import Buckets, Counter, Counters
from deployguard.model.target import CANDIDATE, STABLE

POLLS = 200
ARMS = (STABLE, CANDIDATE)
BEGAN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MINE, THEIRS = (3, 8), (40, 60)
"""Requests a second of the candidate's instance, and of all stable ones together: from, to."""
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
STAGES = [{"instances": 1, "soak": "1m"}, {"exposure": "100%", "soak": "1m"}]

Answers = list[tuple[dt.datetime, dict[str, Any]]]


def rules(check: dict[str, Any]) -> Any:
    """The rules of a check as people write it, beside the workload's restarts."""
    policy = Policy.model_validate({"stages": STAGES, "checks": [{"name": "it", **check}]})
    return rules_of(policy, policy.checks[0])  # type: ignore[arg-type]


def requests(draw: random.Random, stable: int) -> list[list[int]]:
    """Requests of each instance, the candidate's first, poll by poll."""
    return [[draw.randint(*MINE), *(draw.randint(*THEIRS) // stable for _ in range(stable))] for _ in range(POLLS)]


def counted(stable: int, rate: float) -> Answers:
    """Counters of one candidate instance and `stable` others, of whose requests `rate` goes bad."""
    draw, sums, found = random.Random(7), [[0, 0] for _ in range(stable + 1)], []
    for second, served in enumerate(requests(draw, stable)):
        at = BEGAN + dt.timedelta(seconds=second)
        for one, total in zip(sums, served, strict=True):
            one[0] += sum(draw.random() < rate for _ in range(total))
            one[1] += total
        by = {f"instance-{n}": Counter(*one) for n, one in enumerate(sums)}
        mine = {"instance-0": by.pop("instance-0")}
        found.append((at, {CANDIDATE: Counters(at, mine, dict.fromkeys(mine, BEGAN)), STABLE: Counters(at, by, {})}))
    return found


def bucketed() -> Answers:
    """Histograms of one instance of each arm: lognormal around 100 ms, in the 15 categories of the Python client's default bounds."""
    draw, sums, found = random.Random(7), [[0] * (len(BOUNDS) + 1) for _ in range(2)], []
    old = BEGAN - dt.timedelta(hours=1)
    for second, served in enumerate(requests(draw, 1)):
        at = BEGAN + dt.timedelta(seconds=second)
        for one, total in zip(sums, served, strict=True):
            for _ in range(total):
                one[bisect.bisect_left(BOUNDS, draw.lognormvariate(-2.3, 0.5))] += 1
        mine, theirs = (Buckets(at, BOUNDS, {name: tuple(one)}, {name: old}) for name, one in zip("cs", sums, strict=True))
        found.append((at, {CANDIDATE: mine, STABLE: theirs}))
    return found


def played(fold: Callable[..., Any], evidence: Any, answers: Answers, by: Any) -> Any:
    """The evidence after all polls."""
    for at, answer in answers:
        evidence = fold(evidence, answer, ARMS, by, BEGAN - dt.timedelta(hours=2) if fold is categories.fold else BEGAN, at)
    return evidence


def rows(what: str, fold: Callable[..., Any], fresh: Any, answers: Answers, by: Any, runs: int) -> list[Row]:
    """Microseconds a poll, and bytes of the evidence as it is saved."""
    values = [value / POLLS for value in microseconds(lambda: played(fold, fresh, answers, by), runs=runs, inner=1)]
    size = float(len(encode(played(fold, fresh, answers, by))))
    return [row(what, "us CPU", values), Row("  its evidence", "bytes", size, size, size, 1)]


def measure(*, quick: bool) -> Result:
    """Cost of a poll for checks on counts and on latency."""
    runs = 10 if quick else 40
    plain = {"source": "balancer"}
    strict = {"source": "balancer", "worse_than_stable": {"ratio": 1, "margin": "0%", "floor": "0%"}}
    latency = {"source": "scrape", "histogram": "seconds"}
    found = [
        *rows("errors 0.1 %, 2 instances", counts.fold, CountsEvidence(), counted(1, 0.001), rules(plain), runs),
        *rows("errors 1 %, 2 instances", counts.fold, CountsEvidence(), counted(1, 0.01), rules(plain), runs),
        *rows("errors 1 %, 2 instances, no tolerance", counts.fold, CountsEvidence(), counted(1, 0.01), rules(strict), runs),
        *rows("errors 5 %, 2 instances (bad requests in every poll)", counts.fold, CountsEvidence(), counted(1, 0.05), rules(plain), runs),
        *rows("errors 1 %, 20 instances", counts.fold, CountsEvidence(), counted(19, 0.01), rules(plain), runs),
        *rows("histogram, 15 buckets", categories.fold, CategoriesEvidence(), bucketed(), rules(latency), runs),
        *rows(
            "histogram, 15 buckets, no tolerance",
            categories.fold,
            CategoriesEvidence(),
            bucketed(),
            rules({**latency, "worse_than_stable": {"ratio": 1, "margin": "0%"}}),
            runs,
        ),
    ]
    return Result(
        "A poll of one check",
        f"folding what both arms answered in one of {POLLS} polls, about 5 and 50 requests a second",
        tuple(found),
    )
