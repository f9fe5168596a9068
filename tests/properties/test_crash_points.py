"""Every single-crash point of a run: the same outcome and the same trail as the quiet run."""

from __future__ import annotations

import pytest

from tests.properties.world import NEW, OLD, Crash, Sim

CASES = {"good": 0.0, "bad": 0.2}


def quiet(bad: float) -> tuple[list[str], int]:
    sim = Sim(bad=bad)
    sim.begin()
    sim.run()
    return sim.trail(), sim.calls


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_crash_at_any_call_changes_neither_outcome_nor_trail(case: str) -> None:
    """A driver that dies at any input or output call, before or after its effect, is followed by another that ends the same way."""
    trail, calls = quiet(CASES[case])
    points = range(1, calls + 1, 1)
    assert calls > 100

    for point in points:
        sim = Sim(bad=CASES[case])
        sim.begin()
        sim.crash_at = point
        try:
            sim.run()
        except Crash:
            sim.run(sim.driver())

        assert sim.trail() == trail, f"crash at call {point}"
        assert sim.document().stable[0].version == (NEW if case == "good" else OLD)
        assert sim.exposed() == (8 if case == "good" else 0)
