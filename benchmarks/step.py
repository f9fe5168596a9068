"""What one decision costs: `engine.step.step` with the very arguments that a driver gave it in a simulated rollout of 20 instances.

The tests beside it are the parts that the protections of the sequential test add: late onset doubles the number of bets, the cap per poll
is one comparison for each.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from unittest import mock

from benchmarks.rows import Result, Row, microseconds, row
from deployguard.analysis import counts
from deployguard.analysis.judge import Bench, judge
from deployguard.driver import tick
from deployguard.engine.needs import needs
from deployguard.engine.rules import cases, counts_rules
from deployguard.engine.step import step
from deployguard.model.action import Decision, Observation
from deployguard.model.rollout import phase_name
from deployguard.model.target import TargetView
from deployguard.stores import schema
from deployguard.targets.simulated import Behaviour
from tests.properties.world import OLD, Sim, Traffic

INSTANCES = 20
CHECKS = (1, 5)
PHASES = ("advancing", "analyzing", "rolling_back")
SEEN = 12
"""Ticks of a phase that are timed, at most."""

Arguments = tuple[Any, ...]


def check(name: str) -> dict[str, Any]:
    """A counts check as people write it."""
    return {"name": name, "source": "balancer", "claims": 10, "worse_than_stable": {"ratio": 1.25, "margin": "0.02%", "floor": "1%"}}


def said(checks: int) -> str:
    """So many checks, in words."""
    return "1 check" if checks == 1 else f"{checks} checks"


def recorded(checks: int, protect: dict[str, Any] | None = None) -> dict[str, list[Arguments]]:
    """By phase, what `step` was called with in a good rollout and in one whose errors begin in its second stage."""
    found: dict[str, list[Arguments]] = defaultdict(list)

    def listening(*arguments: Any) -> Decision:
        if arguments[1].rollout is not None:
            found[phase_name(arguments[1].rollout.phase)].append(arguments)
        return step(*arguments)

    names = [f"errors-{n}" for n in range(checks)]
    stages = [{"instances": 1, "soak": "30s"}, {"exposure": "50%", "soak": "30s"}, {"exposure": "100%", "soak": "10s"}]
    policy = {"checks": [check(name) for name in names], "stages": stages, "protect": protect or {}}
    for bad in (0.0, 0.2):
        sim = Sim(bad=bad, wanted=INSTANCES, policy=policy, behaviour=Behaviour(ready_after=6.0))
        sim.target.behaviours[OLD.digest] = Behaviour(ready_after=6.0)
        sim.begin()
        driver = sim.driver()
        driver.world = dataclasses.replace(driver.world, sources={name: Traffic(sim) for name in names})
        driver.observer._world = driver.world
        with mock.patch.object(tick, "step", listening):
            sim.run(driver)
    return found


def timed(arguments: list[Arguments], runs: int) -> list[float]:
    """Microseconds of `step` over many of the recorded ticks."""
    chosen = arguments[:: max(len(arguments) // SEEN, 1)]
    return [value for one in chosen for value in microseconds(lambda one=one: step(*one), runs=runs, inner=5)]  # type: ignore[misc]


def parts(arguments: list[Arguments], runs: int) -> Iterator[tuple[str, list[float]]]:
    """Microseconds of folding and of judging alone, at the last recorded tick: the same evidence without rollout, phase and document."""
    policy, document, seen, now = arguments[-1]
    rollout, view = document.rollout, seen.view
    assert isinstance(view, TargetView)
    wanted = needs(policy, rollout, view)
    found, rules = cases(policy, rollout), {c.name: counts_rules(policy, c) for c in policy.checks}
    bench = Bench(now=now, since=now, patience=policy.hold_after, soaked=False, alpha=policy.alpha)

    def fold() -> None:
        for name, paths in wanted.items():
            counts.fold(rollout.evidence[name], _answers(seen, name), paths, rules[name], rollout.started, now)

    yield "counting alone", microseconds(fold, runs=runs)
    yield "judging alone", microseconds(lambda: judge(found, bench), runs=runs)


def _answers(seen: Observation, name: str) -> dict[str, Any]:
    return seen.answers.get(name, {})


def _sizes(found: dict[str, list[Arguments]]) -> list[float]:
    """Bytes of the saved document at the ticks of Analyzing."""
    return [float(len(schema.write(arguments[1]))) for arguments in found["analyzing"]]


def measure(*, quick: bool) -> Result:
    """Cost of a step by phase and number of checks, and the size of what is saved."""
    runs = 2 if quick else 4
    few, many = CHECKS
    plain = {checks: recorded(checks) for checks in CHECKS}
    rows: list[Row] = []
    for phase in PHASES:
        times = {checks: row(f"step, {phase}, {said(checks)}", "us CPU", timed(plain[checks][phase], runs)) for checks in CHECKS}
        each = (times[many].median - times[few].median) / (many - few)
        rows += [*times.values(), Row(f"  each check more, {phase}", "us CPU", each, each, each, 1)]
    last = plain[many]["analyzing"]
    rows += [row(f"{what}, {many} checks", "us CPU", values) for what, values in parts(last, 10 * runs)]
    for what, protect in (
        ("without late onset", {"late_onset": False}),
        ("without the cap", {"block_cap": None}),
        ("without both", {"late_onset": False, "block_cap": None}),
    ):
        rows.append(row(f"step, analyzing, {many} checks, {what}", "us CPU", timed(recorded(many, protect)["analyzing"], runs)))
    sizes = {checks: row(f"saved document, {said(checks)}", "bytes", _sizes(plain[checks])) for checks in CHECKS}
    each = (sizes[many].median - sizes[few].median) / (many - few)
    rows += [*sizes.values(), Row("  each check more", "bytes", each, each, each, 1)]
    return Result(
        subject="step",
        compared=f"one decision with {INSTANCES} instances, by phase and number of checks, beside its parts alone "
        "and beside the same step with protections of the test switched off",
        rows=tuple(rows),
    )
