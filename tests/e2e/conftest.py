"""Worlds for the end-to-end tests, and their timings at the end of the test run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import World

TIMINGS = "timing"
Tell = Callable[[str], None]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world of its own, of which nothing is left afterwards."""
    made = World(tmp_path.resolve() / "w")
    made.folder.mkdir()
    yield made
    made.close()


@pytest.fixture
def tell(record_property: Callable[[str, Any], None]) -> Tell:
    """Say a measured time; it is printed at the end and never asserted."""
    return lambda text: record_property(TIMINGS, text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured."""
    for word in ("passed", "failed"):
        for report in terminalreporter.getreports(word):
            for name, text in getattr(report, "user_properties", ()):
                if name == TIMINGS and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")
