"""The rows as Markdown, and what misses its gate, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.decisions.rows import Row

OURS = "deployguard"
ENOUGH_RUNS = 300
HANDFUL = 10.0
"""Where fewer candidate requests than this decide, single requests are what is measured."""

_AS_SHIPPED = (
    "`deployguard` is as shipped (tolerated ratio 1.25 and 0.02 points, floor 0.1 %, late onset, dispersion measured, cap while it is "
    "not known); `ratio 1` tolerates nothing, `bare` is without late onset and cap too. The other rules are written anew from their "
    "descriptions; how each stream is made is in `benchmarks/decisions/`. `-`: in fewer than half of the runs."
)
_ASKED = (
    "Asked: false rollbacks at alpha 1 % with an upper limit of 1 % in the grid, 1.5 % under stress (2 % with clumps); lifts at a "
    "geometric mean of 1.25 times the floor and never above 1.5 without protections, 1.45 and 1.7 as shipped; latency shifts at 2 times "
    "the floor without tolerance; 30 s where the floor is below ten. Limits depend on the number of runs: 1 % needs three thousand."
)
_RATES = "Share of the runs of a good version that were rolled back, with the exact 95 % interval."
TITLES = {
    "grid": ("A/A grid: false rollbacks within an hour", _RATES),
    "stress": ("A/A under stress: false rollbacks within an hour", "5 % of 50 requests a second, 0.3 % of them bad in both arms."),
    "requests": (
        "Detection in requests",
        "Median requests of both arms until the rollback, over the floor of the rule's own null in brackets.",
    ),
    "hour": ("Detection in seconds", "Median seconds until the rollback, by polls of ten; in brackets the share of runs when not all."),
    "latency": ("Latency shifts, in requests", "As above; the floor is that of the whole distributions, whatever the tolerance."),
    "latency-null": ("Latency A/A: false rollbacks within an hour", _RATES),
    "real": ("Recorded data", "Share of the slices that were rolled back; for faults also the median seconds."),
}


def document(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """The whole page."""
    head = [
        "# Decisions: deployguard beside other rules on the same streams",
        "",
        _written(about),
        "",
        _AS_SHIPPED,
        "",
    ]
    families = [family for family in TITLES if any(row.family == family for row in rows)]
    return "\n".join([*head, *(section(family, rows) for family in families), gates(rows)])


def _written(about: dict[str, Any]) -> str:
    """With what the page was made."""
    return (
        f"Written by `{about['command']}` in {about['seconds']} s: deployguard {about['version']}, settings {about['settings']}, "
        f"seed {about['seed']}, Python {about['python']} on {about['system']}{_without(about)}."
    )


def _without(about: dict[str, Any]) -> str:
    quick = "; **quick mode: few runs, wide intervals**" if about["quick"] else ""
    return quick if about["recorded_data"] else f"; **without the recorded data**{quick}"


def section(family: str, rows: Sequence[Row]) -> str:
    """One table: a line for each stream, a column for each rule."""
    mine = [row for row in rows if row.family == family]
    rules, names = _once(row.rule for row in mine), _once(row.stream for row in mine)
    at = {(row.stream, row.rule): row for row in mine}
    cell: Callable[[Row], str] = {"requests": _in_requests, "latency": _in_requests, "hour": _in_seconds}.get(family, _rate)
    title, what = TITLES[family]
    runs = ", ".join(f"{rule}: {_range([row.n for row in mine if row.rule == rule])}" for rule in rules)
    lines = [f"## {title}", "", what, f"Runs: {runs}.", "", "| stream | " + " | ".join(rules) + " |", "|---" * (len(rules) + 1) + "|"]
    for name in names:
        shown = [cell(at[name, rule]) if (name, rule) in at else "" for rule in rules]
        lines.append(f"| {name.removesuffix(', in requests').removeprefix('stress: ')} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, ""])


def _once(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _range(values: Sequence[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)}-{max(values)}"


def _rate(row: Row) -> str:
    shown = f"{_percent(row.rate)} ({_percent(row.rate_low)}-{_percent(row.rate_high)})"
    return shown if row.null or row.median_s is None else f"{shown}, {row.median_s:.0f} s"


def _percent(rate: float) -> str:
    return f"{100 * rate:.2g} %" if rate < 0.0995 else f"{100 * rate:.0f} %"


def _in_requests(row: Row) -> str:
    if row.median_requests is None:
        return "-"
    ratio = f" ({row.ratio:.2f})" if row.ratio is not None else ""
    return f"{row.median_requests:,.0f}{ratio}"


def _in_seconds(row: Row) -> str:
    if row.median_s is None:
        return f"- ({_percent(row.rate)})"
    return f"{row.median_s:.0f}" + (f" ({_percent(row.rate)})" if row.rate < 1 else "")


def missed(rows: Sequence[Row]) -> list[str]:
    """Each cell of deployguard's that misses what is asked of it, in words."""
    found = [f"{row.stream}, {row.rule}: {why}" for row in rows if row.rule.startswith(OURS) and (why := _why(row))]
    for rule, most in ((OURS, 1.45), (f"{OURS}, ratio 1, bare", 1.25)):
        mean = mean_ratio(rows, rule)
        if mean is not None and mean > most:
            found.append(f"geometric mean over the lifts, {rule}: {mean:.2f} times the floor, more than {most}")
    return found


def _why(row: Row) -> str:
    if row.null:
        if unsure(row):
            return ""
        most, bound = most_false(row), row.rate if row.family == "real" else row.rate_high
        return f"false rollbacks {_rate(row)}, more than {_percent(most)}" if bound > most else ""
    if row.family == "requests" and row.rule != f"{OURS}, ratio 1":
        most = 1.5 if row.rule.endswith("bare") else 1.7
        if handful(row):
            return ""
        return f"{_in_requests(row)}, more than {most} times the floor" if row.ratio is None or row.ratio > most else ""
    if row.family == "latency" and row.rule.endswith("bare") and "14" in row.stream and "5% of requests" not in row.stream:
        return f"{_in_requests(row)}, more than 2 times the floor" if row.ratio is None or row.ratio > 2 else ""
    if row.family == "hour" and row.floor_requests is not None:
        floor = row.floor_requests / float(row.about["rps"] or 1)
        return (
            f"{_in_seconds(row)} s, more than 30 where the floor is {floor:.1f} s" if floor < 10 and (row.median_s or math.inf) > 30 else ""
        )
    return ""


def most_false(row: Row) -> float:
    """The rate of false rollbacks that is asked of deployguard on a stream."""
    if row.family != "stress":
        return 0.01
    return 0.02 if "clumps" in row.stream else 0.015


def unsure(row: Row) -> bool:
    """Whether a good version was played too rarely to tell: the limit lies inside the interval."""
    return row.n < ENOUGH_RUNS and row.rate_low <= most_false(row)


def handful(row: Row) -> bool:
    """Whether a handful of the candidate's requests decides."""
    return row.floor_requests is not None and row.floor_requests * float(row.about["w"] or 0) < HANDFUL


def mean_ratio(rows: Sequence[Row], rule: str) -> float | None:
    """Geometric mean of requests over the floor, over the lifts that more than a handful of requests decide."""
    mine = [row for row in rows if row.family == "requests" and row.rule == rule and row.floor_requests is not None and not handful(row)]
    if not mine or any(row.ratio is None for row in mine):
        return None
    return math.exp(sum(math.log(row.ratio or 1) for row in mine) / len(mine))


def gates(rows: Sequence[Row]) -> str:
    """What is asked of deployguard, and the cells that miss it."""
    found = missed(rows)
    few = sum(row.null and row.rule.startswith(OURS) and unsure(row) for row in rows)
    if few:
        found = [*found, f"{few} rows of good versions have too few runs to tell"]
    means = [f"{rule}: {mean:.2f}" for rule in _once(row.rule for row in rows) if (mean := mean_ratio(rows, rule)) is not None]
    lines = ["## What misses", "", _ASKED, "", *(["Geometric mean over the floor: " + ", ".join(means) + ".", ""] if means else [])]
    return "\n".join([*lines, *(f"- {line}" for line in found or ["nothing"]), ""])


def summary(rows: Sequence[Row]) -> str:
    """For the terminal: what misses."""
    found = missed(rows)
    return "\n".join(
        [
            "every gate is met where there are enough runs to tell" if not found else f"{len(found)} cells miss their gate:",
            *(f"  {line}" for line in found),
        ]
    )
