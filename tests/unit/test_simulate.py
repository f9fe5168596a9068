"""Recorded rollouts under a draft policy."""

from __future__ import annotations

import copy
import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from deployguard.cli.app import run
from deployguard.engine import simulate
from deployguard.engine.recording import Loaded
from deployguard.engine.simulate import whole
from deployguard.model.policy import Policy
from deployguard.report.simulation import row, summary
from deployguard.stores.ledger import entries
from deployguard.wiring.replay import recorded
from deployguard.wiring.simulate import Draft, chosen, tried
from tests.unit.recorded import ERRORS, POLICY, START, Yard

BAD: dict[str, dict[str, Any]] = {
    "r-04": {"share": 0.05},
    "r-11": {"share": 0.6},
    "r-17": {"share": 0.0, "crashes": True},
    "r-22": {"share": 0.04},
    "r-27": {"share": 0.9},
}
"""Two of them are mild: to be sure of them takes longer when twice as much is tolerated."""
MILD = ["r-04", "r-22"]
NAMES = [f"r-{n:02}" for n in range(1, 31)]


def doubled() -> dict[str, Any]:
    """The policy with every threshold twice as high."""
    policy = copy.deepcopy(POLICY)
    (check,) = policy["checks"]
    check["limit"] *= 2
    check["worse_than_stable"] = {key: 2 * value for key, value in check["worse_than_stable"].items()}
    return policy


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """Thirty rollouts, five of them bad, one after the other on one fleet."""
    yard = Yard(tmp_path_factory.mktemp("thirty"))
    for name in NAMES:
        yard.begin(name, **BAD.get(name, {"share": 0.003}))
        yard.run()
    return yard


def simulated(yard: Yard, policy: dict[str, Any], *rollouts: str) -> list[dict[str, Any]]:
    """The rows of a simulation."""
    draft = Draft("draft", Policy.model_validate(policy), own_checks=bool(policy.get("checks")))
    cases = tried(yard.store, chosen(yard.store, rollouts, None, None), draft)
    return [row(c.rollout, c.entries, c.simulated, bad=False, skipped=c.skipped, fitted=c.fitted) for c in cases]


def test_the_policy_itself_reproduces_every_outcome(thirty: Yard) -> None:
    """At the same instants, by the same numbers, stage by stage: 25 promotions and 5 rollbacks."""
    rows = simulated(thirty, POLICY)
    assert [r["rollout"] for r in rows] == NAMES
    for one in rows:
        really, draft = one["really"], one["draft"]
        assert (draft["how"], draft["at"], draft["passed"]) == (really["how"], really["at"], really["passed"]), one["rollout"]
        if really["how"] == "stopped":
            assert draft["text"] == really["text"]
            assert draft["checks"] == really["checks"]
    found = summary(rows)
    assert (found["caught"], found["missed"], found["new_stop"]) == (sorted(BAD), [], [])
    assert len(found["passed"]) == 25


def test_doubled_thresholds_miss_exactly_the_mild_ones(thirty: Yard, tmp_path: Path) -> None:
    """As the real driver shows under the doubled thresholds on the same fleet with the same requests, up to where the recording ends."""
    rows = {r["rollout"]: r for r in simulated(thirty, doubled())}
    found = summary(list(rows.values()))
    assert found["missed"] == MILD
    assert found["caught"] == sorted(set(BAD) - set(MILD))
    assert (found["new_stop"], found["undecided"], len(found["passed"])) == ([], [], 25)
    for name, bad in BAD.items():
        yard = Yard(tmp_path / name, doubled())
        yard.begin(name, **bad)
        yard.run()
        truth = next(e for e in entries(yard.store.ledger.path, name) if e.data.get("verdict") == "fail")
        alone = Yard(tmp_path / f"{name}-own", POLICY)
        alone.begin(name, **bad)
        alone.run()
        (again,) = simulated(alone, doubled(), name)
        in_time = (truth.at - START).total_seconds() <= again["really"]["after_s"]
        assert (again["result"] == "caught") == in_time
        if again["result"] == "caught":
            assert again["draft"]["text"] == truth.text


def test_a_stricter_draft_stops_earlier_and_says_by_what(tmp_path: Path) -> None:
    """A stop that comes earlier is told with its seconds, its check and its counts."""
    yard = Yard(tmp_path, {"checks": [{**ERRORS, "limit": None, "worse_than_stable": {"ratio": 4, "margin": 0.02, "floor": 0.05}}]})
    yard.begin("r-1", 0.12)
    yard.run()
    (one,) = simulated(yard, POLICY)
    assert one["result"] == "caught"
    assert one["earlier_s"] > 0
    assert one["draft"]["checks"][0]["name"] == "errors"
    assert one["draft"]["checks"][0]["evidence"] >= one["draft"]["checks"][0]["needed"]


def test_soaks_of_the_draft_count_on_the_recorded_exposure(tmp_path: Path) -> None:
    """A draft that soaks longer is still in an early stage when the recording ends; one that soaks shorter promotes earlier."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003)
    yard.run()
    longer = [{"instances": 1, "soak": "25s"}, {"exposure": "100%", "soak": "1h"}]
    (one,) = simulated(yard, {**POLICY, "stages": longer})
    assert (one["result"], one["draft"]["how"]) == ("undecided", "undecided")
    assert one["draft"]["passed"].keys() == {"1"}
    assert one["draft"]["passed"]["1"] - one["really"]["passed"]["1"] == 5
    assert "judged on the recorded exposure of 1, 4, 8" in " ".join(one["fitted"].notes)
    shorter = [{**stage, "soak": "5s"} for stage in POLICY["stages"]]
    (one,) = simulated(yard, {**POLICY, "stages": shorter})
    assert one["result"] == "passed"
    assert one["earlier_s"] > 10


def test_gates_of_the_draft_hold_what_really_went_on(tmp_path: Path) -> None:
    """A draft that wants an approval holds the rollout, and takes it back without a verdict when its hold limit is over first."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003)
    yard.run()
    asking = {**POLICY, "gates": {"approval": [2]}}
    (one,) = simulated(yard, asking)
    assert (one["result"], one["draft"]["how"], one["draft"]["text"]) == ("undecided", "held", "(approval) stage 2 must be approved")
    assert one["draft"]["after_s"] == one["really"]["passed"]["1"]
    (one,) = simulated(yard, {**asking, "blind": {"hold_limit": "5s"}})
    assert (one["result"], one["draft"]["how"]) == ("taken_back", "taken_back")
    assert one["draft"]["after_s"] == one["really"]["passed"]["1"] + 5


def test_a_check_that_was_not_recorded_is_not_passed_in_silence(tmp_path: Path) -> None:
    """It is named as unheard, the others are judged, and what reads the same under another name is heard."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003)
    yard.run()
    other = {"name": "api", "source": "scrape", "bad": "bad_total", "total": "all_total"}
    (one,) = simulated(yard, {**POLICY, "checks": [{**ERRORS, "name": "users"}, other]})
    assert one["fitted"].unheard == ("api",)
    assert one["fitted"].names == {"users": "errors"}
    assert one["result"] == "passed"
    (one,) = simulated(yard, {key: value for key, value in POLICY.items() if key != "checks"})
    assert one["result"] == "passed"
    assert "those of the recorded policy are asked" in one["fitted"].notes[0]


def test_a_draft_lives_through_the_same_crashes(tmp_path: Path) -> None:
    """After a guard that was killed the next one goes on from what was saved; the policy itself comes out with the very same numbers."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.04)
    for _ in range(6):
        yard.tick()
    yard.clock.at += dt.timedelta(seconds=2)
    yard.new_driver()
    yard.run()
    (one,) = simulated(yard, POLICY)
    assert one["result"] == "caught"
    assert (one["draft"]["at"], one["draft"]["text"], one["draft"]["checks"]) == tuple(
        one["really"][key] for key in ("at", "text", "checks")
    )


def test_instances_on_their_way_do_not_disturb_a_draft_that_still_soaks(tmp_path: Path) -> None:
    """While the recorded rollout brings up its next stage, a draft that watches the one before goes on watching it."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003, ready_after=4.0)
    yard.run()
    stages = [{**POLICY["stages"][0], "soak": "22s"}, *POLICY["stages"][1:]]
    (one,) = simulated(yard, {**POLICY, "stages": stages})
    assert one["draft"]["passed"]["1"] - one["really"]["passed"]["1"] == 2


def test_what_a_person_took_back_is_bad_and_missed(tmp_path: Path) -> None:
    """A rollback by hand ends the recording; a draft that had not stopped it by then has missed it, and `--bad` marks a promoted one."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003)
    for _ in range(10):
        yard.tick()
    yard.ask("rollback")
    yard.run()
    (one,) = simulated(yard, POLICY)
    assert (one["result"], one["really"]["how"], one["really"]["bad"]) == ("missed", "taken_back", True)


def test_a_rollout_that_still_goes_on_is_tried_as_far_as_it_is(tmp_path: Path) -> None:
    """Nothing has come of it yet, under neither policy; a stricter one may have stopped it."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003)
    for _ in range(10):
        yard.tick()
    yard.readings.flush()
    (one,) = simulated(yard, POLICY)
    assert (one["result"], one["really"]["how"], one["draft"]["how"], one["draft"]["stage"]) == ("other", "open", "undecided", 1)


def test_what_cannot_be_tried_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """A return to a named version judges nobody, and a recording without its beginning says too little."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003)
    document = yard.run()
    assert document.rollout is not None
    back = msgspec.structs.replace(document.rollout, kind="return")
    assert "no candidate was judged" in whole(msgspec.structs.replace(document, rollout=back))
    assert "the beginning of its recording is gone" in whole(document)
    (yard.readings.directory / "r-1.jsonl").unlink()
    (one,) = simulated(yard, POLICY, "r-1")
    assert (one["result"], one["draft"]) == ("skipped", None)
    assert "nothing was recorded of it" in one["skipped"]


def test_ticks_of_an_overtaken_driver_and_lost_ones_are_left_out(tmp_path: Path) -> None:
    """What a driver learnt after another had taken over was never saved; where records are missing, that is told."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.04)
    for _ in range(4):
        yard.tick()
    yard.new_driver()
    yard.run()
    source = recorded(yard.readings, "r-1")
    records = list(source.records())
    taken = next(n for n, r in enumerate(records) if n and isinstance(r, Loaded))
    stale = [*records[: taken + 1], records[taken - 1], *records[taken + 1 :]]
    names = {"errors": "errors"}
    assert simulate.simulated(source.policy, names, source.document, stale) == simulate.simulated(
        source.policy, names, source.document, records
    )
    path = yard.readings.directory / "r-1.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    (one,) = simulated(yard, POLICY)
    assert one["result"] == "caught"
    assert len(one["lost"]) == 1


def write(folder: Path, name: str, spec: dict[str, Any]) -> str:
    """A policy file."""
    path = folder / name
    path.write_text(yaml.safe_dump({"kind": "GuardPolicy", "metadata": {"name": "draft"}, "spec": spec}))
    return str(path)


def test_the_command(thirty: Yard, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list of what would be missed stands in the text, in JSON and in Markdown, and rollouts can be chosen."""
    draft, state = write(tmp_path, "doubled.yaml", doubled()), str(thirty.store.state)
    assert run(["policy", "simulate", draft, "--state", state]) == 0
    text = capsys.readouterr().out
    assert f"bad rollouts: 5; the draft stops 3, misses 2: {', '.join(MILD)}" in text
    assert "good rollouts: 25; the draft promotes 25, stops 0" in text
    assert run(["policy", "simulate", draft, "--state", state, "-o", "json", "--last", "4"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [r["rollout"] for r in data["rollouts"]] == NAMES[-4:]
    assert data["summary"]["caught"] == ["r-27"]
    assert run(["policy", "simulate", draft, "--state", state, "-o", "json", "--since", data["rollouts"][1]["started"]]) == 0
    assert [r["rollout"] for r in json.loads(capsys.readouterr().out)["rollouts"]] == NAMES[-3:]
    assert run(["policy", "simulate", draft, "r-04", "r-05", "--bad", "r-05", "--state", state, "-o", "markdown"]) == 0
    shown = capsys.readouterr().out
    assert "misses 2: r-04, r-05" in shown
    assert "| r-04 | MISSED |" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lost.yaml"], "lost.yaml"),
        (["{draft}", "r-99"], "no rollout `r-99`"),
        (["{draft}", "--since", "soon"], "neither a time span nor a date"),
        (["{draft}", "--bad", "r-98"], "`--bad r-98` is not among"),
        (["{draft}", "-o", "csv"], "not an output format"),
        (["{two}"], "holds 2 policies"),
        (["{wrong}"], "line 4"),
    ],
)
def test_bad_input_is_named(thirty: Yard, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    """With exit code 2 and without a traceback."""
    draft = write(tmp_path, "draft.yaml", POLICY)
    two = tmp_path / "two.yaml"
    two.write_text(Path(draft).read_text() + "---\n" + Path(draft).read_text().replace("name: draft", "name: other"))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: GuardPolicy\nmetadata: {name: a}\nspec:\n  stages: [{instances: 1, soak: 30}]\n")
    named = [a.format(draft=draft, two=two, wrong=wrong) for a in arguments]
    assert run(["policy", "simulate", *named, "--state", str(thirty.store.state)]) == 2
    assert said in capsys.readouterr().err
