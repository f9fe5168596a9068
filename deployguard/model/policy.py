"""The policy as people write it: stages, checks, gates and rollback rules, reusable between guards."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from deployguard.model.check import Check, same_names
from deployguard.model.fields import ApiVersion, Broken, Duration, Instant, PositiveDuration, Rule, Share, Span, Written, broken
from deployguard.model.units import format_duration


def _seconds(value: float) -> dt.timedelta:
    return dt.timedelta(seconds=value)


class Stage(Written):
    """A cap on exposure, and the time it is watched there."""

    instances: int | None = Field(
        None, ge=1, json_schema_extra={"x-unit": "instances"}, description="at most this many instances on the candidate"
    )
    exposure: Share | None = Field(None, description="at most this share of the instances on the candidate")
    soak: Duration = Field(description="watched time before promotion is asked")
    limit: Duration | None = Field(None, description="the longest extension when samples are too few; four soaks when not given")

    @model_validator(mode="after")
    def _one_cap(self) -> Stage:
        if self.instances is None and self.exposure is None:
            raise broken("the stage has no cap; give exactly one of `instances` and `exposure`", ())
        if self.instances is not None and self.exposure is not None:
            raise broken("the stage has two caps; give exactly one of `instances` and `exposure`", ("exposure",), ("instances",))
        if self.exposure is not None and self.exposure <= 0:
            raise broken("`0%` exposes nothing; write a share above 0%", ("exposure",))
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
    retreat_after: Duration = Field(_seconds(300), description="blind for this long at or below 50% exposure takes the candidate back")
    hold_limit: Duration = Field(
        _seconds(1800), description="any hold at or below 50% exposure ends after this by taking the candidate back"
    )


class Rollback(Written):
    """The way back."""

    within: PositiveDuration = Field(_seconds(120), description="a rollback that takes longer is announced as overdue; it goes on")
    batch: Share = Field(0.25, description="instances changed at a time when many must change")
    capacity_floor: Share = Field(0.7, description="instances kept in service while the fleet changes")
    relapse_watch: Duration = Field(_seconds(1800), description="how long the restored version is watched")
    ladder: list[Literal["restart", "older"]] = Field(
        ["restart"], description="rungs after the first: restart what did not take it; the next older stable version"
    )

    @model_validator(mode="after")
    def _moves(self) -> Rollback:
        if self.batch <= 0:
            raise broken("`0%` would change nothing; write a share above 0%", ("batch",))
        return self


class Freeze(Written):
    """A time in which no rollout starts and none is promoted."""

    cron: str | None = Field(None, description="when it begins, as a cron expression; with `for`")
    for_: Duration | None = Field(None, alias="for", description="how long it lasts after each begin")
    from_: Instant | None = Field(None, alias="from", description="begin of a single window, with a UTC offset")
    until: Instant | None = Field(None, description="end of a single window, with a UTC offset")
    timezone: str = Field("UTC", description="the time zone of `cron`")
    reason: str = Field("", description="what `status` shows")

    @model_validator(mode="after")
    def _window(self) -> Freeze:
        if self.cron is not None:
            if self.for_ is None or self.from_ is not None or self.until is not None:
                raise broken("a recurring freeze has `cron` and `for`; give both, and neither `from` nor `until`", ("cron",))
            _check_cron(self.cron, self.timezone)
            return self
        if self.from_ is None or self.until is None or self.for_ is not None:
            raise broken("the window is not complete; give either `cron` and `for`, or `from` and `until`", ())
        for name, instant in (("from", self.from_), ("until", self.until)):
            if instant.utcoffset() is None:
                raise broken(f"`{name}` has no UTC offset; write it as in `2026-12-24T18:00:00+01:00`", (name,))
        if self.until <= self.from_:
            raise broken("`until` is not after `from`; a window ends later than it begins", ("until",), ("from",))
        return self


def _check_cron(cron: str, timezone: str) -> None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from cronsim import CronSim, CronSimError

    try:
        CronSim(cron, dt.datetime(2026, 1, 1, tzinfo=ZoneInfo(timezone)))
    except CronSimError as error:
        raise broken(f"`{cron}` is not a cron expression; write one such as `0 18 * * FRI`", ("cron",)) from error
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise broken(f"`{timezone}` is not a time zone; write one such as `Europe/Berlin`", ("timezone",)) from error


class Gates(Written):
    """What must be open before a rollout starts or enters a stage."""

    freeze: list[Freeze] = Field([], description="times in which nothing starts and nothing is promoted")
    approval: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="numbers of the stages (from 1) that a person must approve before they are entered"
    )


class Protect(Written):
    """Protections of the sequential test; each costs a little time (see docs/statistics.md)."""

    late_onset: bool = Field(True, description="keep half of the evidence for faults that begin later than the exposure")
    block_cap: float | None = Field(
        10.0,
        gt=1,
        le=1_000_000,
        json_schema_extra={"x-unit": "times"},
        description="the most that one poll may multiply the evidence by while the dispersion is not known; null for no cap",
    )
    traffic_share: float | None = Field(
        None,
        gt=1,
        le=100,
        json_schema_extra={"x-unit": "times"},
        description="hold (never roll back) when the candidate's share of the requests is off its share of the instances by more than this",
    )


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
    advance_within: PositiveDuration = Field(_seconds(300), description="a stage that is not in place after this has failed")
    lease: Duration = Field(_seconds(15), description="how long an instance keeps a candidate while no guard renews it")
    rollback: Rollback = Field(Rollback(), description="the way back")
    gates: Gates = Field(Gates(), description="freezes and approvals")
    watch: Duration = Field(_seconds(86400), description="how long rollback stays armed after promotion")
    protect: Protect = Field(Protect(), description="protections of the sequential test")
    strict: bool = Field(False, description="refuse a rollout with a stage that cannot see what its checks claim")

    @model_validator(mode="after")
    def _makes_sense(self) -> Policy:
        rules = [*self._growth(), *self._soaks(), *same_names(self.checks)]
        if not 0.5 <= self.confidence < 1:
            rules.append(Rule("`confidence` is outside 50% to 100%; write at least `50%` and less than `100%`", (("confidence",),)))
        if self.interval < dt.timedelta(milliseconds=100):
            rules.append(Rule(f"`interval` is {format_duration(self.interval)}; write at least `100ms`", (("interval",),)))
        if self.lease < self.interval * 2:
            least = format_duration(self.interval * 2)
            text = f"`lease` is shorter than two polls, so it runs out between renewals; with this `interval` write at least `{least}`"
            rules.append(Rule(text, (("lease",), ("interval",))))
        for index, number in enumerate(self.gates.approval):
            if number > len(self.stages):
                text = f"there is no stage {number}; the policy has {len(self.stages)}"
                rules.append(Rule(text, (("gates", "approval", index), ("stages",))))
        if rules:
            raise Broken(*rules)
        return self

    def _soaks(self) -> list[Rule]:
        least = self.interval * 2
        text = f"the soak is shorter than two polls; with this `interval` write at least `{format_duration(least)}`"
        rules = [
            Rule(text, (("stages", index, "soak"), ("interval",), ("stages",)))
            for index, stage in enumerate(self.stages)
            if stage.soak < least
        ]
        for index, stage in enumerate(self.stages):
            if stage.limit is not None and stage.limit < stage.soak:
                text = f"`limit` is shorter than the soak; it extends the soak, so write more than `{format_duration(stage.soak)}`"
                rules.append(Rule(text, (("stages", index, "limit"), ("stages", index, "soak"))))
        return rules

    def _growth(self) -> list[Rule]:
        rules = []
        if self.stages[-1].exposure != 1:
            text = "the last stage is below full exposure, where nothing becomes stable; end with a stage of `exposure: 100%`"
            rules.append(Rule(text, (("stages", len(self.stages) - 1), ("stages",))))
        for index, (before, stage) in enumerate(itertools.pairwise(self.stages), 1):
            shrinks = (before.exposure is not None and stage.exposure is not None and stage.exposure < before.exposure) or (
                before.instances is not None and stage.instances is not None and stage.instances < before.instances
            )
            place = ("stages", index, "exposure" if stage.instances is None else "instances")
            if shrinks:
                rules.append(Rule(f"stage {index + 1} is smaller than stage {index}; stages never shrink", (place, ("stages",))))
            elif before.exposure is not None and stage.instances is not None:
                text = "`instances` after a stage with `exposure` may shrink; write `exposure` here too"
                rules.append(Rule(text, (place, ("stages",))))
        return rules

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

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")] = Field(description="its name, unique among its kind")
    namespace: str | None = Field(None, description="the namespace, in a cluster")
    labels: dict[str, str] = Field({}, description="free labels")
    annotations: dict[str, str] = Field({}, description="free notes")


class PolicyFile(Written):
    """A reusable policy."""

    apiVersion: ApiVersion = Field("deployguard.dev/v1alpha1", description="the format's version")
    kind: Literal["GuardPolicy"] = Field("GuardPolicy", description="always GuardPolicy")
    metadata: Metadata = Field(description="the policy's name")
    spec: Policy = Field(description="the policy itself")
