"""The engine as transcripts: every file here is one story on a simulated clock, and so is every scenario of a shipped policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployguard.files.scenario_file import LoadedScenario, load_scenarios
from deployguard.files.shipped import shipped_folder, shipped_names
from deployguard.wiring.scenario import play

HERE = Path(__file__).parent


def stories() -> list[object]:
    """Every scenario of this folder."""
    paths = sorted(HERE.glob("*.yaml"))
    return [
        pytest.param(loaded, id=f"{path.stem}-{n}" if n else path.stem) for path in paths for n, loaded in enumerate(load_scenarios(path))
    ]


def shipped() -> list[object]:
    """Every scenario of the shipped policies."""
    paths = [shipped_folder() / f"{name}.test.yaml" for name in shipped_names()]
    return [pytest.param(loaded, id=f"{path.stem}-{n}") for path in paths for n, loaded in enumerate(load_scenarios(path), 1)]


@pytest.mark.parametrize("loaded", stories())
def test_a_story_ends_as_it_should(loaded: LoadedScenario) -> None:
    """The transcript and the outcome are those that the scenario expects."""
    played = play(loaded)
    assert played.ok, "\n" + played.explained()


@pytest.mark.parametrize("loaded", shipped())
def test_a_shipped_policy_does_what_its_scenarios_say(loaded: LoadedScenario) -> None:
    """As for the stories, with the policies that people use."""
    played = play(loaded)
    assert played.ok, "\n" + played.explained()


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_policy_is_told_in_at_least_four_scenarios(name: str) -> None:
    """Each of them is played under the policy that the file is named after, and ends in more than one way."""
    several = load_scenarios(shipped_folder() / f"{name}.test.yaml")
    assert len(several) >= 4
    assert {loaded.policy_name for loaded in several} == {name}
    assert len({loaded.scenario.outcome for loaded in several}) >= 2


def documented() -> list[str]:
    """Every whole scenario of docs/scenarios.md."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (HERE.parents[1] / "docs" / "scenarios.md").read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if block.startswith("why:")]


@pytest.mark.parametrize("text", documented())
def test_a_scenario_of_the_documents_does_what_it_says(text: str, tmp_path: Path) -> None:
    """People begin with a copy of these; what stands below the second one holds too."""
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    (loaded,) = load_scenarios(path)
    played = play(loaded)
    assert played.ok, "\n" + played.explained()
    if "clumps" in text:
        path.write_text(text.replace("claims: 5", "claims: 5, dispersion: 1").replace("promoted", "rolled_back"))
        assert play(load_scenarios(path)[0]).ok


def test_a_play_comes_out_the_same_every_time() -> None:
    """Two plays of one scenario have the same transcript and the same numbers, to the last digit."""
    (loaded,) = load_scenarios(HERE / "errors.yaml")
    assert play(loaded) == play(loaded)
