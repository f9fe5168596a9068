"""The policy's stages in instances of this target."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployguard.model.policy import Policy


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage in instances: `count` on the candidate, watched for `soak`, extended for at most `longest`.

    `numbers` are the policy's own stage numbers (from 1) that came out equal and were merged, their soaks added.
    """

    count: int
    soak: dt.timedelta
    longest: dt.timedelta
    numbers: tuple[int, ...]


def planned(policy: Policy, wanted: int) -> tuple[PlannedStage, ...]:
    """The stages of `policy` for a target of `wanted` instances; never shrinking, equal ones merged."""
    stages: list[PlannedStage] = []
    for number, stage in enumerate(policy.stages, 1):
        count = max(stage.allowed(wanted), stages[-1].count if stages else 0)
        if stages and stages[-1].count == count:
            last = stages.pop()
            stages.append(PlannedStage(count, last.soak + stage.soak, last.longest + stage.longest, (*last.numbers, number)))
        else:
            stages.append(PlannedStage(count, stage.soak, stage.longest, (number,)))
    return tuple(stages)


def batch(policy: Policy, wanted: int) -> int:
    """How many instances may be out of service at a time because of a change: at least one."""
    share = math.floor(policy.rollback.batch * wanted + 1e-9)
    spare = wanted - math.ceil(policy.rollback.capacity_floor * wanted - 1e-9)
    return max(1, min(share, spare))
