"""The live view, drawn at 80 columns without colour."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from deployguard.model.document import Document
from deployguard.report.live import LiveView, render
from deployguard.report.stages import stages_of
from tests.properties.world import START, Sim
from tests.unit.reports import ended, rolling, ticked
from tests.unit.test_report_text import hostile


def drawn(document: Document, sim: Sim) -> str:
    """What the terminal would show."""
    console = Console(file=StringIO(), width=80, color_system=None)
    console.print(render(document, stages_of(rolling(document)), sim.clock.at))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    return text


def test_a_running_rollout_shows_stage_soak_checks_and_trail() -> None:
    """One look tells where it is, how long still, and what the checks say."""
    sim = Sim(bad=0.002)
    text = drawn(ticked(sim, 16), sim)
    for part in (
        "web  v1 -> v2",
        "STAGE 2/3 soak 0:04",
        "> stage 2/3",
        "0:04 of 0:10",
        "at most 4 of 8",
        "errors",
        "not yet",
        "of 111",
        "+12s analyzing",
    ):
        assert part in text
    assert [line.split()[-1] for line in text.splitlines() if "stage 1/3 1 of 8" in line] == ["done"]


@pytest.mark.parametrize(("bad", "state", "mark"), [(0.2, "ROLLED_BACK", "stopped"), (0.0, "PROMOTED", "done")])
def test_an_ended_rollout_shows_how_it_ended(bad: float, state: str, mark: str) -> None:
    """After the end every stage says whether it was done, stopped or never reached."""
    sim = Sim(bad=bad)
    text = drawn(ended(sim), sim)
    assert state in text
    assert mark in text


def test_nothing_rolled_out_is_one_line() -> None:
    """A guard without a rollout has nothing to show."""
    console = Console(file=StringIO(), width=80, color_system=None)
    console.print(render(Document(guard="web"), (), START))
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue() == "web: nothing was rolled out yet\n"


def test_what_a_service_logged_does_not_steer_the_terminal() -> None:
    """Escape sequences in texts are taken out before they are drawn."""
    sim = Sim(bad=0.2)
    assert "[2J" in drawn(hostile(ended(sim)), sim)


def test_the_view_follows_the_document() -> None:
    """Updates replace what is shown, and lines said stay above it."""
    sim = Sim(bad=0.2)
    document = ticked(sim, 3)
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    with LiveView(console) as view:
        view.update(document, stages_of(rolling(document)), sim.clock.at)
        view.say("[a] note\x1b[2J")
        view.update(ended_later(sim), stages_of(rolling(document)), sim.clock.at)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert "[a] note" in text
    assert "ROLLED_BACK" in text
    assert "\x1b[2J" not in text


def ended_later(sim: Sim) -> Document:
    """The same story at its end."""
    return sim.run()
