"""The run report: outcomes, times, counts and checks of simulated rollouts, and the schema that they keep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
import yaml

from deployguard.engine.stages import planned
from deployguard.model.document import Document, StableVersion
from deployguard.model.policy import Policy
from deployguard.model.rollout import (
    BackWord,
    Failed,
    HoldWord,
    Promoted,
    Refused,
    RolledBack,
    RollingBack,
    Superseded,
    Verifying,
    Waiting,
    Watching,
)
from deployguard.model.target import Served
from deployguard.report.jsons import dump
from deployguard.report.schema import report_schema
from deployguard.report.stages import stages_of
from deployguard.report.status import status_rows
from deployguard.report.view import bare_report, refused_report, run_report, unchanged_report
from deployguard.report.words import back_words, hold_words, outcome, phase_words
from deployguard.targets.simulated import Behaviour
from tests.properties.world import NEW, OLD, Sim
from tests.unit.reports import ended, later, named, report, rolling, ticked, with_phase

ROOT = Path(__file__).parents[2]


def validated(value: Any) -> Any:
    """The value, after the published schema has accepted it as JSON."""
    jsonschema.Draft202012Validator(report_schema(), format_checker=jsonschema.FormatChecker()).validate(json.loads(dump(value)))
    return value


@pytest.fixture(scope="module")
def bad() -> tuple[Document, Sim]:
    """A rollout that was judged bad and has come to its end."""
    sim = Sim(bad=0.2)
    return ended(sim), sim


def test_a_bad_candidate_is_reported_with_every_number(bad: tuple[Document, Sim]) -> None:
    """Outcome, exposure, times, counts of both arms, the interval and the quarantine are in the report."""
    document, sim = bad
    found = validated(report(document, sim.clock.at))
    assert (found["outcome"], found["exit_code"], found["phase"]) == ("rolled_back", 10, "rolled_back")
    assert (found["stable"]["name"], found["candidate"]["name"], found["stable_adopted"]) == ("v1", "v2", True)
    assert found["exposure_max"] == {"instances": 1, "of": 8, "share": 0.125}
    assert (found["first_bad"], found["decided"], found["restored"]) == tuple(f"2026-01-01T00:00:0{s}Z" for s in (1, 3, 4))
    assert (found["detection_s"], found["restore_s"], found["exposed_s"]) == (2.0, 1.0, 3.0)
    (check,) = found["checks"]
    assert (check["name"], check["verdict"], check["reason"]) == ("errors", "fail", "evidence")
    assert check["counts"]["candidate"] == {"bad": 12.0, "total": 60.0}
    assert check["interval"][0] > 5
    assert check["interval"][1] is None
    assert check["evidence"] > check["needed"] > 99
    assert [q["name"] for q in found["quarantined"]] == ["v2"]
    assert found["trail"][0]["phase"] == "advancing"


def test_a_good_candidate_is_reported_as_promoted_with_its_interval() -> None:
    """The latest findings carry no interval; the report computes it from the evidence."""
    sim = Sim(bad=0.002)
    found = validated(report(ended(sim), sim.clock.at))
    assert (found["outcome"], found["exit_code"]) == ("promoted", 0)
    assert found["checks"][0]["interval"] is not None
    assert (found["first_bad"], found["detection_s"], found["restored"], found["restore_s"]) == (None, None, None, None)


def test_a_doomed_candidate_has_a_check_without_counts() -> None:
    """The workload's own health is reported beside the policy's checks."""
    sim = Sim(behaviour=Behaviour(ready_after=None, exits_after=0.5))
    found = validated(report(ended(sim), sim.clock.at))
    assert found["exit_code"] == 10
    assert (found["checks"][0]["name"], found["checks"][0]["counts"], found["checks"][0]["evidence"]) == ("health", {}, None)


def test_requests_are_those_the_target_counted_since_the_start(bad: tuple[Document, Sim]) -> None:
    """What was served before the rollout is taken off; a counter that went back is unknown, not negative."""
    document, sim = bad
    served = {OLD.digest: Served(1500, 9), NEW.digest: Served(37, 8)}
    rollout = msgspec.structs.replace(rolling(document), served_before={OLD.digest: Served(1000, 5)}, served=served)
    found = validated(report(msgspec.structs.replace(document, rollout=rollout), sim.clock.at))
    assert found["requests"] == {"stable": 500, "candidate": 37}
    assert found["failed_requests"] == {"stable": 4, "candidate": 8}
    back = msgspec.structs.replace(rollout, served={OLD.digest: Served(10, 0)})
    found = validated(report(msgspec.structs.replace(document, rollout=back), sim.clock.at))
    assert found["requests"] == {"stable": None, "candidate": None}


def test_absence_is_never_zero() -> None:
    """Before anything was read or exposed the counts are null."""
    sim = Sim()
    sim.begin()
    found = validated(report(named(sim), sim.clock.at))
    assert found["requests"] == {"stable": None, "candidate": None}
    assert (found["decided"], found["first_bad"], found["exposed_s"], found["checks"]) == (None, None, None, [])


def test_what_people_asked_for_is_reported() -> None:
    """A request that is not yet delivered comes from the document, an older one from the ledger, and each is told once."""
    sim = Sim()
    sim.begin()
    driver = sim.driver()
    for _ in range(4):
        sim.tick(driver)
    sim.ask("abort")
    sim.run(driver)
    document = named(sim)
    found = run_report(document, now=sim.clock.at, outcome="withdrawn", exit_code=12, reason="", entries=sim.memory.ledgers["web"])
    assert [(p["who"], p["verb"]) for p in validated(found)["requests_by_people"]] == [("ann", "abort")]


def test_runs_without_a_rollout_have_a_whole_report(bad: tuple[Document, Sim]) -> None:
    """Bare, unchanged and refused reports have the same keys as a full one and do not tell an older rollout's story."""
    document, sim = bad
    full, now = report(document, sim.clock.at), sim.clock.at
    for found in (
        bare_report("web", "failed", 1, "the target does not answer", now),
        unchanged_report(document, now=now),
        refused_report(document, now=now, reason="v2 is quarantined", candidate=NEW),
        run_report(Document(guard="web"), now=now, outcome="failed", exit_code=1, reason="nothing"),
    ):
        assert list(validated(found)) == list(full)
        assert found["rollout"] is None
    assert refused_report(document, now=now, reason="", candidate=NEW)["candidate"]["name"] == "v2"
    assert unchanged_report(document, now=now)["stable"]["name"] == "v1"


WAYS_BACK: dict[BackWord, tuple[str, int]] = {
    "fail": ("rolled_back", 10),
    "lease": ("withdrawn", 12),
    "blind": ("withdrawn", 12),
    "samples": ("withdrawn", 12),
    "approval": ("withdrawn", 12),
    "hold": ("withdrawn", 12),
    "abort": ("withdrawn", 12),
    "interrupted": ("interrupted", 130),
    "rollback": ("withdrawn", 12),
    "not_started": ("withdrawn", 12),
    "relapse": ("withdrawn", 12),
    "timeout": ("withdrawn", 124),
    "superseded": ("superseded", 14),
}


@pytest.mark.parametrize("why", get_args(BackWord))
def test_every_way_back_has_its_exit_code(bad: tuple[Document, Sim], why: BackWord) -> None:
    """A complete way back ends as its reason says, and 11 while it is not complete."""
    document, _ = bad
    for phase in (RolledBack(OLD, why, "x"), Verifying(OLD, 0, why, "x", later(60))):
        assert outcome(rolling(with_phase(document, phase)))[:2] == WAYS_BACK[why]
    going = rolling(with_phase(document, RollingBack(OLD, 0, why, "x", later(60))))
    assert outcome(going)[:2] == ("failed", 11)
    assert outcome(going, interrupted=True)[:2] == outcome(going, timeout=True)[:2] == ("failed", 11)
    assert back_words(why)


def test_ends_have_the_exit_codes_of_the_contract(bad: tuple[Document, Sim]) -> None:
    """Promotion, refusal, supersession and failure, and what timeouts and interrupts make of a rollout that still goes on."""
    document, _ = bad
    cases: list[tuple[Any, tuple[str, int]]] = [
        (Watching(later(60)), ("promoted", 0)),
        (Promoted(), ("promoted", 0)),
        (Refused("x"), ("refused", 13)),
        (Superseded("x"), ("superseded", 14)),
        (Failed("x"), ("failed", 1)),
        (Waiting(("freeze: x",)), ("failed", 1)),
    ]
    for phase, wanted in cases:
        assert outcome(rolling(with_phase(document, phase)))[:2] == wanted
    waiting = rolling(with_phase(document, Waiting()))
    assert outcome(waiting, timeout=True)[:2] == ("failed", 124)
    assert outcome(waiting, interrupted=True)[:2] == ("interrupted", 130)
    taken = rolling(with_phase(document, RolledBack(OLD, "interrupted", "x")))
    assert outcome(taken, timeout=True)[:2] == ("withdrawn", 124)


def test_a_return_is_success_for_who_asked_for_it(bad: tuple[Document, Sim]) -> None:
    """The command that asked to go back gets 0 when that is done, another one 12."""
    document, _ = bad
    rollout = rolling(with_phase(document, RolledBack(OLD, "rollback", "x"), kind="return"))
    assert outcome(rollout, asked=True)[:2] == ("rolled_back", 0)
    assert outcome(rollout)[:2] == ("rolled_back", 12)
    assert outcome(rolling(with_phase(document, RolledBack(OLD, "abort", "x"))), asked=True)[:2] == ("rolled_back", 0)


def test_phases_read_as_sentences(bad: tuple[Document, Sim]) -> None:
    """The words of every phase name what is waited for, and how long it has lasted."""
    document, _ = bad

    def words(phase: Any, at: float = 64) -> str:
        return phase_words(rolling(with_phase(document, phase)), later(at), name=document.name)

    assert words(Waiting(("freeze: holidays",))) == "WAITING for freeze: holidays"
    assert words(Waiting()) == "WAITING, about to start"
    assert words(RollingBack(OLD, 0, "fail", "errors", later(9), overdue=True)) == "ROLLING_BACK to v1 (overdue): errors"
    assert words(Verifying(OLD, 0, "fail", "", later(3600))) == "VERIFYING until 01:00 UTC"
    assert words(Watching(later(86400))) == "STABLE, watched until 2026-01-02 00:00 UTC"
    assert words(RolledBack(OLD, "fail", "x")) == "ROLLED_BACK 1m ago"
    assert words(RolledBack(OLD, "hold", "x")) == "ROLLED_BACK 1m ago (hold)"
    assert words(Refused("quarantined")) == "REFUSED 1m ago: quarantined"
    assert all(hold_words(word) for word in get_args(HoldWord))


def test_a_running_rollout_says_its_stage_and_its_soak() -> None:
    """The number of stages comes from the saved policy, and without one from the trail."""
    sim = Sim()
    document = ticked(sim, 16)
    assert phase_words(rolling(document), sim.clock.at) == "STAGE 2/3 soak 0:04"
    bare = msgspec.structs.replace(rolling(document), spec={})
    assert phase_words(bare, sim.clock.at) == "STAGE 2/3 soak 0:04"
    sim.blind = True
    driver = sim.driver()
    for _ in range(5):
        sim.tick(driver)
    assert phase_words(rolling(named(sim)), sim.clock.at).startswith("HELD (blind) 0:")


def test_stages_from_the_saved_policy_are_the_engines() -> None:
    """Reading the stages without the policy model gives what the engine plans, for every shipped policy."""
    sim = Sim()
    sim.begin()
    rollout = rolling(named(sim))
    for path in sorted(p for p in (ROOT / "policies").glob("*.yaml") if ".test." not in p.name):
        policy = Policy.model_validate(yaml.safe_load(path.read_text())["spec"])
        spec = policy.model_dump(mode="json", by_alias=True)
        for wanted in (1, 2, 3, 7, 20, 100, 1000):
            assert stages_of(msgspec.structs.replace(rollout, spec=spec, wanted=wanted)) == planned(policy, wanted)


def test_a_policy_in_an_unknown_form_breaks_no_report() -> None:
    """A saved policy that cannot be read costs the stages, not the report."""
    sim = Sim()
    document = ticked(sim, 4)
    for spec in ({"stages": [{"soak": "nonsense"}], "confidence": "x"}, {"stages": 7}, {"checks": [1]}, {}):
        odd = msgspec.structs.replace(document, rollout=msgspec.structs.replace(rolling(document), spec=spec))
        assert report(odd, sim.clock.at)["phase"] == "analyzing"
        assert status_rows([(odd, None)], sim.clock.at)[0]["signals"]["of"] == 1


def test_an_old_stable_version_of_unknown_age_has_no_age(bad: tuple[Document, Sim]) -> None:
    """The first of all instants stands for an unknown one and is never shown."""
    document, sim = bad
    unknown = StableVersion(OLD, later(0).replace(year=1), adopted=True)
    document = msgspec.structs.replace(document, stable=(unknown,))
    assert report(document, sim.clock.at)["stable_since"] is None
    assert status_rows([(document, None)], sim.clock.at)[0]["serving"]["since"] is None


def test_the_published_schema_is_the_one_in_use() -> None:
    """docs/schemas/report.json is what `report_schema` says, and it is a schema."""
    assert (ROOT / "docs/schemas/report.json").read_text() == dump(report_schema())
    jsonschema.Draft202012Validator.check_schema(report_schema())


def test_the_schema_refuses_what_is_not_a_report(bad: tuple[Document, Sim]) -> None:
    """A key too many, a key too few or a wrong outcome does not pass."""
    document, sim = bad
    good = report(document, sim.clock.at)
    for wrong in ({**good, "more": 1}, {k: v for k, v in good.items() if k != "outcome"}, {**good, "outcome": "fine"}):
        with pytest.raises(jsonschema.ValidationError):
            validated(wrong)


def test_status_starts_without_the_heavy_libraries() -> None:
    """What `status` imports must not bring in pydantic, rich or anything of the network."""
    code = (
        "import sys; import deployguard.report.status, deployguard.report.history, deployguard.report.text, deployguard.report.jsons;"
        "print([m for m in ('pydantic', 'rich', 'kubernetes', 'httpx', 'deployguard.model.policy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
