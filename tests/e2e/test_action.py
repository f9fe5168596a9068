"""The GitHub action's own steps, as a runner runs them, on a real fleet: a promotion, a cancelled job, and one that was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.world import QUICK, USERS, World, eventually

pytestmark = pytest.mark.e2e
ACTION: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[World]:
    """A fleet of two shops."""
    made = World(tmp_path.resolve(), instances=2)
    made.up()
    yield made
    made.close()


class Runner:
    """As much of GitHub's runner as a composite action sees: files for its output, its inputs, and signals to the first process."""

    def __init__(self, world: World, **inputs: str) -> None:
        self.world = world
        self.folder = world.folder / "runner"
        (self.folder / "bin").mkdir(parents=True)
        tool = self.folder / "bin/deployguard"
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deployguard "$@"\n')
        tool.chmod(0o755)
        self.inputs = {name: str(about.get("default", "")) for name, about in ACTION["inputs"].items()} | inputs
        self.inputs |= {"name": "", "report": str(self.folder / "report")}

    def start(self, word: str) -> subprocess.Popen[bytes]:
        """Begin the step whose name holds the word."""
        step = next(one for one in ACTION["runs"]["steps"] if word in one["name"])
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        given = {key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: self.inputs[m[1]], value) for key, value in step["env"].items()}
        files = {"GITHUB_OUTPUT": str(self.folder / "output"), "GITHUB_STEP_SUMMARY": str(self.folder / "summary")}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        env = {**self.world.env, **given, **files, "GITHUB_ACTIONS": "true", "CI": "true", "PATH": path}
        with (self.folder / "log").open("wb") as log:
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=Path(__file__).parents[2], start_new_session=True)

    def run(self, word: str) -> int:
        """The exit code of the step whose name holds the word."""
        return self.start(word).wait(180)

    @property
    def log(self) -> str:
        """What the last step said."""
        return (self.folder / "log").read_text()

    @property
    def outputs(self) -> dict[str, str]:
        """What was written for later steps."""
        path = self.folder / "output"
        return dict(line.split("=", 1) for line in path.read_text().splitlines()) if path.exists() else {}

    def under_way(self) -> subprocess.Popen[bytes]:
        """The guarding step, once its candidate serves."""
        step = self.start("Guard")

        def serves() -> bool:
            assert step.poll() is None, self.log
            view = self.world.view()
            return any(i.loaded != view.adopted for i in view.instances)

        eventually(serves)
        return step


def guarded(shop: World, soak: str = "2s") -> Runner:
    """A runner with a good release for the fleet, which stays in its first stage for so long."""
    policy = {**QUICK, "stages": [{"instances": 1, "soak": soak}, {"exposure": "100%", "soak": "1s"}]}
    guard = shop.guard({**USERS, "required": False}, policy=policy)
    return Runner(shop, guard=str(guard), release=str(shop.release()))


def test_a_release_is_guarded_and_told_of(shop: World) -> None:
    """Promoted: exit code 0, the outputs, a summary page, a notice in the log, and three reports."""
    runner = guarded(shop)
    assert runner.run("Guard") == 0, runner.log
    assert runner.outputs["verdict"] == "pass"
    assert runner.outputs["rollback"] == "false"
    assert json.loads(Path(runner.outputs["report-path"]).read_text())["exit_code"] == 0
    assert {path.name for path in (runner.folder / "report").iterdir()} == {"report.json", "report.md", "report.xml"}
    assert (runner.folder / "summary").read_text().startswith("### shop: promoted")
    assert "::notice title=deployguard shop::PROMOTED" in runner.log


def test_a_cancelled_step_takes_its_candidate_back(shop: World) -> None:
    """The runner signals the first process alone, and that is deployguard: everything is back and said before the step ends."""
    runner = guarded(shop, soak="5m")
    step = runner.under_way()
    step.send_signal(signal.SIGINT)
    assert step.wait(120) == 130, runner.log
    assert (runner.outputs["exit-code"], runner.outputs["verdict"], runner.outputs["rollback"]) == ("130", "none", "true")
    assert shop.on_stable()


def test_what_a_killed_step_has_left_is_taken_back_by_the_last_one(shop: World) -> None:
    """Killed in the middle it leaves no output; the cleaning step aborts the rollout, and finds nothing to do the second time."""
    runner = guarded(shop, soak="5m")
    step = runner.under_way()
    os.killpg(step.pid, signal.SIGKILL)
    step.wait(30)
    assert runner.outputs == {}
    assert runner.run("Take back") == 0, runner.log
    assert shop.on_stable()
    assert runner.run("Take back") == 0, runner.log
