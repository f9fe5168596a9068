"""Scenarios of `policy test`: series in promtool's notation, events, transcripts, and what wrong ones say."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from deployguard.errors import FileError
from deployguard.files.scenario_file import load_scenarios
from deployguard.files.series import expand

WHOLE = """
why: A release that fails one request in five is taken back from one instance
policy: production
interval: 500ms
instances: 20
checks:
  - {name: errors, source: balancer}
  - {name: login, source: probe, steps: [{get: /login}]}
series:
  errors:
    stable:    {total: "45x600", bad: "0x600"}
    candidate: {total: "5x600",  bad: "1x600"}
  login:
    stable: {green: "1x60"}
    candidate: {green: "1x30 0x30"}
events:
  - {at: 30s, approve: true}
  - {at: 40s, crash: 1}
  - {at: 50s, skip-soak: true}
  - {at: 1m, guard_gone: 20s}
until: 10m
expect:
  - 0s advancing stage 1/5
  - 7s rolling_back errors
outcome: rolled_back
"""


def write(folder: Path, text: str) -> Path:
    """A scenario file with this text."""
    path = folder / "scenario.yaml"
    path.write_text(text)
    return path


def test_a_scenario_has_a_policy_series_events_and_a_transcript(tmp_path: Path) -> None:
    """All of it in plain values, with the policy merged."""
    (loaded,) = load_scenarios(write(tmp_path, WHOLE))
    assert (loaded.policy_name, loaded.line, [check.name for check in loaded.policy.checks]) == ("production", 2, ["errors", "login"])
    assert loaded.policy.interval == dt.timedelta(milliseconds=500)
    assert loaded.scenario.expected == [(dt.timedelta(0), "advancing stage 1/5"), (dt.timedelta(seconds=7), "rolling_back errors")]
    assert [event.what for event in loaded.scenario.events] == [
        ("approve", True),
        ("crash", 1),
        ("skip-soak", True),
        ("guard_gone", dt.timedelta(seconds=20)),
    ]
    assert loaded.scenario.start == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_a_file_may_hold_several_scenarios_and_their_policy(tmp_path: Path) -> None:
    """`tests` is a list; a GuardPolicy in the same file is found by name."""
    text = """
kind: GuardPolicy
metadata: {name: own}
spec: {stages: [{exposure: 100%, soak: 7m}]}
---
kind: PolicyTest
tests:
  - {why: One, policy: own, outcome: promoted}
  - {why: Two, policy: own, override: {lease: 1m}, expect: [0s advancing]}
"""
    one, two = load_scenarios(write(tmp_path, text))
    assert (one.policy_name, one.line, two.line, [check.name for check in one.policy.checks]) == ("own", 8, 9, ["errors"])
    assert two.policy.lease == dt.timedelta(minutes=1)


KINDS = """checks:
  - {source: scrape, name: latency, histogram: request_seconds}
  - {source: scrape, name: slow, histogram: request_seconds, within: 1s}
  - {source: scrape, name: codes, classes: ['a_total{c="2"}', 'a_total{c="5"}']}
  - {source: scrape, name: memory, gauge: heap_bytes}
  - {source: scrape, name: routes, bad: b_total, total: a_total, strata: {route: [/login]}}"""
# Each case: the series of a check above, the field, a piece of what was found, a piece of the hint.
SERIES = {
    "no form": ("{memory: {stable: {clumps: 2}}}", "series.memory.stable", "reads nothing", "`total` (and `bad`), or one of `buckets`"),
    "two forms": ("{memory: {stable: {value: 1x5, green: 1x5}}}", "series.memory.stable.green", "both given", "reads one thing"),
    "gauge": ("{memory: {stable: {total: 1x5}}}", "series.memory.stable", "does not fit the check `memory`", "it reads `value`"),
    "histogram": ("{slow: {stable: {value: 1x5}}}", "series.slow.stable", "does not fit the check `slow`", "`buckets`, `total` and `bad`"),
    "bad": ("{memory: {stable: {value: 1x5, bad: 1x5}}}", "series.memory.stable.bad", "`value` has no `bad`", "goes with `total`"),
    "edge": ("{latency: {stable: {buckets: {fast: 1x5, 1s: 1x5}}}}", "series.latency.stable.buckets.fast", "`fast` is not", "`100ms`"),
    "zero edge": ("{latency: {stable: {buckets: {0: 1x5, 1s: 1x5}}}}", "series.latency.stable.buckets.0", "`0` is not", "above 0"),
    "same edge": ("{latency: {stable: {buckets: {1: 1x5, 1s: 1x5}}}}", "series.latency.stable.buckets.1s", "the same bound", "once"),
    "bucket": ("{latency: {stable: {buckets: {1s: 1y5, +Inf: 1x5}}}}", "series.latency.stable.buckets.1s", "`1y5`", "`7x3`"),
    "uneven": (
        "{latency: {stable: {buckets: {1s: 1x5, +Inf: 1x4}}}}",
        "series.latency.stable.buckets.+Inf",
        "5 polls and `1s` 6",
        "as many",
    ),
    "share": ("{latency: {stable: {buckets: {1s: 90%, +Inf: 10%}}}}", "series.latency.stable.buckets.1s", "a share of nothing", "`total`"),
    "mixed": ("{codes: {stable: {total: 9x5, classes: [90%, 1x5]}}}", "series.codes.stable.classes[1]", "`1x5` is a series", "`80%`"),
    "not whole": ("{codes: {stable: {total: 9x5, classes: [90%, 1%]}}}", "series.codes.stable.classes", "make 91%", "make 100%"),
    "classes": ("{codes: {stable: {classes: [9x5, 1x5, 1x5]}}}", "series.codes.stable.classes", "the check `codes` has 2", "one for each"),
    "within": ("{slow: {stable: {buckets: {100ms: 9x5, +Inf: 1x5}}}}", "series.slow.stable.buckets", "before `within`", "or later"),
    "clumps": ("{memory: {stable: {value: 1x5, clumps: 3}}}", "series.memory.stable.clumps", "about bad requests", "`total` and `bad`"),
    "all lost": ("{memory: {stable: {value: 1x5, lost: 100%}}}", "series.memory.stable.lost", "loses everything", "leave the arm out"),
    "stratum": (
        "{routes: {stable: {strata: {/lgin: {total: 1x5}}}}}",
        "series.routes.stable.strata./lgin",
        "no stratum `/lgin`",
        "`/login`, `other`",
    ),
    "uneven strata": (
        "{routes: {stable: {strata: {/login: {total: 1x5}, other: {total: 1x4}}}}}",
        "series.routes.stable.strata.other",
        "5 polls and `/login` 6",
        "as many",
    ),
}
# Each case: the scenario after its `why`, the field, a piece of what was found, a piece of the hint.
WRONG = {
    "unknown field": ("outcom: promoted\noutcome: promoted", "outcom", "unknown field", "did you mean `outcome`?"),
    "outcome": ("outcome: rolled_bak", "outcome", "`rolled_bak` is not known", "did you mean `rolled_back`?"),
    "nothing expected": ("until: 5m", "", "nothing is expected", "`expect`, `outcome`"),
    "policy": ("policy: prodction\noutcome: promoted", "policy", "no policy `prodction`", "did you mean `production`?"),
    "rule": ("interval: 5m\noutcome: promoted", "interval", "shorter than two polls", "at least `10m`"),
    "interval twice": ("interval: 2s\noverride: {interval: 3s}\noutcome: promoted", "interval", "given twice", "keep one"),
    "check": ("series: {erors: {stable: {total: 1x5}}}\noutcome: promoted", "series.erors", "no check `erors`", "did you mean `errors`?"),
    "form": ("series: {errors: {stable: {green: 1x5}}}\noutcome: promoted", "series.errors.stable", "does not fit", "`total` and `bad`"),
    **{word: (f"{KINDS}\nseries: {series}\noutcome: promoted", *rest) for word, (series, *rest) in SERIES.items()},
    "notation": ("series: {errors: {stable: {total: 4y5}}}\noutcome: promoted", "series.errors.stable.total", "`4y5`", "`7x3`"),
    "more bad": (
        "series: {errors: {stable: {total: 1x5, bad: 2x5}}}\noutcome: promoted",
        "series.errors.stable.bad",
        "more than `total`",
        "among all",
    ),
    "lengths": ("series: {errors: {stable: {total: 1x5, bad: 0x4}}}\noutcome: promoted", "series.errors.stable.bad", "5 polls", "as many"),
    "walks": ("series: {x: {stable: {green: 2x5}}}\noutcome: promoted", "series.x.stable.green", "green or red", "1, 0 or `_`"),
    "lost": (
        "series: {errors: {stable: {total: 1x5, lost: 10%}}}\noutcome: promoted",
        "series.errors.stable.lost",
        "about single scrapes",
        "`_` in the series",
    ),
    "no event": ("events: [{at: 5s}]\noutcome: promoted", "events[0]", "nothing happens", "exactly one of `approve`"),
    "two events": (
        "events: [{at: 5s, crash: 1, stop: true}]\noutcome: promoted",
        "events[0].crash",
        "`stop`, `crash` happen at once",
        "exactly one",
    ),
    "line": ("expect: [rolling_back]", "expect[0]", "is not a line of a transcript", "`7s rolling_back`"),
    "no quotes": ("expect: [{7s rolling_back latency: slower}]", "expect[0]", "makes a map of this line", "in quotes"),
    "order": ("expect: [7s a, 5s b]", "expect[1]", "earlier than the one before it (7s)", "in order"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_scenario_names_its_place(case: str, tmp_path: Path) -> None:
    """The same in a list: the field begins with the number of the test."""
    body, field, found, right = WRONG[case]
    inner = "".join(f"    {line}\n" for line in body.split("\n"))
    for text, prefix in ((f"why: x\n{body}\n", ""), (f"tests:\n  - why: x\n{inner}", "tests[0]")):
        with pytest.raises(FileError) as caught:
            load_scenarios(write(tmp_path, text))
        fault = caught.value.faults[0]
        assert fault.field == (f"{prefix}.{field}" if prefix and field else prefix or field)
        assert fault.line > 0
        assert found in fault.found
        assert right in fault.right


FORMS = [
    ("latency: {stable: {buckets: {+Inf: 1x2, 0.1: 8x2, 250ms: 2 0 1}}}", (0.1, 0.25), [[8, 8, 8], [2, 0, 1], [1, 1, 1]]),
    ("latency: {stable: {total: 10 20 _, buckets: {100ms: 90%, 1s: 10%}}}", (0.1, 1.0), [[9, 18, None], [1, 2, None], [0, 0, None]]),
    ("codes: {stable: {classes: [9x1, 1+1x1]}}", (), [[9, 9], [1, 2]]),
    ("codes: {stable: {total: 10x1, classes: [75%, 25%]}}", (), [[7.5, 7.5], [2.5, 2.5]]),
    ("memory: {stable: {value: 1e9 -2}}", (), [[1e9, -2]]),
    ("slow: {stable: {total: 5x1, bad: 0 1}}", (), [[0, 1], [5, 5]]),
]


@pytest.mark.parametrize(("series", "edges", "columns"), FORMS)
def test_each_kind_of_check_has_a_form_of_series(series: str, edges: tuple[float, ...], columns: list[object], tmp_path: Path) -> None:
    """Buckets in rising order with the requests beyond the last bound at the end; shares of a total; classes; gauges; counts."""
    (loaded,) = load_scenarios(write(tmp_path, f"why: x\n{KINDS}\nseries: {{{series}}}\noutcome: promoted"))
    arm = next(iter(loaded.scenario.series.values())).arms["stable"]
    assert arm.edges == edges
    assert [list(column) for column in arm.parts[""]] == columns
    assert arm.polls == len(arm.parts[""][0])


def test_strata_are_written_one_by_one(tmp_path: Path) -> None:
    """Those that the check names, and the rest."""
    series = "routes: {stable: {strata: {/login: {total: 5x1, bad: 0 1}, other: {total: 9x1}}}}"
    (loaded,) = load_scenarios(write(tmp_path, f"why: x\n{KINDS}\nseries: {{{series}}}\noutcome: promoted"))
    assert loaded.scenario.series["routes"].arms["stable"].parts == {"/login": ([0, 1], [5, 5]), "other": ([0, 0], [9, 9])}


def test_a_file_without_a_scenario_says_so(tmp_path: Path) -> None:
    """Policies alone are nothing to test."""
    with pytest.raises(FileError, match="no scenario stands in this file"):
        load_scenarios(write(tmp_path, ""))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", [7]),
        ("7x3", [7, 7, 7, 7]),
        ("1+2x3", [1, 3, 5, 7]),
        ("9-3x3", [9, 6, 3, 0]),
        ("_ 0.5 _x2 stale", [None, 0.5, None, None, None]),
        ("0x1 1x0", [0, 0, 1]),
        ("(0x1 5)x1 7", [0, 0, 5, 0, 0, 5, 7]),
        ("2e1 2.5e-1x1", [20, 0.25, 0.25]),
    ],
)
def test_series_expand_as_in_promtool(text: str, values: list[float | None]) -> None:
    """`7x3` is the first value and three more."""
    assert expand(text) == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the series is empty"),
        ("4y5", "not in promtool's notation"),
        ("-1x5", "falls below 0"),
        ("(1 2", "not in promtool's notation"),
        ("(1 2)", "not in promtool's notation"),
        ("()x3", "the series is empty"),
        ("(1x9)x99999", "longer than 100,000 polls"),
        ("1+2", "not in promtool's notation"),
        ("1-1x5", "falls below 0"),
        ("1x999999", "longer than 100,000 polls"),
        ("1x90000 1x90000", "longer than 100,000 polls"),
    ],
)
def test_a_wrong_series_says_what_would_be_right(text: str, says: str) -> None:
    """Before it takes memory."""
    with pytest.raises(ValueError, match=r"series|notation|below|longer") as caught:
        expand(text)
    assert says in str(caught.value)
