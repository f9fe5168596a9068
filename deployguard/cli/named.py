"""A guard by its file: what a pipeline has at hand, and where it need not know the guard's name and namespace a second time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deployguard.cli.homes import Place
    from deployguard.wiring.home import Home

GuardFileOption = Annotated[
    list[Path] | None, typer.Option("--file", "-f", help="The guard's files, as `run` takes them, in place of its name and namespace.")
]


def guard_of(place: Place, files: list[Path] | None, guard: str | None) -> tuple[Home, str | None]:
    """Where the guard is at home, and its name as far as it was said: by `--guard`, or by its file. Raises `UserError` for a bad file."""
    from deployguard.cli.run import guarded

    if not files:
        return place.home(), guard
    resolved, home = guarded(place, files, guard)
    return home, resolved.guard.metadata.name
