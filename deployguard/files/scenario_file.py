"""Scenarios of `policy test`: a policy, what its signals read, what happens, and the transcript that is expected.

Only the text and its meaning are here; the scenarios are run elsewhere.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from deployguard.errors import Fault, FileError
from deployguard.files.bundle import KINDS, Bundle, add_document
from deployguard.files.faults import validate
from deployguard.files.guard_file import find_policy, merged, with_default_check
from deployguard.files.report import fault, file_error
from deployguard.files.scenario_series import CheckSeries, misfit
from deployguard.files.shape import listed, nearest
from deployguard.files.yaml_lines import Document, read_yaml
from deployguard.model.check import Check, Name, same_names
from deployguard.model.fields import ApiVersion, Broken, Duration, Instant, Place, Rule, Written, broken
from deployguard.model.guard import PolicyRef
from deployguard.model.policy import Policy
from deployguard.model.rollout import OutcomeWord
from deployguard.model.units import format_duration, parse_duration

KIND = "PolicyTest"
_LINE = re.compile(r"(\S+)\s+(\S.*)")
_REQUESTS = ("approve", "pause", "resume", "abort", "rollback", "skip-soak", "stop")
_WORDS = (*_REQUESTS, "crash", "crash_stable", "reset", "reset_stable", "never_ready", "guard_gone")


def _line(value: Any) -> Any:
    if isinstance(value, str):
        split_line(value)
    if isinstance(value, dict) and len(value) == 1:
        key = next(iter(value))
        raise ValueError(f"the `: ` after `{key}` makes a map of this line; put the line in quotes")
    return value


ExpectedLine = Annotated[str, BeforeValidator(_line), Field(examples=["7s rolling_back errors"])]


def split_line(text: str) -> tuple[dt.timedelta, str]:
    """Instant and text prefix of an expected line. Raises ValueError that says what would be right."""
    match = _LINE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"`{text}` is not a line of a transcript; write an instant and the beginning of the text, as in `7s rolling_back`")
    return parse_duration(match[1]), match[2]


class Event(Written):
    """Something that happens: exactly one, at an instant of the simulated clock."""

    at: Duration = Field(description="when, counted from the start")
    approve: Literal[True] | None = Field(None, description="a person approves the stage that waits")
    pause: Literal[True] | None = Field(None, description="a person pauses the rollout")
    resume: Literal[True] | None = Field(None, description="a person resumes it")
    abort: Literal[True] | None = Field(None, description="a person aborts it")
    rollback: Literal[True] | None = Field(None, description="a person asks for the stable version")
    skip_soak: Literal[True] | None = Field(None, alias="skip-soak", description="a person ends the soak of the stage")
    stop: Literal[True] | None = Field(None, description="a person stops all promotions")
    crash: Annotated[int, Field(ge=1)] | None = Field(
        None, description="candidate instances that exit by themselves", json_schema_extra={"x-unit": "instances"}
    )
    crash_stable: Annotated[int, Field(ge=1)] | None = Field(
        None, description="stable instances that exit by themselves", json_schema_extra={"x-unit": "instances"}
    )
    reset: Annotated[int, Field(ge=1)] | None = Field(
        None, description="candidate instances whose metrics begin at zero again", json_schema_extra={"x-unit": "instances"}
    )
    reset_stable: Annotated[int, Field(ge=1)] | None = Field(
        None, description="stable instances whose metrics begin at zero again", json_schema_extra={"x-unit": "instances"}
    )
    never_ready: Annotated[int, Field(ge=1)] | None = Field(
        None, description="candidate instances that never become ready", json_schema_extra={"x-unit": "instances"}
    )
    guard_gone: Duration | None = Field(None, description="no guard ticks for this long")

    @model_validator(mode="after")
    def _one(self) -> Event:
        given = [word for word in _WORDS if getattr(self, word.replace("-", "_")) is not None]
        if len(given) != 1:
            found = "nothing happens" if not given else f"{listed(given)} happen at once"
            raise broken(f"{found}; give exactly one of {listed(_WORDS)}", (given[1],) if given else ())
        return self

    @property
    def what(self) -> tuple[str, bool | int | dt.timedelta]:
        """The word of the event, as written, and its value."""
        for word in _WORDS:
            value = getattr(self, word.replace("-", "_"))
            if value is not None:
                return word, value
        raise AssertionError("an event without a word was refused")


class Scenario(Written):
    """One rollout on a simulated clock, and what must come of it."""

    why: str = Field(min_length=1, description="the behaviour it shows, in one sentence")
    policy: PolicyRef = Field("production", description="a shipped policy, a GuardPolicy of the same file, a path, or the policy itself")
    override: dict[str, Any] = Field({}, description="single fields of the policy, replaced for this scenario; maps are merged")
    interval: Duration | None = Field(None, description="how often signals are read; short for `override: {interval: ...}`")
    checks: list[Check] = Field([], description="checks added to the policy's, as in a guard")
    instances: int = Field(20, ge=1, le=500, description="size of the fleet", json_schema_extra={"x-unit": "instances"})
    start: Instant = Field(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), description="what the simulated clock shows at 0s")
    series: dict[Name, CheckSeries] = Field({}, description="what each check reads, by its name; silent after the last value")
    events: list[Event] = Field([], max_length=200, description="what happens, in any order")
    until: Duration | None = Field(None, description="where the simulated clock stops; at the end of the rollout when not given")
    expect: list[ExpectedLine] = Field([], description="the transcript: instant and beginning of the text of each line, in order")
    outcome: OutcomeWord | None = Field(None, description="how the rollout ends")

    @model_validator(mode="after")
    def _makes_sense(self) -> Scenario:
        rules = same_names(self.checks)
        if not self.expect and self.outcome is None:
            rules.append(Rule("nothing is expected; give `expect`, `outcome`, or both", ((),)))
        lines = self.expected
        for index in range(1, len(lines)):
            if lines[index][0] < lines[index - 1][0]:
                text = f"the line is earlier than the one before it ({format_duration(lines[index - 1][0])}); write them in order"
                rules.append(Rule(text, (("expect", index),)))
        if isinstance(self.policy, Policy) and self.override:
            rules.append(Rule("`override` goes with a named policy; change the inline policy itself", (("override",),)))
        if self.interval is not None and "interval" in self.override:
            rules.append(Rule("`interval` is given twice, here and in `override`; keep one of them", (("interval",),)))
        if rules:
            raise Broken(*rules)
        return self

    @property
    def expected(self) -> list[tuple[dt.timedelta, str]]:
        """The transcript as instants and prefixes."""
        return [split_line(line) for line in self.expect]


class ScenarioFile(Scenario):
    """One scenario in a file."""

    apiVersion: ApiVersion = Field("deployguard.dev/v1alpha1", description="the format's version")
    kind: Literal["PolicyTest"] = Field("PolicyTest", description="always PolicyTest")


class ScenarioListFile(Written):
    """Several scenarios in a file."""

    apiVersion: ApiVersion = Field("deployguard.dev/v1alpha1", description="the format's version")
    kind: Literal["PolicyTest"] = Field("PolicyTest", description="always PolicyTest")
    tests: list[Scenario] = Field(min_length=1, max_length=1000, description="the scenarios")


@dataclass(frozen=True, slots=True)
class LoadedScenario:
    """A scenario with the merged policy that it tests, and where it stands."""

    scenario: Scenario
    policy: Policy
    policy_name: str
    path: str
    line: int


def load_scenarios(path: str | Path) -> list[LoadedScenario]:
    """The scenarios of a file, with their policies; policies may stand in the same file. Raises `FileError` with every fault."""
    documents = read_yaml(path)
    bundle = Bundle(paths=(str(path),))
    faults: list[Fault] = []
    found: list[tuple[Scenario, Document, Place]] = []
    for document in documents:
        data = document.data
        if isinstance(data, dict) and isinstance(data.get("kind"), str) and data["kind"] in KINDS:
            faults += add_document(bundle, document)
            continue
        scenarios, wrong = _scenarios(document)
        faults += wrong
        found += scenarios
    loaded = []
    for scenario, document, at in found:
        one, wrong = _resolve(scenario, document, at, bundle)
        faults += wrong
        loaded += [one] if one else []
    if not found and not faults:
        faults = [Fault(0, "", "no scenario stands in this file", "write one with `why`, `policy`, `series` and `expect`")]
    if faults:
        raise file_error(str(path), faults)
    return loaded


def _scenarios(document: Document) -> tuple[list[tuple[Scenario, Document, Place]], list[Fault]]:
    if not isinstance(document.data, dict):
        return [], [Fault(document.line, "", "no map stands here", "write a scenario with `why`, `policy`, `series` and `expect`")]
    if "tests" in document.data:
        several, faults = validate(ScenarioListFile, document)
        return [(test, document, ("tests", index)) for index, test in enumerate(several.tests)] if several else [], faults
    one, faults = validate(ScenarioFile, document)
    return [(one, document, ())] if one else [], faults


def _resolve(scenario: Scenario, document: Document, at: Place, bundle: Bundle) -> tuple[LoadedScenario | None, list[Fault]]:
    try:
        base = find_policy(scenario.policy, document, (*at, "policy"), bundle)
        single = {"interval": (*at, "interval")} if scenario.interval is not None else {}
        policy = with_default_check(merged(base, document, (*at, "override"), (*at, "checks"), single))
    except FileError as error:
        if error.path != document.path:
            raise
        return None, list(error.faults)
    return LoadedScenario(scenario, policy, base.name, document.path, document.line_of((*at, "why"))), _misfits(
        scenario, policy, document, at
    )


def _misfits(scenario: Scenario, policy: Policy, document: Document, at: Place) -> list[Fault]:
    """A fault for each series that no check reads, or that its check cannot read."""
    faults = []
    checks = {check.name: check for check in policy.checks}
    for name, series in scenario.series.items():
        place: Place = (*at, "series", name)
        if name not in checks:
            near = nearest(name, checks)
            right = (f"did you mean `{near}`? " if near else "") + f"the policy's checks are {listed(checks)}"
            faults.append(fault(document, place, f"no check `{name}`", right))
            continue
        for arm, one in series.arms.items():
            if rule := misfit(checks[name], one):
                found, _, right = rule.text.partition("; ")
                faults.append(fault(document, (*place, arm, *rule.places[0]), found, right))
    return faults
