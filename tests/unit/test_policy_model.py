"""The policy and its parts: what a stage allows, which rules hold, and how a policy is printed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployguard.files.faults import validate
from deployguard.files.shipped import shipped_names, shipped_policy
from deployguard.files.write import to_yaml
from deployguard.files.yaml_lines import parse_yaml
from deployguard.model.check import BalancerCheck, ProbeCheck, ScrapeCheck, Step, Worse
from deployguard.model.fleet import Fleet
from deployguard.model.policy import Blind, Freeze, Gates, Policy, PolicyFile, Protect, Rollback, Stage


def policy(**fields: Any) -> Policy:
    """A policy of one stage with these fields."""
    return Policy.model_validate({"stages": [{"exposure": "100%", "soak": "5m"}], **fields})


def read_back(text: str) -> Policy:
    """The policy that a printed text loads to."""
    (document,) = parse_yaml(text, "printed")
    value, faults = validate(PolicyFile, document)
    assert faults == []
    assert value is not None
    return value.spec


@pytest.mark.parametrize(
    ("stage", "wanted", "allowed"),
    [
        ({"exposure": "5%"}, 20, 1),
        ({"exposure": "5%"}, 3, 1),
        ({"exposure": "25%"}, 20, 5),
        ({"exposure": "29%"}, 100, 29),
        ({"exposure": "50%"}, 3, 1),
        ({"exposure": "100%"}, 7, 7),
        ({"instances": 4}, 20, 4),
        ({"instances": 4}, 3, 3),
    ],
)
def test_a_stage_allows_at_least_one_instance_and_never_more_than_its_cap(stage: dict[str, Any], wanted: int, allowed: int) -> None:
    """max(1, floor(share x N)), without the error of binary fractions."""
    assert Stage.model_validate({**stage, "soak": "5m"}).allowed(wanted) == allowed


def test_a_soak_is_extended_by_four_times_its_length_when_nothing_is_said() -> None:
    """`limit` says otherwise."""
    assert Stage(instances=1, soak=dt.timedelta(minutes=5)).longest == dt.timedelta(minutes=20)
    assert Stage(instances=1, soak=dt.timedelta(minutes=5), limit=dt.timedelta(minutes=6)).longest == dt.timedelta(minutes=6)


def test_silence_may_be_counted_in_polls_or_in_time() -> None:
    """`2 intervals` follows the interval, `7s` does not."""
    assert policy(interval="3s").hold_after == dt.timedelta(seconds=6)
    assert policy(interval="3s", blind={"hold_after": "7s"}).hold_after == dt.timedelta(seconds=7)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"confidence": "40%"}, "`confidence` is outside"),
        ({"confidence": "100%"}, "`confidence` is outside"),
        ({"interval": "50ms"}, "`interval` is 50ms; write at least `100ms`"),
        ({"lease": "1s"}, "`lease` is shorter than two polls"),
        ({"gates": {"approval": [2]}}, "there is no stage 2; the policy has 1"),
        ({"stages": []}, "at least 1 item"),
        ({"stages": [{"exposure": "9%", "soak": "5m"}, {"instances": 9, "soak": "5m"}]}, "may shrink"),
        ({"stages": [{"instances": 2, "soak": "5m"}, {"instances": 1, "soak": "5m"}]}, "stages never shrink"),
        ({"stages": [{"soak": "5m"}]}, "the stage has no cap"),
        ({"stages": [{"instances": 1, "soak": "1s"}]}, "shorter than two polls"),
        ({"checks": [{"name": "a", "source": "balancer"}] * 2}, "`a` is taken by check 1"),
    ],
)
def test_a_rule_that_does_not_hold_says_which(fields: dict[str, Any], says: str) -> None:
    """The rules between the fields of a policy."""
    with pytest.raises(ValidationError) as caught:
        policy(**fields)
    assert says in str(caught.value)


def test_all_broken_rules_of_a_policy_come_together() -> None:
    """Three rules, one error, three places."""
    with pytest.raises(ValidationError) as caught:
        policy(interval="1s", lease="1s", confidence="10%", stages=[{"exposure": 1.0, "soak": "1s"}])
    (error,) = caught.value.errors()
    assert [rule.places[0] for rule in error["ctx"]["error"].rules] == [("stages", 0, "soak"), ("confidence",), ("lease",)]


@pytest.mark.parametrize(
    ("freeze", "says"),
    [
        ({"cron": "0 18 * * FRI"}, "has `cron` and `for`"),
        ({"cron": "99 * * * *", "for": "1h"}, "is not a cron expression"),
        ({"cron": "0 18 * * FRI", "for": "1h", "timezone": "Europe/Atlantis"}, "is not a time zone"),
        ({"from": "2026-12-24T00:00:00Z"}, "the window is not complete"),
        ({"from": "2026-12-24T00:00:00", "until": "2026-12-25T00:00:00Z"}, "`from` has no UTC offset"),
        ({"from": "2026-12-25T00:00:00Z", "until": "2026-12-24T00:00:00Z"}, "`until` is not after `from`"),
        ({"from": 5, "until": "2026-12-24T00:00:00Z"}, "`5` is not an instant"),
    ],
)
def test_a_freeze_is_a_recurring_or_a_single_window(freeze: dict[str, Any], says: str) -> None:
    """Anything between the two is refused, and so is a time without an offset."""
    with pytest.raises(ValidationError) as caught:
        Freeze.model_validate(freeze)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({}, "requests nothing"),
        ({"get": "/", "post": "/"}, "this is 2"),
        ({"post": "/", "form": {}, "json": {}}, "a request has one body"),
    ],
)
def test_a_step_is_one_request_with_one_body(step: dict[str, Any], says: str) -> None:
    """Which one is never guessed."""
    with pytest.raises(ValidationError) as caught:
        Step.model_validate(step)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("fleet", "says"),
    [
        ({"command": ["x", "{prot}"]}, "`{prot}` is not a placeholder; there are `{port}`"),
        ({"env": {"A": "{x}"}}, "`{x}` is not a placeholder"),
        ({"ports": "9000-9001"}, "does not hold 3 ports"),
        ({"ports": "65530-65599"}, "does not hold 3 ports"),
        ({"reload": {}}, "`reload` needs `loaded.config`"),
    ],
)
def test_a_fleet_that_cannot_run_is_refused(fleet: dict[str, Any], says: str) -> None:
    """Before a process is started."""
    with pytest.raises(ValidationError) as caught:
        Fleet.model_validate({"instances": 3, "command": ["x"], **fleet})
    assert says in str(caught.value)


@pytest.mark.parametrize("name", shipped_names())
def test_a_printed_shipped_policy_loads_back_equal(name: str) -> None:
    """`policy show` prints what `policy validate` reads."""
    assert read_back(to_yaml(shipped_policy(name), name)) == shipped_policy(name)


durations = st.integers(min_value=2000, max_value=10**9).map(lambda ms: dt.timedelta(milliseconds=ms))
shares = st.floats(min_value=1e-6, max_value=1)
words = st.sampled_from(
    ["x", "on", "yes", "5", "1e3", "5:30", "null", "", "~", "0x1", " a", "a: b", "# no", "'q\"", "é", "- a", "<<", ".nan", "*a", "{a}"]
)
worse = st.none() | st.builds(Worse, ratio=st.floats(min_value=1, max_value=100), margin=shares, floor=shares)
checks = st.one_of(
    st.builds(BalancerCheck, name=st.just("a"), worse_than_stable=worse, limit=shares, claims=st.floats(min_value=1.001, max_value=1000)),
    st.builds(ScrapeCheck, name=st.just("a"), worse_than_stable=worse, limit=shares, bad=st.just('up{a=~"5.."}'), total=st.just("up")),
    st.builds(
        ProbeCheck,
        name=st.just("a"),
        every=durations,
        steps=st.lists(
            st.builds(lambda url, body: Step.model_validate({"post": url, "json": body, "headers": {url: url}}), words, words),
            min_size=1,
            max_size=2,
        ),
    ),
)
freezes = st.builds(
    lambda reason, length: Freeze.model_validate({"cron": "0 18 * * FRI", "for": length, "reason": reason}), words, durations
) | st.just(Freeze.model_validate({"from": "2026-12-24T00:00:00+01:00", "until": "2026-12-25T00:00:00Z"}))
policies = st.builds(
    lambda **fields: Policy.model_validate(fields),
    stages=st.lists(st.builds(Stage, exposure=st.just(1.0), soak=durations), min_size=1, max_size=3),
    confidence=st.floats(min_value=0.5, max_value=0.9999999),
    checks=st.lists(checks, max_size=1),
    lease=durations,
    blind=st.builds(Blind, hold_after=durations | st.integers(min_value=1, max_value=99)),
    rollback=st.builds(Rollback, batch=shares, ladder=st.sampled_from([[], ["restart"], ["restart", "older"]])),
    gates=st.builds(Gates, freeze=st.lists(freezes, max_size=2), approval=st.sampled_from([[], [1]])),
    protect=st.builds(Protect, block_cap=st.none() | st.floats(min_value=1.5, max_value=1e6)),
    strict=st.booleans(),
)


@given(policies)
def test_any_printed_policy_loads_back_equal(value: Policy) -> None:
    """Shares to the last digit, durations to the millisecond, nulls that switch something off, text that looks like a number."""
    assert read_back(to_yaml(value)) == value
