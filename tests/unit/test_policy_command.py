"""The commands `policy` and `ledger`, as a user runs them."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from deployguard.files.scenario_file import load_scenarios
from deployguard.model.rollout import Entry
from deployguard.stores.file import FileStore
from deployguard.wiring.scenario import play
from deployguard.wiring.transcript import Line, difference, matches, nearest

ROOT = Path(__file__).parents[2]
GUARD = """
apiVersion: deployguard.dev/v1alpha1
kind: Guard
metadata: {name: web}
spec:
  target: {kind: LocalFleet, name: web}
  policy: mine
  override: {interval: 2s}
"""
POLICY = """
kind: GuardPolicy
metadata: {name: mine}
spec:
  stages: [{instances: 1, soak: 30s}, {exposure: 100%, soak: 30s}]
"""
SCENARIO = """why: One request in five fails
policy: fast
checks: [{name: errors, source: balancer}]
series:
  errors:
    stable: {total: "45x60"}
    candidate: {total: "5x60", bad: "1x60"}
expect:
  - 0s advancing stage 1/3
  - 4s rolling_back errors
outcome: rolled_back
"""


def run(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """What `deployguard` says to these arguments."""
    command = [sys.executable, "-m", "deployguard", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=given, cwd=ROOT, timeout=120, check=False)


def write(folder: Path, name: str, text: str) -> Path:
    """A file of this name and text."""
    path = folder / name
    path.write_text(text)
    return path


def test_validate_says_what_stands_in_each_file(tmp_path: Path) -> None:
    """A guard may name a policy of another file on the same command line."""
    guard, policy = write(tmp_path, "guard.yaml", GUARD), write(tmp_path, "policy.yaml", POLICY)
    scenario = write(tmp_path, "web.test.yaml", SCENARIO)
    done = run("policy", "validate", guard, policy, scenario)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{guard}: ok (Guard web)", f"{policy}: ok (GuardPolicy mine)", f"{scenario}: ok (1 scenario)"]


def test_validate_shows_every_fault_of_every_file(tmp_path: Path) -> None:
    """Each with its file and line, and the good files are still told."""
    good = write(tmp_path, "policy.yaml", POLICY)
    one = write(tmp_path, "one.yaml", POLICY.replace("soak: 30s", "soak: 30", 1))
    two = write(tmp_path, "two.yaml", SCENARIO.replace("policy: fast", "policy: fats"))
    lost = write(tmp_path, "lost.yaml", GUARD.replace("policy: mine", "policy: yours"))
    done = run("policy", "validate", good, one, two, lost)
    assert done.returncode == 2
    assert f"{good}: ok (GuardPolicy mine)" in done.stdout
    assert f"error: {one}: line 5: `spec.stages[0].soak`" in done.stderr
    assert f"error: {two}: line 2: `policy`: no policy `fats`" in done.stderr
    assert f"error: {lost}: line 7: `spec.policy`: no policy `yours`" in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_says_what_stages_can_see_when_traffic_is_given(tmp_path: Path) -> None:
    """A blind stage is a warning and exit code 0, with `strict: true` exit code 1, with enough traffic neither; a power must be one."""
    checks = "  checks: [{name: errors, source: balancer}]\n"
    guard, policy = write(tmp_path, "guard.yaml", GUARD + checks), write(tmp_path, "policy.yaml", POLICY)
    strict_one = write(tmp_path, "strict.yaml", POLICY + "  strict: true\n")

    lenient = run("policy", "validate", guard, policy, "--traffic", "40")
    assert lenient.returncode == 0
    assert "guard web, 20 instances:" in lenient.stdout
    assert "longer than the soak of 30s" in lenient.stdout
    assert "warning: not every stage can see" in lenient.stdout
    strict = run("policy", "validate", guard, strict_one, "--traffic", "40")
    assert strict.returncode == 1
    assert "the rollout is refused, because the policy is `strict`" in strict.stdout
    much = run("policy", "validate", guard, strict_one, "--traffic", "200000", "--instances", "4")
    assert much.returncode == 0
    wrong = run("policy", "validate", guard, policy, "--traffic", "40", "--power", "2")
    assert wrong.returncode == 2
    assert "is not a power" in wrong.stderr


def test_validate_reads_standard_input() -> None:
    """`-` is a file like any other."""
    done = run("policy", "validate", "-", given=POLICY)
    assert (done.returncode, done.stdout) == (0, "-: ok (GuardPolicy mine)\n")


def test_a_scenario_that_holds_passes(tmp_path: Path) -> None:
    """One line for each, and a summary."""
    path = write(tmp_path, "a.test.yaml", SCENARIO)
    done = run("policy", "test", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"ok     {path}:1: One request in five fails", "1 passed, 0 failed"]


def test_a_scenario_that_fails_explains_itself(tmp_path: Path) -> None:
    """File and line of the expectation, a diff of the transcript with its instants, and the numbers of the verdict."""
    path = write(tmp_path, "a.test.yaml", SCENARIO.replace("- 4s rolling_back", "- 9s rolling_back").replace("rolled_back\n", "promoted\n"))
    done = run("policy", "test", path)
    assert done.returncode == 1
    text = done.stdout
    assert f"FAILED {path}:1: One request in five fails" in text
    assert f"{path}:10: expected `9s rolling_back errors`; it came at 4s" in text
    assert f"{path}:11: expected the outcome `promoted`, got `rolled_back`" in text
    assert "- 9s  rolling_back errors\n" in text
    assert "+ 4s  rolling_back errors: candidate 20% (5 of 25)" in text
    assert "of 111 against 1.25 x stable" in text
    assert text.endswith("0 passed, 1 failed\n")


def test_a_second_scenario_of_a_list_is_blamed_at_its_own_line(tmp_path: Path) -> None:
    """Also when the scenarios stand in one document."""
    body = "\n".join("    " + line for line in SCENARIO.splitlines())
    text = "kind: PolicyTest\ntests:\n" + "  -" + body[3:] + "\n" + "  -" + body[3:].replace("0s advancing stage 1/3", "0s waiting") + "\n"
    path = write(tmp_path, "two.test.yaml", text)
    done = run("policy", "test", path)
    line = 1 + next(n for n, row in enumerate(text.splitlines()) if "0s waiting" in row)
    assert f"{path}:{line}: expected `0s waiting`" in done.stdout
    assert done.stdout.endswith("1 passed, 1 failed\n")


def test_a_wrong_scenario_file_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    """It is not a failed test."""
    done = run("policy", "test", write(tmp_path, "a.test.yaml", SCENARIO.replace("outcome: rolled_back", "outcome: gone")))
    assert done.returncode == 2
    assert "line 11: `outcome`" in done.stderr


def test_every_fault_of_every_scenario_file_is_shown(tmp_path: Path) -> None:
    """Not those of the first file alone."""
    one = write(tmp_path, "a.test.yaml", SCENARIO.replace("outcome: rolled_back", "outcome: gone"))
    two = write(tmp_path, "b.test.yaml", SCENARIO.replace("4s rolling_back errors", "{4s rolling_back errors: 20}"))
    done = run("policy", "test", one, two)
    assert done.returncode == 2
    assert f"error: {one}: line 11: `outcome`" in done.stderr
    assert f"{two}: line 10: `expect[1]`: the `: ` after `4s rolling_back errors` makes a map of this line" in done.stderr


def test_a_folder_stands_for_its_scenarios_and_some_can_be_chosen(tmp_path: Path) -> None:
    """Other files of the folder are passed over; `--filter` looks at the sentence and the name of the file, whatever the case."""
    path = write(tmp_path, "a.test.yaml", SCENARIO)
    write(tmp_path, "b.test.yaml", SCENARIO.replace("One request in five", "Every fifth request"))
    write(tmp_path, "policy.yaml", POLICY)
    assert run("policy", "test", tmp_path).stdout.endswith("2 passed, 0 failed\n")
    for text in ("one REQUEST", "A.test"):
        lines = [f"ok     {path}:1: One request in five fails", "1 passed, 0 failed"]
        assert run("policy", "test", tmp_path, path, "--filter", text).stdout.splitlines() == lines
    done = run("policy", "test", tmp_path, "-k", "two requests")
    assert (done.returncode, "none of 2 scenarios has `two requests`" in done.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    assert run("policy", "test", tmp_path / "empty").returncode == 2


def test_a_scenario_that_passes_is_shown_when_asked_for(tmp_path: Path) -> None:
    """Its whole transcript and the numbers of the verdict: what a new scenario is written from."""
    text = run("policy", "test", write(tmp_path, "a.test.yaml", SCENARIO), "--verbose").stdout
    assert "    0s advancing stage 1/3: 1 of 20 instances\n" in text
    assert "    4s rolling_back errors: candidate 20% (5 of 25)" in text
    assert "evidence" in text


def test_those_of_many_that_failed_are_listed_at_the_end(tmp_path: Path) -> None:
    """So that nobody scrolls for them."""
    body = "\n".join("    " + line for line in SCENARIO.splitlines())
    text = "kind: PolicyTest\ntests:\n" + ("  -" + body[3:] + "\n") * 10
    path = write(tmp_path, "many.test.yaml", text + "  -" + body[3:].replace("4s rolling", "9s rolling"))
    done = run("policy", "test", path)
    assert done.stdout.endswith(f"failed:\n  {path}:{3 + 110}: One request in five fails\n\n10 passed, 1 failed\n")


def test_results_as_json_and_junit(tmp_path: Path) -> None:
    """The same results for programs."""
    good = write(tmp_path, "a.test.yaml", SCENARIO)
    bad = write(tmp_path, "b.test.yaml", SCENARIO.replace("4s rolling_back", "9s rolling_back"))
    done = run("policy", "test", good, bad, "-o", "json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["passed"], found["failed"]) == (1, 1)
    assert found["scenarios"][0]["transcript"][0] == "0s advancing stage 1/3: 1 of 20 instances"
    assert found["scenarios"][1]["problems"] == [{"file": str(bad), "line": 10, "text": "expected `9s rolling_back errors`; it came at 4s"}]
    suite = ET.fromstring(run("policy", "test", good, bad, "-o", "junit").stdout)[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [len(case) for case in suite] == [0, 1]


def test_an_event_that_hits_nothing_is_a_problem(tmp_path: Path) -> None:
    """A crash before the first candidate instance would otherwise test nothing."""
    path = write(tmp_path, "a.test.yaml", SCENARIO + "events:\n  - {at: 0s, crash: 1}\n")
    (loaded,) = load_scenarios(path)
    (problem,) = play(loaded).problems
    assert (problem.line, problem.text) == (13, "`crash: 1` found 0 instances to crash at 0s")


def test_an_event_after_the_end_is_a_problem(tmp_path: Path) -> None:
    """The rollout is back on stable by then, so it would test nothing either."""
    path = write(tmp_path, "a.test.yaml", SCENARIO + "events:\n  - {at: 20m, guard_gone: 1m}\nuntil: 1m\n")
    (problem,) = play(load_scenarios(path)[0]).problems
    assert (problem.line, problem.text) == (13, "`guard_gone: 1m` at 20m never happened: the play was over before")


FROZEN = """why: The first ten seconds are frozen
policy: fast
override:
  gates: {freeze: [{from: "2026-01-01T00:00:00Z", until: "2026-01-01T00:00:10Z"}]}
checks: [{name: errors, source: balancer}]
series:
  errors:
    stable: {total: "45x60"}
    candidate: {total: "5x60", bad: "5x9 0x50"}
until: 30s
expect: [10s advancing stage 1/3, 11s analyzing]
"""


def test_nothing_counts_before_the_first_candidate_instance(tmp_path: Path) -> None:
    """The series runs from the start, but what it says of an arm that is not there yet was served by nobody."""
    (loaded,) = load_scenarios(write(tmp_path, "a.test.yaml", FROZEN))
    played = play(loaded)
    assert played.ok, played.explained()
    assert "candidate 0% (0 of " in played.findings


def test_lines_are_matched_in_order_and_within_the_tolerance() -> None:
    """A line that came is used once, and one that came too late or in the wrong order is not taken."""
    second = dt.timedelta(seconds=1)
    lines = [Line(n * second, text) for n, text in enumerate(["advancing stage 1", "analyzing stage 1", "advancing stage 1", "watching"])]
    expected = [(0 * second, "advancing"), (2 * second, "advancing"), (1 * second, "analyzing"), (9 * second, "watching")]
    found = matches(expected, lines, second)
    assert found == [0, 2, None, None]
    shown = difference(expected, lines, found)
    assert shown == [
        "  0s  advancing stage 1",
        "+ 1s  analyzing stage 1",
        "  2s  advancing stage 1",
        "- 1s  analyzing",
        "+ 3s  watching",
        "- 9s  watching",
    ]
    assert nearest(9 * second, "watching", lines, found) == "it came at 3s"


def test_a_play_ends_although_nothing_does(tmp_path: Path) -> None:
    """When the series are over the policy's longest deadline is waited for, and no longer."""
    text = (
        SCENARIO.replace(', bad: "1x60"', "")
        .replace("  - 4s rolling_back errors\n", "")
        .replace("outcome: rolled_back", "outcome: withdrawn")
    )
    (loaded,) = load_scenarios(write(tmp_path, "a.test.yaml", text))
    played = play(loaded)
    assert played.ok, played.explained()
    assert played.exit_code == 12
    assert "1m2s holding (blind) errors is silent" in played.transcript[2]


def test_shipped_policies_are_shown_by_their_names(tmp_path: Path) -> None:
    """With every field, in a form that loads back."""
    paths = []
    for name in ("config", "fast", "low-traffic", "production"):
        paths.append(write(tmp_path, f"{name}.yaml", run("policy", "show", name).stdout))
        assert yaml.safe_load(paths[-1].read_text())["metadata"]["name"] == name
    assert run("policy", "validate", *paths).stdout == "".join(f"{path}: ok (GuardPolicy {path.stem})\n" for path in paths)


def test_a_guard_shows_what_really_applies(tmp_path: Path) -> None:
    """Its policy with the override, and the check that a fleet without any gets."""
    path = write(tmp_path, "all.yaml", GUARD + "---" + POLICY)
    shown = yaml.safe_load(run("policy", "show", path, "--guard", "web").stdout)["spec"]
    assert shown["interval"] == "2s"
    assert shown["checks"][0]["name"] == "errors"
    done = run("policy", "show", path, "--guard", "wbe")
    assert done.returncode == 2
    assert "did you mean `web`" in done.stderr


def test_shipped_policies_are_listed() -> None:
    """Without a name, and when the name is wrong."""
    assert run("policy", "show").stdout.split() == ["config", "fast", "low-traffic", "production"]
    done = run("policy", "show", "productoin")
    assert done.returncode == 2
    assert "did you mean `production`" in done.stderr


@pytest.mark.parametrize("kind", ["guard", "policy", "fleet", "scenario", "report"])
def test_every_kind_has_a_schema(kind: str) -> None:
    """It is JSON, and says which dialect of JSON Schema it is."""
    assert json.loads(run("policy", "schema", kind).stdout)["$schema"].startswith("https://json-schema.org/")


def test_an_unknown_schema_lists_the_known_ones() -> None:
    """With exit code 2."""
    done = run("policy", "schema", "gaurd")
    assert (done.returncode, "guard, policy, fleet, scenario and report" in done.stderr) == (2, True)


def state_with(folder: Path, *guards: str) -> Path:
    """A state directory in which these guards have three entries each."""
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for guard in guards:
        FileStore(folder, guard).append(tuple(Entry("r1", n, at, guard, "transition", "waiting", f"text {n}") for n in (1, 2, 3)))
    return folder


def test_a_whole_ledger_is_said_to_be_whole(tmp_path: Path) -> None:
    """Of every guard, or of those that are named."""
    state = state_with(tmp_path, "api", "web")
    assert run("ledger", "verify", "--state", state).stdout == "api: 3 entries, chain whole\nweb: 3 entries, chain whole\n"
    assert run("ledger", "verify", "web", "--state", state).stdout == "web: 3 entries, chain whole\n"


def test_a_changed_ledger_is_found(tmp_path: Path) -> None:
    """Its first bad line is named, the others are still checked, and the exit code is 1."""
    state = state_with(tmp_path, "api", "web")
    path = FileStore(state, "api").ledger.path
    path.write_text(path.read_text().replace("text 1", "text 9"))
    done = run("ledger", "verify", "--state", state)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.startswith("api: NOT WHOLE: line 1 ")
    assert second == "web: 3 entries, chain whole"


def test_a_ledger_is_exported_line_by_line(tmp_path: Path) -> None:
    """Every line is a JSON object; an unknown rollout is a mistake."""
    state = state_with(tmp_path, "web")
    done = run("ledger", "export", "web", "--state", state)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["text 1", "text 2", "text 3"]
    assert len(run("ledger", "export", "web", "--rollout", "r1", "--state", state).stdout.splitlines()) == 3
    assert run("ledger", "export", "web", "--rollout", "r2", "--state", state).returncode == 2
    assert run("ledger", "export", "wbe", "--state", state).returncode == 2


def test_no_state_is_not_a_whole_one(tmp_path: Path) -> None:
    """A misspelt directory must not look well."""
    assert run("ledger", "verify", "--state", tmp_path / "nothing").returncode == 2
