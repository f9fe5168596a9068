"""The stages of a saved rollout, read from its own JSON policy: the policy model itself would cost `status` its start-up time."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from deployguard.engine.stages import PlannedStage, planned
from deployguard.model.rollout import Rollout
from deployguard.model.units import parse_duration, parse_share

if TYPE_CHECKING:
    from deployguard.model.policy import Policy

DEFAULT_CONFIDENCE = 0.99
_OF = re.compile(r"stage (\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class _Stage:
    instances: int | None
    exposure: float | None
    soak: dt.timedelta
    longest: dt.timedelta

    def allowed(self, wanted: int) -> int:
        if self.instances is not None:
            return min(self.instances, wanted)
        return min(wanted, max(1, int((self.exposure or 0.0) * wanted + 1e-9)))


@dataclass(frozen=True, slots=True)
class _Staged:
    stages: tuple[_Stage, ...]


def _stage(spec: dict[str, Any]) -> _Stage:
    soak, limit, exposure = parse_duration(spec["soak"]), spec.get("limit"), spec.get("exposure")
    return _Stage(
        instances=spec.get("instances"),
        exposure=None if exposure is None else parse_share(exposure),
        soak=soak,
        longest=soak * 4 if limit is None else parse_duration(limit),
    )


def stages_of(rollout: Rollout) -> tuple[PlannedStage, ...]:
    """The stages of the rollout in instances; empty when its policy was not saved with it, or not in a form that is known here."""
    try:
        staged = _Staged(tuple(_stage(stage) for stage in rollout.spec.get("stages", ())))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
    return planned(cast("Policy", staged), max(rollout.wanted, 1), surge=rollout.surge)


def stage_count(rollout: Rollout) -> int:
    """How many stages the rollout has; 0 when neither its policy nor its trail says so."""
    if stages := stages_of(rollout):
        return len(stages)
    found = (_OF.search(step.text) for step in reversed(rollout.trail))
    return next((int(match[2]) for match in found if match), 0)


def alpha_of(rollout: Rollout) -> float:
    """1 minus the confidence of the rollout's policy."""
    try:
        return 1 - parse_share(rollout.spec.get("confidence", DEFAULT_CONFIDENCE))
    except (TypeError, ValueError):
        return 1 - DEFAULT_CONFIDENCE


def checks_of(rollout: Rollout) -> tuple[str, ...]:
    """The names of the rollout's checks: the policy's when it was saved, else those that have evidence."""
    try:
        named = tuple(str(check["name"]) for check in rollout.spec.get("checks", ()))
    except (KeyError, TypeError):
        named = ()
    return named or tuple(rollout.evidence)
