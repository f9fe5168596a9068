"""Every scenario, recorded and decided again: what comes out is what the ledger holds, to the byte."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from deployguard.engine.recording import read
from deployguard.engine.replay import compared
from deployguard.files.scenario_file import LoadedScenario
from deployguard.wiring.scenario import play
from tests.scenarios.test_scenarios import shipped, stories


class Kept:
    """Recordings in memory, that pass through their bytes as they do on a disk."""

    losses = 0

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append(self, rollout: str, record: dict[str, Any]) -> None:
        self.lines.append(msgspec.json.encode(record))


@pytest.mark.parametrize("loaded", [*stories(), *shipped()])
def test_a_story_is_decided_again_to_the_byte(loaded: LoadedScenario) -> None:
    """Also across crashes of the guard; every entry and every saved move is made again."""
    kept = Kept()
    played = play(loaded, kept)
    found = compared(loaded.policy, read(map(msgspec.json.decode, kept.lines), "scenario"), played.entries)
    assert found.difference is None
    assert found.identical
    assert (found.carried, found.lost) == ((), [])
    assert [e.n for e in found.entries] == [e.n for e in played.entries]
    assert found.ticks > 1
    assert found.moves > 1
