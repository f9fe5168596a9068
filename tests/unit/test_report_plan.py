"""The plan before a rollout, and the readable diff that it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployguard.analysis import sights
from deployguard.analysis.enough import needed_at
from deployguard.analysis.planner import Pace
from deployguard.engine.rules import counts_rules
from deployguard.files.shipped import shipped_policy
from deployguard.model.policy import Policy
from deployguard.model.version import Version
from deployguard.report.diff import MOST_BYTES, directory_diff, hidden
from deployguard.report.jsons import dump
from deployguard.report.plan import plan_report
from deployguard.report.plan_text import plan_markdown, plan_text
from deployguard.report.sight import Expected
from tests.properties.world import NEW, OLD

NAMES = {OLD.release: "v1", NEW.release: "v2"}
ERRORS: dict[str, Any] = {"name": "errors", "source": "balancer", "claims": 2, "worse_than_stable": {"floor": "0.1%"}}
SPEC: dict[str, Any] = {
    "stages": [
        {"instances": 1, "soak": "5m"},
        {"exposure": "5%", "soak": "10m"},
        {"exposure": "50%", "soak": "15m"},
        {"exposure": "100%", "soak": "30m"},
    ],
    "checks": [ERRORS],
}


def planned(wanted: int = 20, traffic: float | None = None, rate: float | None = None, **changes: Any) -> dict[str, Any]:
    """The plan of the example policy with some changes."""
    plan = plan_report(Policy.model_validate({**SPEC, **changes}), OLD, NEW, wanted, NAMES, Expected(traffic, rate))
    assert json.loads(dump(plan)) == plan
    return plan


def test_equal_stages_are_shown_as_one_with_their_soaks_added() -> None:
    """Stages that come out equal in instances are merged, and the total soak counts each once."""
    plan = planned()
    assert [(s["numbers"], s["instances"], s["soak_s"]) for s in plan["stages"]] == [
        ([1, 2], 1, 900.0),
        ([3], 10, 900.0),
        ([4], 20, 1800.0),
    ]
    text = plan_text(plan)
    assert "change: v1 -> v2 (release)" in text
    assert "stages 1, 2:  1 of 20 instances for 15m" in text
    assert "total soak: 1h" in text


def test_each_stage_says_what_its_checks_need() -> None:
    """The number of requests is the planner's; with traffic it becomes a time, set against the soak, and the smallest ratio seen."""
    policy = Policy.model_validate(SPEC)
    rules = counts_rules(policy, policy.checks[0])  # type: ignore[arg-type]
    pace = Pace(0.05, 4000.0, 1.0)
    check = planned(traffic=4000, rate=0.001)["stages"][0]["checks"][0]
    needed = needed_at(rules, pace, 0.001)
    assert check["needed"] == pytest.approx(needed, abs=1)
    assert check["takes_s"] == pytest.approx(needed / 200, rel=1e-3)
    assert (check["sees"], check["from_rate"]) == (True, 0.001)
    ratio = check["sees_ratio"]
    assert 1.25 < ratio < 2
    assert sights.counts_chance(rules, pace, 0.001, ratio * 0.001 + 0.0002, 4000 * 900) == pytest.approx(0.9, abs=0.01)
    slow = planned(traffic=4, rate=0.001)
    assert (slow["stages"][0]["checks"][0]["sees"], slow["sees_enough"]) == (False, False)
    assert "longer than the soak of 15m" in plan_text(slow)
    assert "warning: not every stage" in plan_text(slow)
    assert "is refused" in plan_text(planned(traffic=4, rate=0.001, strict=True))


def test_what_would_show_more_is_said_in_numbers_of_the_policy() -> None:
    """A stage that is blind names the exposure, soak, probe or claim that would do, and each of them, applied, does."""
    errors = {**ERRORS, "claims": 4}
    short = [{"exposure": "5%", "soak": "10m"}, {"exposure": "100%", "soak": "10m"}]
    spec: dict[str, Any] = {"checks": [errors], "stages": short, "pass": "soak"}
    blind = planned(traffic=100, rate=0.002, **spec)
    (wider, longer, probe, less) = blind["stages"][0]["advice"]
    assert [one["change"] for one in blind["stages"][0]["advice"]] == ["exposure", "soak", "probe", "claims"]
    text = plan_text(blind)
    assert f"exposure {wider['exposure']:.0%} instead of 5%: x{wider['sees_ratio']:g} instead of x" in text
    assert "instead of 10m; or" in text
    assert "more requests/s on each arm by a probe (every: " in text
    walk = {"name": "login", "source": "probe", "every": f"{int(probe['every_s'] * 1000)}ms", "steps": [{"get": "/"}]}
    for change in (
        {"stages": [{"exposure": wider["exposure"], "soak": "10m"}, short[1]]},
        {"stages": [{"exposure": "5%", "soak": f"{int(longer['soak_s']) + 1}s"}, short[1]]},
        {"checks": [errors, walk]},
        {"checks": [{**errors, "claims": less["claims"]}]},
    ):
        assert planned(traffic=100, rate=0.002, **{**spec, **change})["stages"][0]["checks"][0]["sees"] is True


def test_a_stage_that_cannot_prove_is_said_to_hold_and_policies_that_fit_are_named() -> None:
    """With `pass: proof` and little traffic even a good candidate is held; the plan says where, and which shipped policy would do."""
    policy = Policy.model_validate(SPEC)
    shipped = {name: shipped_policy(name) for name in ("production", "low-traffic")}

    def fitting(traffic: float, claims: float) -> dict[str, Any]:
        checks = Policy.model_validate({**SPEC, "checks": [{**ERRORS, "claims": claims}]})
        return plan_report(checks, OLD, NEW, 4, NAMES, Expected(traffic, 0.001), shipped=shipped)

    little = fitting(1.0, 10)
    assert little["passes"] is False
    assert "also a good candidate is held there" in plan_text(little)
    assert {p["name"]: p["passes"] for p in little["policies"]} == {"production": False, "low-traffic": True}
    assert "shipped policies that fit this traffic: low-traffic (" in plan_text(little)
    much = plan_report(policy, OLD, NEW, 20, NAMES, Expected(20_000, 0.001), shipped=shipped)
    assert much["passes"] is True
    assert {p["name"]: p["sees_enough"] for p in much["policies"]} == {"production": True, "low-traffic": True}


def test_latency_and_gauges_say_what_they_see() -> None:
    """A histogram names the growth of the slowest 5% and 1%, a gauge the blocks it takes; markdown shows the same."""
    checks = [
        {"name": "latency", "source": "scrape", "histogram": "h_seconds"},
        {"name": "memory", "source": "scrape", "gauge": "m_bytes"},
    ]
    plan = planned(traffic=400, checks=checks, rate=0.001)
    latency, memory = plan["stages"][1]["checks"]
    assert [t["tail"] for t in latency["tails"]] == [0.05, 0.01]
    assert 1.25 < latency["tails"][0]["ratio"] < latency["tails"][1]["ratio"] < 4
    assert (memory["blocks"], memory["takes_s"]) == (9, 30 + 1 + 9 * 15)
    assert "in 9 blocks of 15 s in a row" in plan_text(plan)
    assert "| latency | claims x2: a slowest 5% that became 10%" in plan_markdown(plan).replace("\\", "")
    assert "nothing to do" in plan_markdown({**plan, "unchanged": True})


def test_unknown_traffic_gives_no_time_and_no_promise() -> None:
    """Without traffic nothing is said about how long it takes, and the assumed error rate is marked."""
    plan = planned()
    assert (plan["sees_enough"], plan["stages"][0]["checks"][0]["takes_s"], plan["error_rate_assumed"]) == (None, None, True)
    assert "(assumed)" in plan_text(plan)
    assert "hint: say how many requests" in plan_text(plan)
    assert plan["passes"] is None


def test_the_last_stage_has_nothing_to_compare_with() -> None:
    """At full exposure, and with a single instance, a comparison sees nothing and the plan says so."""
    assert "no stable instance is left" in plan_text(planned(traffic=4000))
    assert planned(traffic=4000, rate=0.001)["sees_enough"] is True
    assert planned(wanted=1, traffic=4000)["sees_enough"] is False


def test_other_checks_say_what_they_see() -> None:
    """A limit, a probe, and no check at all each have their own words."""
    limit = {"name": "slow", "source": "balancer", "worse_than_stable": None, "limit": "5%"}
    probe = {"name": "login", "source": "probe", "steps": [{"get": "/"}]}
    text = plan_text(planned(checks=[limit, probe], traffic=100))
    assert "slow: a rate of twice the limit 5% takes" in text
    assert "login: three red walks in a row" in text
    assert "only instances that cannot live" in plan_text(planned(checks=[]))
    both = {**ERRORS, "limit": "5%"}
    assert "the limit 5% still counts" in plan_text(planned(checks=[both]))
    blunt = {"name": "errors", "source": "balancer", "claims": 2, "worse_than_stable": {"ratio": 3}}
    assert "the policy tolerates it" in plan_text(planned(checks=[blunt]))


def test_gates_and_the_way_back_are_named() -> None:
    """Freezes, approvals, the target of the way back, the batch and the lease are in the plan."""
    gates = {
        "freeze": [
            {"cron": "0 18 * * FRI", "for": "62h", "reason": "weekend"},
            {"from": "2026-12-24T00:00:00+00:00", "until": "2026-12-27T00:00:00+00:00"},
        ],
        "approval": [3],
    }
    text = plan_text(planned(gates=gates))
    for part in (
        "freeze cron 0 18 * * FRI UTC for 2d14h (weekend)",
        "2026-12-24T00:00:00Z to",
        "approval before stage 3",
        "after approval of stage 3",
        "way back: to v1 within 2m: stop exposing the candidate; restart what did not take it",
        "batch: at most 5 of 20",
        "lease: ",
    ):
        assert part in text
    assert "gates: none" in plan_text(planned())


def test_a_plan_for_what_is_stable_already_is_one_line() -> None:
    """There is nothing to do when the candidate is stable; without a stable version the plan says that too."""
    policy = Policy.model_validate(SPEC)
    assert plan_text(plan_report(policy, OLD, OLD, 4, NAMES)) == "nothing to do: v1 is stable already\n"
    assert "nothing known to be stable -> v2" in plan_text(plan_report(policy, None, NEW, 4, NAMES))
    both = Version(NEW.release, "sha256:" + "c" * 64)
    assert plan_report(policy, OLD, both, 4, {**NAMES, both.config: "b"})["candidate"]["name"] == "v2 + b"


def written(root: Path, files: dict[str, bytes]) -> Path:
    """A directory with these files."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_diff_shows_text_and_names_the_rest(tmp_path: Path) -> None:
    """Text is shown line by line, binary and large files by name, equal files not at all."""
    large = b"x" * MOST_BYTES
    old = written(
        tmp_path / "a", {"db.yaml": b"pool: 20\nhost: db\n", "same": b"1", "gone": b"bye\n", "bin": b"\0\1", "big": large + b"yy"}
    )
    new = written(
        tmp_path / "b", {"db.yaml": b"pool: 200\nhost: db\n", "same": b"1", "sub/new": b"hi\n", "bin": b"\0\2", "big": large + b"zz"}
    )
    lines = directory_diff(old, new)
    assert [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")] == ["-pool: 20", "+pool: 200", "-bye", "+hi"]
    assert "changed: bin (2 -> 2 bytes)" in lines
    assert any(line.startswith("changed: big") for line in lines)
    assert not any("same" in line for line in lines)
    assert directory_diff(old, old) == directory_diff(None, tmp_path / "absent") == []
    assert "+++ b/same" in directory_diff(None, old)


def test_a_diff_has_an_end(tmp_path: Path) -> None:
    """No more than the limit is shown, and how much was left out is said."""
    new = written(tmp_path / "b", {"long": b"line\n" * 1000})
    lines = directory_diff(None, new)
    assert len(lines) == 201
    assert lines[-1] == "... 803 more lines"


def test_links_are_compared_by_where_they_point(tmp_path: Path) -> None:
    """A link is never followed: not out of the directory, and not for ever."""
    old, new = written(tmp_path / "a", {"x": b""}), written(tmp_path / "b", {"x": b""})
    (old / "link").symlink_to("/etc/hosts")
    (new / "link").symlink_to(new)
    lines = directory_diff(old, new)
    assert "-link to /etc/hosts" in lines
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("+db_password: hunter2, or so", "+db_password: <hidden>"),
        ("-API_KEY=abc", "-API_KEY=<hidden>"),
        ('+{"token": "abc", "port": 1}', '+{"token": <hidden>, "port": 1}'),
        ("+url: postgres://me:pw@db/x", "+url: postgres://me:<hidden>@db/x"),
        ("+pool: 200", "+pool: 200"),
    ],
)
def test_secrets_are_hidden(line: str, shown: str) -> None:
    """That a secret changed is shown, its value is not."""
    assert hidden(line) == shown
