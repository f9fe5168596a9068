"""`plan`: what would happen, before it does: the change, the stages in instances, what each can see, the gates, the way back."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployguard.analysis.enough import needed_at
from deployguard.engine.rules import counts_rules
from deployguard.engine.stages import PlannedStage, batch, planned
from deployguard.model.units import format_duration, format_share
from deployguard.model.version import Version
from deployguard.report.instants import iso, spell
from deployguard.report.table import plain, table

if TYPE_CHECKING:
    from deployguard.model.check import BalancerCheck, ScrapeCheck
    from deployguard.model.policy import Freeze, Policy

ASSUMED_RATE = 0.001
"""Stable's rate of bad requests where nobody says it: one in a thousand."""


def plan_report(
    policy: Policy,
    stable: Version | None,
    candidate: Version,
    wanted: int,
    names: Mapping[str, str],
    traffic_rps: float | None = None,
    error_rate: float | None = None,
    diff: Sequence[str] = (),
) -> dict[str, Any]:
    """The plan, ready for JSON. `traffic_rps` are the requests a second of the whole target, None when unknown."""
    stages = planned(policy, max(wanted, 1))
    rate = ASSUMED_RATE if error_rate is None else error_rate
    rows = [_stage(policy, stage, n, max(wanted, 1), traffic_rps, rate) for n, stage in enumerate(stages, 1)]
    soak = sum((stage.soak for stage in stages), dt.timedelta(0))
    return {
        "schema": "deployguard.dev/plan/v1",
        "stable": _version(stable, names) if stable is not None else None,
        "candidate": _version(candidate, names),
        "unchanged": stable == candidate,
        "changes": _changes(stable, candidate),
        "diff": list(diff),
        "instances": wanted,
        "traffic_rps": traffic_rps,
        "error_rate": rate,
        "error_rate_assumed": error_rate is None,
        "stages": rows,
        "total_soak_s": soak.total_seconds(),
        "longest_soak_s": sum((s.soak + s.longest).total_seconds() for s in stages),
        "watch_s": policy.watch.total_seconds(),
        "confidence": policy.confidence,
        "pass": policy.pass_,
        "strict": policy.strict,
        "sees_enough": _all_see(rows),
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


def _version(version: Version, names: Mapping[str, str]) -> dict[str, Any]:
    release, config = names.get(version.release, version.release[7:17]), names.get(version.config)
    name = f"{release} + {config}" if config else release
    return {"digest": version.digest, "release": version.release, "config": version.config, "name": name}


def _changes(stable: Version | None, candidate: Version) -> list[str]:
    """Which components differ: `release`, `config`."""
    if stable is None:
        return ["release", "config"]
    return [part for part in ("release", "config") if getattr(stable, part) != getattr(candidate, part)]


def _stage(policy: Policy, stage: PlannedStage, number: int, wanted: int, traffic: float | None, rate: float) -> dict[str, Any]:
    share = stage.count / wanted
    return {
        "number": number,
        "numbers": list(stage.numbers),
        "instances": stage.count,
        "share": share,
        "soak_s": stage.soak.total_seconds(),
        "longest_s": stage.longest.total_seconds(),
        "approval": [n for n in stage.numbers if n in policy.gates.approval],
        "checks": [_sight(policy, check, stage, wanted, traffic, rate) for check in policy.checks if check.source != "probe"],
        "journeys": [check.name for check in policy.checks if check.source == "probe"],
    }


def _sight(
    policy: Policy, check: ScrapeCheck | BalancerCheck, stage: PlannedStage, wanted: int, traffic: float | None, rate: float
) -> dict[str, Any]:
    """What one check can see in one stage. At full exposure nothing of stable is left to compare with: only a limit can be seen there."""
    rules, share = counts_rules(policy, check), stage.count / wanted
    compares = stage.count < wanted
    needed = needed_at(rules, share, rate) if compares or not rules.compare else math.inf
    seconds = needed / (traffic * share) if traffic and math.isfinite(needed) else None
    tolerated = max(rate, rules.floor, 1e-4)
    sees = None if not traffic or (rules.compare and not compares) else seconds is not None and seconds <= stage.soak.total_seconds()
    return {
        "name": check.name,
        "claims": rules.claims if rules.compare else None,
        "limit": rules.limit,
        "from_rate": round(tolerated, 6) if rules.compare else None,
        "to_rate": round(min(rules.claims * tolerated + rules.margin, 0.999), 6) if rules.compare else None,
        "needed": math.ceil(needed) if math.isfinite(needed) else None,
        "takes_s": round(seconds, 3) if seconds is not None else None,
        "compares": compares and rules.compare,
        "sees": sees,
    }


def _all_see(stages: list[dict[str, Any]]) -> bool | None:
    """Whether every check that compares sees what it claims in every stage that leaves stable instances, and in one at least.

    None when the traffic is unknown or nothing is compared.
    """
    names = {check["name"] for stage in stages for check in stage["checks"] if check["claims"] is not None}
    seen = [(check["name"], check["sees"]) for stage in stages for check in stage["checks"] if check["compares"] or check["claims"] is None]
    if names - {name for name, _ in seen}:
        return False
    return None if not seen or any(sees is None for _, sees in seen) else all(sees for _, sees in seen)


def _freeze(freeze: Freeze) -> dict[str, Any]:
    return {
        "cron": freeze.cron,
        "for_s": freeze.for_.total_seconds() if freeze.for_ is not None else None,
        "from": iso(freeze.from_),
        "until": iso(freeze.until),
        "timezone": freeze.timezone,
        "reason": freeze.reason,
    }


def plan_text(plan: Mapping[str, Any]) -> str:
    """The plan for people; ends with a newline."""
    stable = plan["stable"]["name"] if plan["stable"] else "nothing known to be stable"
    if plan["unchanged"]:
        return f"nothing to do: {stable} is stable already\n"
    lines = [f"change: {stable} -> {plan['candidate']['name']} ({' and '.join(plan['changes'])})"]
    lines += [f"  {line}" for line in plan["diff"]]
    lines += ["", "stages:", *_stage_lines(plan)]
    lines.append(f"total soak: {_span(plan['total_soak_s'])}, at most {_span(plan['longest_soak_s'])} while samples are too few")
    lines += ["", *_sight_lines(plan), "", *_gate_lines(plan), *_back_lines(plan)]
    return "\n".join(map(plain, lines)) + "\n"


def _span(seconds: float) -> str:
    return format_duration(dt.timedelta(seconds=seconds))


def _label(stage: Mapping[str, Any]) -> str:
    numbers = ", ".join(map(str, stage["numbers"]))
    return f"stage {numbers}:" if len(stage["numbers"]) == 1 else f"stages {numbers}:"


def _stage_lines(plan: Mapping[str, Any]) -> list[str]:
    rows = []
    for stage in plan["stages"]:
        extra = f"; after approval of stage {', '.join(map(str, stage['approval']))}" if stage["approval"] else ""
        rows.append([_label(stage), f"{stage['instances']} of {plan['instances']} instances for {_span(stage['soak_s'])}{extra}"])
    return table(rows, indent="  ")


def _sight_lines(plan: Mapping[str, Any]) -> list[str]:
    known = plan["traffic_rps"] is not None
    rate = format_share(round(plan["error_rate"], 6)) + (" (assumed)" if plan["error_rate_assumed"] else "")
    traffic = f"{plan['traffic_rps']:g} requests/s" if known else "unknown traffic"
    lines = [f"what each stage can see, with {traffic} and {rate} bad on stable:"]
    rows = []
    for stage in plan["stages"]:
        label = _label(stage)
        rows += [[label, f"{check['name']}: {_sight_words(check, stage)}"] for check in stage["checks"]]
        rows += [[label, f"{name}: three red walks in a row, whatever the traffic"] for name in stage["journeys"]]
        if not stage["checks"] and not stage["journeys"]:
            rows.append([label, "only instances that cannot live: the policy has no checks"])
    lines += table(rows, indent="  ")
    if plan["sees_enough"] is False:
        lines.append(f"  warning: not every stage can see what its checks claim in its soak; {_short_of(plan)}")
    if not known:
        lines.append("  hint: say how many requests a second there are to see how long each stage needs")
    return lines


def _short_of(plan: Mapping[str, Any]) -> str:
    if plan["strict"]:
        return "the rollout is refused, because the policy is `strict`"
    return "a soak is extended while samples are too few, and then the rollout is held"


def _sight_words(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    if check["claims"] is None:
        return f"a rate of twice the limit {format_share(check['limit'])} takes {check['needed']:,} requests on the candidate" + _takes(
            check, stage
        )
    if not check["compares"]:
        limit = f"the limit {format_share(check['limit'])} still counts" if check["limit"] is not None else "what was seen before counts on"
        return f"no stable instance is left to compare with; {limit}"
    rise = f"a rise from {format_share(check['from_rate'])} to {format_share(check['to_rate'])}"
    if check["needed"] is None:
        return f"cannot see {rise}: the policy tolerates it"
    return f"{rise} takes {check['needed']:,} requests on the candidate" + _takes(check, stage)


def _takes(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    if check["takes_s"] is None:
        return ""
    fits = "within the soak" if check["takes_s"] <= stage["soak_s"] else f"longer than the soak of {_span(stage['soak_s'])}"
    return f", {spell(check['takes_s'])}: {fits}"


def _gate_lines(plan: Mapping[str, Any]) -> list[str]:
    gates = []
    for freeze in plan["gates"]["freeze"]:
        when = (
            f"cron {freeze['cron']} {freeze['timezone']} for {_span(freeze['for_s'])}"
            if freeze["cron"]
            else f"{freeze['from']} to {freeze['until']}"
        )
        gates.append(f"freeze {when}" + (f" ({freeze['reason']})" if freeze["reason"] else ""))
    if plan["gates"]["approval"]:
        gates.append(f"approval before stage {', '.join(map(str, plan['gates']['approval']))}")
    return [f"gates: {'; '.join(gates) or 'none'}"]


def _back_lines(plan: Mapping[str, Any]) -> list[str]:
    back = plan["way_back"]
    to = back["to"]["name"] if back["to"] else "the version found running"
    rungs = {"restart": "restart what did not take it", "older": "the next older stable version"}
    ladder = "; ".join(["stop exposing the candidate", *(rungs[rung] for rung in back["ladder"])])
    return [
        f"way back: to {to} within {_span(back['within_s'])}: {ladder}; then a relapse watch of {_span(back['relapse_watch_s'])}",
        f"batch: at most {back['batch']} of {plan['instances']} instances out of service at a time",
        f"lease: an instance goes back by itself when no guard has spoken for {_span(back['lease_s'])}",
        f"after promotion: the way back stays armed for {_span(plan['watch_s'])}",
    ]
