"""`plan`: what would happen, before it does: the change, the stages in instances, what each can see, the gates, the way back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployguard.engine.stages import PlannedStage, batch, planned
from deployguard.model.version import Version
from deployguard.report.instants import iso
from deployguard.report.sight import ASSUMED_RATE, Expected, advice, check_sight, journey_sight, passes_after

if TYPE_CHECKING:
    from deployguard.model.policy import Freeze, Policy


def plan_report(
    policy: Policy,
    stable: Version | None,
    candidate: Version,
    wanted: int,
    names: Mapping[str, str],
    expected: Expected = Expected(),  # noqa: B008 - frozen
    diff: Sequence[str] = (),
    *,
    sources: Mapping[str, str] | None = None,
    shipped: Mapping[str, Policy] | None = None,
    surge: bool = False,
) -> dict[str, Any]:
    """The plan, ready for JSON.

    `sources` says in words where the traffic and the rates of bad requests come from (`traffic`, `rates`); `shipped` are the policies
    of which the plan says whether they would fit the traffic, with the checks of this one. With `surge` canaries come on top of the
    `wanted` instances.
    """
    sights = foresight(policy, wanted, expected, surge=surge)
    stages = planned(policy, max(wanted, 1), surge=surge)
    soak = sum((stage.soak for stage in stages), dt.timedelta(0))
    return {
        "schema": "deployguard.dev/plan/v1",
        "stable": _version(stable, names) if stable is not None else None,
        "candidate": _version(candidate, names),
        "unchanged": stable == candidate,
        "changes": _changes(stable, candidate),
        "diff": list(diff),
        **sights,
        "sources": dict(sources or {}),
        "total_soak_s": soak.total_seconds(),
        "longest_soak_s": sum((s.soak + s.longest).total_seconds() for s in stages),
        "watch_s": policy.watch.total_seconds(),
        "confidence": policy.confidence,
        "pass": policy.pass_,
        "strict": policy.strict,
        "policies": [_fit(name, other, policy, wanted, expected, surge) for name, other in (shipped or {}).items()],
        "gates": {"freeze": [_freeze(f) for f in policy.gates.freeze], "approval": list(policy.gates.approval)},
        "way_back": {
            "to": _version(stable, names) if stable is not None else None,
            "within_s": policy.rollback.within.total_seconds(),
            "ladder": list(policy.rollback.ladder),
            "relapse_watch_s": policy.rollback.relapse_watch.total_seconds(),
            "batch": batch(policy, max(wanted, 1)),
            "lease_s": policy.lease.total_seconds(),
        },
    }


def foresight(policy: Policy, wanted: int, expected: Expected, *, surge: bool = False) -> dict[str, Any]:
    """What every stage of `policy` can see on `wanted` instances, and whether that is what its checks claim."""
    wanted = max(wanted, 1)
    rows = [_stage(policy, stage, n, wanted, expected) for n, stage in enumerate(planned(policy, wanted, surge=surge), 1)]
    _let_pass(policy, rows)
    return {
        "instances": wanted,
        "surge": surge,
        "traffic_rps": expected.rps,
        "error_rate": ASSUMED_RATE if expected.rate is None else expected.rate,
        "error_rate_assumed": expected.rate is None,
        "error_rates": dict(expected.rates),
        "power": expected.power,
        "stages": rows,
        "sees_enough": _all_see(rows),
        "passes": _all_pass(rows),
    }


def _version(version: Version, names: Mapping[str, str]) -> dict[str, Any]:
    release, config = names.get(version.release, version.release[7:17]), names.get(version.config)
    name = f"{release} + {config}" if config else release
    return {"digest": version.digest, "release": version.release, "config": version.config, "name": name}


def _changes(stable: Version | None, candidate: Version) -> list[str]:
    """Which components differ: `release`, `config`."""
    if stable is None:
        return ["release", "config"]
    return [part for part in ("release", "config") if getattr(stable, part) != getattr(candidate, part)]


def _stage(policy: Policy, stage: PlannedStage, number: int, wanted: int, expected: Expected) -> dict[str, Any]:
    share, checks, helps = stage.share, [], []
    # By surge the candidates come on top, so they are a share of more instances than are wanted.
    wanted = max(wanted, round(stage.count / share)) if share else wanted
    for check in policy.checks:
        if check.source != "probe":
            checks.append(check_sight(policy, check, stage, wanted, expected))
            found = advice(policy, check, stage, wanted, expected, checks[-1])
            helps += [{"check": check.name, **one} for one in found]
    return {
        "number": number,
        "numbers": list(stage.numbers),
        "instances": stage.count,
        "full": stage.full,
        "share": share,
        "candidate_rps": expected.rps * share if expected.rps is not None else None,
        "soak_s": stage.soak.total_seconds(),
        "longest_s": stage.longest.total_seconds(),
        "approval": [n for n in stage.numbers if n in policy.gates.approval],
        "checks": checks,
        "journeys": [journey_sight(check) for check in policy.checks if check.source == "probe"],
        "advice": helps,
        "lasts_s": None,
        "held": None,
    }


def _let_pass(policy: Policy, rows: list[dict[str, Any]]) -> None:
    """Fill in how long each stage lasts until a candidate without a fault may leave it, and whether it is held before that.

    What was seen in earlier stages counts on: of what a check asks for, each stage brings a part.
    """
    required = {check.name for check in policy.checks if check.source != "probe" and check.required}
    done: dict[str, float] = {}
    for row in rows:
        lasts = row["soak_s"]
        asked = [(check["name"], passes_after(policy, check), check) for check in row["checks"] if check["name"] in required]
        unknown = any(after is None and check["needed"] is not None and check["takes_s"] is None for _, after, check in asked)
        for name, after, _ in asked:
            if done.get(name, 0.0) < 1:
                lasts = max(lasts, float("inf") if after is None else (1 - done.get(name, 0.0)) * after)
        if unknown:
            continue
        row["held"] = lasts > row["soak_s"] + row["longest_s"]
        row["lasts_s"] = round(min(lasts, row["soak_s"] + row["longest_s"]), 3)
        for name, after, _ in asked:
            done[name] = done.get(name, 0.0) + (row["lasts_s"] / after if after else float(after == 0))


def _all_see(stages: list[dict[str, Any]]) -> bool | None:
    """Whether every check that compares sees what it claims in every stage that leaves stable instances, and in one at least.

    None when the traffic is unknown or nothing is compared.
    """
    names = {check["name"] for stage in stages for check in stage["checks"] if check["claims"] is not None}
    seen = [(check["name"], check["sees"]) for stage in stages for check in stage["checks"] if check["compares"] or check["claims"] is None]
    if names - {name for name, _ in seen}:
        return False
    if any(sees is False for _, sees in seen):
        return False
    return None if not seen or any(sees is None for _, sees in seen) else True


def _all_pass(stages: list[dict[str, Any]]) -> bool | None:
    """Whether a candidate without a fault gets through every stage; None when that is not known."""
    held = [stage["held"] for stage in stages]
    return None if any(h is None for h in held) else not any(held)


def _fit(name: str, shipped: Policy, policy: Policy, wanted: int, expected: Expected, surge: bool) -> dict[str, Any]:
    """Whether a shipped policy with the checks of this one would fit the traffic, and how long it would take to stable."""
    seen = foresight(shipped.model_copy(update={"checks": policy.checks}), wanted, expected, surge=surge)
    held = [n for stage in seen["stages"] if stage["held"] for n in stage["numbers"]]
    lasts = [stage["lasts_s"] for stage in seen["stages"]]
    return {
        "name": name,
        "pass": shipped.pass_,
        "sees_enough": seen["sees_enough"],
        "passes": seen["passes"],
        "held_in": held,
        "takes_s": None if None in lasts else round(sum(lasts), 3),
    }


def _freeze(freeze: Freeze) -> dict[str, Any]:
    return {
        "cron": freeze.cron,
        "for_s": freeze.for_.total_seconds() if freeze.for_ is not None else None,
        "from": iso(freeze.from_),
        "until": iso(freeze.until),
        "timezone": freeze.timezone,
        "reason": freeze.reason,
    }
