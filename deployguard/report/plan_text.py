"""The plan for people, as text and as Markdown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from deployguard.model.units import format_duration, format_share
from deployguard.report.instants import spell
from deployguard.report.markdown import markdown_table, markdown_text
from deployguard.report.table import plain, table


def plan_text(plan: Mapping[str, Any]) -> str:
    """The plan for people; ends with a newline."""
    stable = plan["stable"]["name"] if plan["stable"] else "nothing known to be stable"
    if plan["unchanged"]:
        return f"nothing to do: {stable} is stable already\n"
    lines = [f"change: {stable} -> {plan['candidate']['name']} ({' and '.join(plan['changes'])})"]
    lines += [f"  {line}" for line in plan["diff"]]
    lines += ["", "stages:", *_stage_lines(plan)]
    lines.append(f"total soak: {_span(plan['total_soak_s'])}, at most {_span(plan['longest_soak_s'])} while samples are too few")
    lines += ["", *sight_lines(plan), "", *_gate_lines(plan), *_back_lines(plan)]
    return "\n".join(map(plain, lines)) + "\n"


def plan_markdown(plan: Mapping[str, Any]) -> str:
    """The plan for the summary page of a CI job; ends with a newline."""
    stable = plan["stable"]["name"] if plan["stable"] else "nothing known to be stable"
    if plan["unchanged"]:
        return f"### plan: nothing to do\n\n{markdown_text(stable)} is stable already\n"
    parts = [f"### plan: {markdown_text(stable)} to {markdown_text(plan['candidate']['name'])}", markdown_text(_known(plan))]
    rows = [["Stage", "Instances", "Soak", "Check", "Sees"]]
    for stage in plan["stages"]:
        numbers, of = ", ".join(map(str, stage["numbers"])), _size(plan, stage).removesuffix(" instances")
        rows += [[numbers, of, _span(stage["soak_s"]), name, words] for name, words in _seen(stage)]
    parts.append(markdown_table(rows))
    notes = [*_advice_lines(plan), *_warnings(plan), *_policy_lines(plan), *_gate_lines(plan), *_back_lines(plan)]
    parts.append("\n".join(f"- {markdown_text(line.strip())}" for line in notes))
    return "\n\n".join(parts) + "\n"


def _span(seconds: float) -> str:
    return format_duration(dt.timedelta(seconds=seconds))


def _times(ratio: float) -> str:
    return f"x{ratio:g}"


def _size(plan: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    """How many instances run the candidate; by surge they come on top until the workload itself does."""
    between = "beside" if plan["surge"] and not stage["full"] else "of"
    return f"{stage['instances']} {between} {plan['instances']} instances"


def _label(stage: Mapping[str, Any]) -> str:
    numbers = ", ".join(map(str, stage["numbers"]))
    return f"stage {numbers}:" if len(stage["numbers"]) == 1 else f"stages {numbers}:"


def _stage_lines(plan: Mapping[str, Any]) -> list[str]:
    rows = []
    for stage in plan["stages"]:
        extra = f"; after approval of stage {', '.join(map(str, stage['approval']))}" if stage["approval"] else ""
        rows.append([_label(stage), f"{_size(plan, stage)} for {_span(stage['soak_s'])}{extra}"])
    return table(rows, indent="  ")


def _known(plan: Mapping[str, Any]) -> str:
    """What the plan rests on: traffic and rates, and where they come from."""
    known, sources = plan["traffic_rps"] is not None, plan["sources"]
    traffic = f"{plan['traffic_rps']:.4g} requests/s" if known else "unknown traffic"
    rates = {format_share(round(rate, 6)) for rate in plan["error_rates"].values()}
    if not rates or not plan["error_rate_assumed"]:
        rates = {format_share(round(plan["error_rate"], 6))}
    assumed = " (assumed)" if plan["error_rate_assumed"] and not plan["error_rates"] else ""
    told = [f" ({sources[name]})" if name in sources else "" for name in ("traffic", "rates")]
    text = f"what each stage can see, with {traffic}{told[0]} and {' / '.join(sorted(rates))}{assumed or told[1]} bad on stable"
    return f"{text}, with {format_share(round(plan['power'], 6))} power:"


def sight_lines(plan: Mapping[str, Any]) -> list[str]:
    """What each stage can see, what would let it see more, warnings, and which shipped policies fit."""
    rows = [[_label(stage), f"{name}: {words}" if name else words] for stage in plan["stages"] for name, words in _seen(stage)]
    lines = [_known(plan), *table(rows, indent="  "), *_advice_lines(plan), *_warnings(plan), *_policy_lines(plan)]
    if plan["traffic_rps"] is None:
        lines.append("  hint: say how many requests a second there are (`--traffic`) to see how long each stage needs")
    return lines


def _seen(stage: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and words of every check of a stage."""
    rows = [(check["name"], _sight_words(check, stage)) for check in stage["checks"]]
    for one in stage["journeys"]:
        veto = "rolls back" if one["veto"] else "holds"
        takes = f"within {spell(one['takes_s'])}, {spell(one['longest_s'])} if it hangs"
        rows.append((one["name"], f"three red walks in a row, whatever the traffic: {veto} {takes}"))
    return rows or [("", "only instances that cannot live: the policy has no checks")]


def _sight_words(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    if check["kind"] == "gauge":
        return _gauge_words(check, stage)
    if check["claims"] is None:
        return _limit_words(check, stage)
    if not check["compares"]:
        limit = f"the limit {format_share(check['limit'])} still counts" if check["limit"] is not None else "what was seen before counts on"
        return f"no stable instance is left to compare with; {limit}"
    tail = check["kind"] == "categories"
    rise = (
        f"a slowest 5% that became {format_share(round(0.05 * check['claims'], 6))}"
        if tail
        else f"a rise from {format_share(check['from_rate'])} to {format_share(check['to_rate'])}"
    )
    if check["needed"] is None:
        return f"cannot see {rise}: the policy tolerates it"
    words = f"claims {_times(check['claims'])}: {rise} takes {check['needed']:,} requests on the candidate" + _takes(check, stage)
    return words + _smallest(check, stage)


def _smallest(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    """The smallest regression that the soak shows, in words; nothing when the traffic is unknown."""
    if check["takes_s"] is None:
        return ""
    soak = _span(stage["soak_s"])
    if check["kind"] == "categories":
        seen = [f"{format_share(t['tail'])} {_times(t['ratio'])}" for t in check["tails"] if t["ratio"] is not None]
        return f"; {soak} show a growth of the slowest {', '.join(seen)}" if seen else f"; {soak} show no growth of the tails"
    if check["sees_ratio"] is None:
        return f"; {soak} show not even a total failure"
    rough = ", roughly" if check["rough"] else ""
    return f"; {soak} show {format_share(check['sees_rate'])} ({_times(check['sees_ratio'])}{rough})"


def _limit_words(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    limit = format_share(check["limit"])
    if check["needed"] is None:
        return f"the limit {limit} cannot be exceeded beyond doubt"
    words = f"a rate of twice the limit {limit} takes {check['needed']:,} requests on the candidate" + _takes(check, stage)
    return words + (f"; {_span(stage['soak_s'])} show {format_share(check['sees_limit'])}" if check["sees_limit"] is not None else "")


def _gauge_words(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    if check["takes_s"] is None:
        return "no stable instance is left to compare with; what was seen before counts on"
    what = f"more than tolerated above stable in {check['blocks']} blocks of 15 s in a row" if check["compares"] else "beyond its bound"
    return f"{what}, whatever the traffic: {spell(check['takes_s'])}{_fits(check, stage)}"


def _takes(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    return "" if check["takes_s"] is None else f", {spell(check['takes_s'])}{_fits(check, stage)}"


def _fits(check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    return ": within the soak" if check["takes_s"] <= stage["soak_s"] else f": longer than the soak of {_span(stage['soak_s'])}"


def _advice_lines(plan: Mapping[str, Any]) -> list[str]:
    rows = []
    for stage in plan["stages"]:
        names = dict.fromkeys(one["check"] for one in stage["advice"])
        for name in names:
            check = next(c for c in stage["checks"] if c["name"] == name)
            ways = [_way(one, check, stage) for one in stage["advice"] if one["check"] == name]
            rows.append([_label(stage), f"{name}: {'; or '.join(ways)}"])
    return ["to see what is claimed:", *table(rows, indent="  ")] if rows else []


def _way(one: Mapping[str, Any], check: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    if one["change"] == "exposure":
        share = format_share(round(one["exposure"], 4))
        seen = f": {_times(one['sees_ratio'])}" if one["sees_ratio"] is not None else ""
        instead = f" instead of {_times(check['sees_ratio'])}" if seen and check["sees_ratio"] is not None else ""
        return f"exposure {share} instead of {format_share(round(stage['share'], 4))}{seen}{instead}"
    if one["change"] == "soak":
        return f"soak {_round_up(one['soak_s'])} instead of {_span(stage['soak_s'])}"
    if one["change"] == "probe":
        return f"{one['rps']:g} more requests/s on each arm by a probe (every: {_every(one['every_s'])})"
    return f"claims: {one['claims']:g}"


def _round_up(seconds: float) -> str:
    """A duration as one would write it in a policy: no shorter than asked."""
    for most, step in ((120, 5), (3600, 60), (86400, 300)):
        if seconds <= most:
            return _span(-(-seconds // step) * step)
    return _span(-(-seconds // 3600) * 3600)


def _every(seconds: float) -> str:
    return _span(max(round(seconds * 1000), 1) / 1000)


def _warnings(plan: Mapping[str, Any]) -> list[str]:
    lines = []
    if plan["sees_enough"] is False:
        end = "the rollout is refused, because the policy is `strict`" if plan["strict"] else "a soak is extended while samples are too few"
        lines.append(f"  warning: not every stage can see what its checks claim in its soak; {end}")
    held = [n for stage in plan["stages"] if stage["held"] for n in stage["numbers"]]
    if held:
        asked = "cannot be proven" if plan["pass"] == "proof" else "cannot have been seen"
        where = f"stage{'s' if len(held) > 1 else ''} {', '.join(map(str, held))}"
        lines.append(f"  warning: in {where} what the checks claim {asked} by the longest extension: also a good candidate is held there")
    if any(check["rough"] for stage in plan["stages"] for check in stage["checks"]):
        lines.append("  roughly: a handful of bad requests decides, so the power is near what is stated, not exactly that")
    return lines


def _policy_lines(plan: Mapping[str, Any]) -> list[str]:
    """Which shipped policies would fit."""
    fits = [p for p in plan["policies"] if p["passes"]]
    if not plan["policies"] or all(p["passes"] is None for p in plan["policies"]):
        return []
    names = [f"{p['name']} ({spell(p['takes_s'])} to stable{'' if p['sees_enough'] else ', with longer soaks'})" for p in fits]
    rest = [f"{p['name']} (held in stage {p['held_in'][0]})" for p in plan["policies"] if p["passes"] is False]
    text = f"shipped policies that fit this traffic: {', '.join(names) or 'none'}"
    return [f"{text}; not: {', '.join(rest)}" if rest else text]


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
