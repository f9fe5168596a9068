"""The policy's stages in instances of this target."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployguard.model.policy import Policy, Stage

LEAST_PACE = 5
"""Seconds that a batch of a rolling update is watched at least: a fault is seen, and acted upon, within them."""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage in instances: `count` on the candidate, watched for `soak`, extended for at most `longest`.

    `share` is the candidate's share of the instances then. `full`: the workload itself runs the candidate.
    `numbers` are the policy's own stage numbers (from 1) that came out equal and were merged, their soaks added.
    """

    count: int
    soak: dt.timedelta
    longest: dt.timedelta
    numbers: tuple[int, ...]
    share: float = 1.0
    full: bool = False


def planned(policy: Policy, wanted: int, *, surge: bool = False) -> tuple[PlannedStage, ...]:
    """The stages of `policy` for a target of `wanted` instances; never shrinking, equal ones merged.

    With `surge` the candidates of all stages but a full one come on top of the wanted instances.
    """
    stages: list[PlannedStage] = []
    for number, stage in enumerate(policy.stages, 1):
        full = stage.exposure == 1 or (not surge and stage.allowed(wanted) == wanted)
        count = wanted if full else max(_allowed(stage, wanted, surge=surge), stages[-1].count if stages else 0)
        made = PlannedStage(count, stage.soak, stage.longest, (number,), _share(count, wanted, surge=surge and not full), full)
        if stages and (stages[-1].count, stages[-1].full) == (made.count, made.full):
            last = stages.pop()
            made = replace(made, soak=last.soak + made.soak, longest=last.longest + made.longest, numbers=(*last.numbers, number))
        stages.append(made)
    return tuple(stages)


def _allowed(stage: Stage, wanted: int, *, surge: bool) -> int:
    """The most candidates that keep their share below the stage's cap, at least one; by surge never more than there are instances."""
    if not surge or stage.instances is not None:
        return stage.allowed(wanted)
    share = stage.exposure or 0.0
    return min(wanted, max(1, math.floor(share * wanted / (1 - share) + 1e-9)))


def _share(count: int, wanted: int, *, surge: bool) -> float:
    total = wanted + count if surge else wanted
    return count / total if total else 1.0


def fitted(stages: tuple[PlannedStage, ...], policy: Policy, wanted: int) -> tuple[PlannedStage, ...]:
    """The stages of a target that exposes by surge after its size changed to `wanted`: what was planned may only fall.

    A full stage is as large as the workload itself.
    """
    now = {number: stage for stage in planned(policy, wanted, surge=True) for number in stage.numbers}

    def fit(stage: PlannedStage) -> PlannedStage:
        if stage.full:
            return replace(stage, count=wanted)
        count = min(stage.count, now[stage.numbers[-1]].count)
        return replace(stage, count=count, share=_share(count, wanted, surge=True))

    return tuple(fit(stage) for stage in stages)


def batch(policy: Policy, wanted: int) -> int:
    """How many instances may be out of service at a time because of a change: at least one."""
    share = math.floor(policy.rollback.batch * wanted + 1e-9)
    spare = wanted - math.ceil(policy.rollback.capacity_floor * wanted - 1e-9)
    return max(1, min(share, spare))


def patience(policy: Policy, stage: PlannedStage, *, surge: bool) -> dt.timedelta:
    """How long a stage may take to get in place.

    A rolling update is slowed down on purpose, at worst one instance at a time: that is no trouble of getting in place.
    """
    slowed = dt.timedelta(seconds=pace(policy) * stage.count) if surge and stage.full else dt.timedelta(0)
    return policy.advance_within + slowed


def pace(policy: Policy) -> int:
    """Whole seconds that each batch of a rolling update is watched before the next: long enough for four looks."""
    return max(LEAST_PACE, math.ceil(4 * policy.interval.total_seconds()))
