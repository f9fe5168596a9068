"""Every scenario, recorded and decided again: what comes out is what the ledger holds, to the byte."""

from __future__ import annotations

import pytest

from deployguard.engine.replay import compared
from deployguard.files.scenario_file import LoadedScenario
from deployguard.wiring.scenario import play
from tests.properties.world import Kept
from tests.scenarios.test_scenarios import shipped, stories


@pytest.mark.parametrize("loaded", [*stories(), *shipped()])
def test_a_story_is_decided_again_to_the_byte(loaded: LoadedScenario) -> None:
    """Also across crashes of the guard; every entry and every saved move is made again."""
    kept = Kept()
    played = play(loaded, kept)
    found = compared(loaded.policy, kept.read("scenario"), played.entries)
    assert found.difference is None
    assert found.identical
    assert (found.carried, found.lost) == ((), [])
    assert [e.n for e in found.entries] == [e.n for e in played.entries]
    assert found.ticks > 1
    assert found.moves > 1
