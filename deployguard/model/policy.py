"""The policy as people write it: stages, checks, gates and rollback rules, reusable between guards."""

from __future__ import annotations

import datetime as dt
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from deployguard.model.check import Check
from deployguard.model.fields import ApiVersion, Duration, Share, Span, Written


def _seconds(value: float) -> dt.timedelta:
    return dt.timedelta(seconds=value)


class Stage(Written):
    """A cap on exposure, and the time it is watched there."""

    instances: int | None = Field(None, ge=1, description="at most this many instances on the candidate")
    exposure: Share | None = Field(None, description="at most this share of the instances on the candidate")
    soak: Duration = Field(description="watched time before promotion is asked")
    limit: Duration | None = Field(None, description="the longest extension when samples are too few; four soaks when not given")

    @model_validator(mode="after")
    def _one_cap(self) -> Stage:
        if (self.instances is None) == (self.exposure is None):
            raise ValueError("a stage has exactly one of `instances` and `exposure`")
        if self.exposure is not None and self.exposure <= 0:
            raise ValueError("`exposure` must be above 0%")
        return self

    @property
    def longest(self) -> dt.timedelta:
        """How long the soak may be extended while samples are too few."""
        return self.limit if self.limit is not None else self.soak * 4

    def allowed(self, wanted: int) -> int:
        """The largest number of instances of `wanted` that may run the candidate: max(1, floor(share x N))."""
        if self.instances is not None:
            return min(self.instances, wanted)
        assert self.exposure is not None
        return min(wanted, max(1, math.floor(self.exposure * wanted + 1e-9)))


class Blind(Written):
    """What happens when a required signal is missing."""

    hold_after: Span = Field(2, description="a required signal silent for this long holds the rollout")
    retreat_after: Duration = Field(_seconds(300), description="blind for this long at or below 50 % exposure takes the candidate back")
    hold_limit: Duration = Field(
        _seconds(1800), description="any hold at or below 50 % exposure ends after this by taking the candidate back"
    )


class Rollback(Written):
    """The way back."""

    within: Duration = Field(_seconds(120), description="a rollback that takes longer is announced as overdue; it goes on")
    batch: Share = Field(0.25, description="instances changed at a time when many must change")
    capacity_floor: Share = Field(0.7, description="instances kept in service while the fleet changes")
    relapse_watch: Duration = Field(_seconds(1800), description="how long the restored version is watched")
    ladder: list[Literal["restart", "older"]] = Field(
        ["restart"], description="rungs after the first: restart what did not take it; the next older stable version"
    )


class Freeze(Written):
    """A time in which no rollout starts and none is promoted."""

    cron: str | None = Field(None, description="when it begins, as a cron expression; with `for`")
    for_: Duration | None = Field(None, alias="for", description="how long it lasts after each begin")
    from_: dt.datetime | None = Field(None, alias="from", description="begin of a single window, with a UTC offset")
    until: dt.datetime | None = Field(None, description="end of a single window, with a UTC offset")
    timezone: str = Field("UTC", description="the time zone of `cron`")
    reason: str = Field("", description="what `status` shows")

    @model_validator(mode="after")
    def _window(self) -> Freeze:
        if self.cron is not None:
            if self.for_ is None or self.from_ is not None or self.until is not None:
                raise ValueError("a recurring freeze has `cron` and `for`")
            _check_cron(self.cron, self.timezone)
            return self
        if self.from_ is None or self.until is None or self.for_ is not None:
            raise ValueError("a freeze has either `cron` and `for`, or `from` and `until`")
        if self.from_.tzinfo is None or self.until.tzinfo is None:
            raise ValueError("`from` and `until` need a UTC offset, as in `2026-12-24T18:00:00+01:00`")
        if self.until <= self.from_:
            raise ValueError("`until` must come after `from`")
        return self


def _check_cron(cron: str, timezone: str) -> None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from cronsim import CronSim, CronSimError

    try:
        CronSim(cron, dt.datetime(2026, 1, 1, tzinfo=ZoneInfo(timezone)))
    except CronSimError as error:
        raise ValueError(f"`{cron}` is not a cron expression: {error}") from error
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"`{timezone}` is not a time zone; write one such as `Europe/Berlin`") from error


class Gates(Written):
    """What must be open before a rollout starts or enters a stage."""

    freeze: list[Freeze] = Field([], description="times in which nothing starts and nothing is promoted")
    approval: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="numbers of the stages (from 1) that a person must approve before they are entered"
    )


class Protect(Written):
    """Protections of the sequential test; each costs a little time (see docs/statistics.md)."""

    late_onset: bool = Field(True, description="keep half of the evidence for faults that begin later than the exposure")
    block_cap: float | None = Field(10.0, gt=1, description="the most that one poll may multiply the evidence by; null for no cap")


class Policy(Written):
    """How a change is staged, judged and taken back."""

    stages: list[Stage] = Field(min_length=1, max_length=20, description="caps on exposure, in order; the last one at 100% is the bake")
    confidence: Share = Field(0.99, description="1 minus the probability of a false rollback, over a whole rollout")
    checks: list[Check] = Field([], max_length=50, description="what is asked about health; the workload's own health is always asked")
    interval: Duration = Field(_seconds(1), description="how often signals are read")
    warmup: Duration = Field(
        _seconds(30),
        description="an instance that exits within this time of its start is doomed; latency and gauges wait for it",
    )
    pass_: Literal["proof", "soak"] = Field(
        "proof",
        alias="pass",
        description="promote on proof that the claimed regression is absent, or on a soak with enough samples to have seen it",
    )
    blind: Blind = Field(Blind(), description="what happens when a required signal is missing")
    advance_within: Duration = Field(_seconds(300), description="a stage that is not in place after this has failed")
    lease: Duration = Field(_seconds(15), description="how long an instance keeps a candidate while no guard renews it")
    rollback: Rollback = Field(Rollback(), description="the way back")
    gates: Gates = Field(Gates(), description="freezes and approvals")
    watch: Duration = Field(_seconds(86400), description="how long rollback stays armed after promotion")
    protect: Protect = Field(Protect(), description="protections of the sequential test")
    strict: bool = Field(False, description="refuse a rollout with a stage that cannot see what its checks claim")

    @model_validator(mode="after")
    def _makes_sense(self) -> Policy:
        self._stages_grow()
        if not 0.5 <= self.confidence < 1:
            raise ValueError("`confidence` must be at least 50% and below 100%")
        names = [check.name for check in self.checks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the check name `{name}` is used {names.count(name)} times; names are unique")
        if self.interval < dt.timedelta(milliseconds=100):
            raise ValueError("`interval` must be at least 100ms")
        if self.lease < self.interval * 2:
            raise ValueError("`lease` must be at least two intervals, or it runs out between renewals")
        if self.gates.approval and max(self.gates.approval) > len(self.stages):
            raise ValueError(f"`gates.approval` names stage {max(self.gates.approval)}, but there are {len(self.stages)}")
        return self

    def _stages_grow(self) -> None:
        for number, stage in enumerate(self.stages, 1):
            if stage.soak < self.interval * 2:
                least = (self.interval * 2).total_seconds()
                raise ValueError(f"the soak of stage {number} is shorter than two polls; with this `interval` it must be at least {least:g}s")
            before = self.stages[number - 2] if number > 1 else None
            if before and (before.exposure is not None and stage.exposure is not None and stage.exposure < before.exposure):
                raise ValueError(f"stage {number} is smaller than stage {number - 1}; stages never shrink")
            if before and (before.instances is not None and stage.instances is not None and stage.instances < before.instances):
                raise ValueError(f"stage {number} is smaller than stage {number - 1}; stages never shrink")
            if before and (before.exposure is not None and stage.instances is not None):
                raise ValueError(f"stage {number} counts `instances` after a stage with `exposure`; whether it shrinks cannot be known")

    @property
    def alpha(self) -> float:
        """P(false rollback) per rollout."""
        return 1 - self.confidence

    @property
    def hold_after(self) -> dt.timedelta:
        """How long a required signal may be silent."""
        span = self.blind.hold_after
        return self.interval * span if isinstance(span, int) else span


class Metadata(Written):
    """How an object is named."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")] = Field(
        description="lower-case letters, digits, `-` and `.`"
    )
    namespace: str | None = Field(None, description="the namespace, in a cluster")
    labels: dict[str, str] = Field({}, description="free labels")
    annotations: dict[str, str] = Field({}, description="free notes")


class PolicyFile(Written):
    """A reusable policy."""

    apiVersion: ApiVersion = Field("deployguard.dev/v1alpha1", description="the format's version")
    kind: Literal["GuardPolicy"] = Field("GuardPolicy", description="always GuardPolicy")
    metadata: Metadata = Field(description="the policy's name")
    spec: Policy = Field(description="the policy itself")
