"""The action, the GitLab template and the Tekton task: what they run is a command line that is there, and nothing in an input runs."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployguard.report.annotations import outputs, platform
from tests.unit.test_annotations import bad
from tests.unit.test_docs import fault

__all__ = ["bad"]

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
HEAD, JOBS = yaml.safe_load_all((ROOT / "ci/gitlab/deployguard.yml").read_text())
JOB: dict[str, Any] = next(iter(JOBS.values()))
TASK: dict[str, Any] = yaml.safe_load((ROOT / "ci/tekton/task.yaml").read_text())
(STEP,) = TASK["spec"]["steps"]
EVIL = "x\"; touch broken; $(touch broken) `touch broken` 'y"
GIVEN = {
    "DG_FILE": "guard.yaml\n  policy.yaml\n",
    "DG_IMAGE": "web=shop/web:1.9",
    "DG_SET": f"env.A=b c\nenv.B={EVIL.replace(';', ',')}",
    "DG_CONFIG": "ConfigMap/a=./new dir/",
    "DG_TIMEOUT": "1h",
    "DG_REQUIRE_REAPER": "true",
    "DG_REPORT": "out",
}
WANTED = [
    "run",
    "--file=guard.yaml",
    "--file=policy.yaml",
    "--image=web=shop/web:1.9",
    "--set=env.A=b c",
    f"--set=env.B={EVIL.replace(';', ',')}",
    "--config=ConfigMap/a=./new dir/",
    "--timeout=1h",
    "--require-reaper",
]


def step(name: str) -> dict[str, Any]:
    """A step of the action."""
    return next(one for one in ACTION["runs"]["steps"] if name in one["name"])


def scripts() -> dict[str, tuple[list[str], str, dict[str, str]]]:
    """Every script that runs deployguard, with its shell and the variables that it is given."""
    job = {name: str(value) for name, value in JOB["variables"].items()}
    return {
        "action": (["bash", "--noprofile", "--norc", "-eo", "pipefail"], step("Guard")["run"], step("Guard")["env"]),
        "action, cancelled": (["bash", "--noprofile", "--norc", "-eo", "pipefail"], step("Take back")["run"], step("Take back")["env"]),
        "gitlab": (["sh", "-e"], JOB["script"][0], job),
        "gitlab, bash": (["bash", "-e"], JOB["script"][0], job),
        "gitlab, cancelled": (["sh"], JOB["after_script"][0], job),
        "tekton": (["sh"], STEP["script"], {one["name"]: one["value"] for one in STEP["env"]}),
    }


def ran(name: str, folder: Path, given: dict[str, str], *, code: int = 0) -> tuple[int, list[str]]:
    """The exit code of a script, and the words that deployguard was called with; it returns `code` there."""
    shell, script, variables = scripts()[name]
    tool = folder / "bin/deployguard"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word" >> "{folder}/words"; done\nexit {code}\n')
    tool.chmod(0o755)
    text = {key: value.replace("\n", ";") if name.startswith("gitlab") else value for key, value in given.items()}
    values = {variable: text.get(variable, "") for variable in variables if variable.startswith("DG_")}
    (folder / "script").write_text(script)
    env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **values}
    done = subprocess.run([*shell, str(folder / "script")], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert not (folder / "broken").exists()
    words = folder / "words"
    return done.returncode, words.read_text().split("\0")[:-1] if words.exists() else []


@pytest.mark.parametrize("name", ["action", "gitlab", "gitlab, bash", "tekton"])
def test_inputs_become_options_word_by_word(name: str, tmp_path: Path) -> None:
    """Lines become options of `run`, whatever stands in them; what is not given is left out; the exit code is passed on."""
    code, words = ran(name, tmp_path, GIVEN, code=10)
    assert code == 10
    reports = list(itertools.dropwhile(lambda word: not word.startswith("--report"), words))
    rest = words[: len(words) - len(reports)]
    assert rest[0] == "run"
    assert sorted(rest) == sorted(WANTED)
    assert [word.rpartition(".")[2] for word in " ".join(reports).replace("--report=", "--report ").split() if "report." in word] == [
        "json",
        "md",
        "xml",
    ]
    assert not fault(words)


@pytest.mark.parametrize("name", ["action, cancelled", "gitlab, cancelled"])
@pytest.mark.parametrize(("returned", "code"), [(0, 0), (2, 0), (11, None)])
def test_a_cancelled_job_takes_the_candidate_back(name: str, returned: int, code: int | None, tmp_path: Path) -> None:
    """The guard's file is enough; no rollout is no fault; a way back that is not complete is one."""
    done, words = ran(name, tmp_path, GIVEN, code=returned)
    assert (done == 0) is (code == 0)
    assert words[:3] == ["abort", "--reason", "the job was cancelled"]
    assert {"--file=guard.yaml", "--file=policy.yaml"} <= set(words)
    assert not fault(words)


def test_a_job_that_ended_by_itself_aborts_nothing(tmp_path: Path) -> None:
    """GitLab runs `after_script` always: after a run that ended, the rollout that goes on is another job's."""
    (tmp_path / "deployguard").mkdir()
    (tmp_path / "deployguard/exit-code").write_text("1\n")
    assert ran("gitlab, cancelled", tmp_path, GIVEN) == (0, [])
    assert "steps.guard.outcome == 'cancelled'" in step("Take back")["if"]


def test_every_input_of_the_action_is_used_and_every_output_is_written(bad: dict[str, Any]) -> None:
    """Inputs reach steps by their environment alone, and outputs are those that a run writes."""
    steps = ACTION["runs"]["steps"]
    assert all("${{" not in one["run"] for one in steps)
    assert all(one["shell"] == "bash" for one in steps)
    used = set(re.findall(r"inputs\.([\w-]+)", yaml.safe_dump(steps)))
    assert used == set(ACTION["inputs"])
    for name, output in ACTION["outputs"].items():
        assert output["value"] == f"${{{{ steps.guard.outputs.{name} }}}}"
    assert set(ACTION["outputs"]) == set(outputs(bad))


def test_the_gitlab_template_uses_its_inputs_and_keeps_reports() -> None:
    """Inputs stand in variables and rules, never in scripts; reports are kept whatever happens, and the job outlives the run's timeout."""
    text = (ROOT / "ci/gitlab/deployguard.yml").read_text()
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(HEAD["spec"]["inputs"])
    assert "inputs." not in JOB["script"][0] + JOB["after_script"][0]
    assert JOB["artifacts"]["when"] == "always"
    assert JOB["artifacts"]["reports"] == {"junit": "deployguard/report.xml", "annotations": JOB["variables"]["DEPLOYGUARD_ANNOTATIONS"]}
    assert JOB["interruptible"] is False
    assert JOB["rules"] == [{"if": "$[[ inputs.rule ]]"}]
    known = {"stage", "image", "timeout", "interruptible", "resource_group", "rules", "variables", "script", "after_script", "artifacts"}
    assert set(JOB) == known


FIELDS = {
    "spec": {"description", "params", "workspaces", "results", "steps"},
    "params": {"name", "type", "default", "description"},
    "workspaces": {"name", "description"},
    "results": {"name", "type", "description"},
    "step": {"name", "image", "workingDir", "env", "securityContext", "script"},
}


def test_the_tekton_task_has_fields_that_tekton_knows(bad: dict[str, Any], tmp_path: Path) -> None:
    """Fields of tekton.dev/v1, every reference defined, and its results are files that a run writes."""
    spec = TASK["spec"]
    assert (TASK["apiVersion"], TASK["kind"]) == ("tekton.dev/v1", "Task")
    assert set(spec) == FIELDS["spec"]
    assert set(STEP) == FIELDS["step"]
    for part in ("params", "workspaces", "results"):
        assert all(set(one) <= FIELDS[part] for one in spec[part])
    text = yaml.safe_dump(spec["steps"])
    assert set(re.findall(r"\$\(params\.([\w-]+)\)", text)) == {one["name"] for one in spec["params"]}
    assert set(re.findall(r"\$\(workspaces\.([\w-]+)\.path\)", text)) == {one["name"] for one in spec["workspaces"]}
    assert "$(params." not in STEP["script"]
    platform(bad, {"DEPLOYGUARD_RESULTS": str(tmp_path)})
    assert {one["name"] for one in spec["results"]} == {path.name for path in tmp_path.iterdir()}
