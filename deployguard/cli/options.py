"""Options that several commands share, and where the state lives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deployguard.errors import UserError
from deployguard.wiring.home import usual_directory

StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state", envvar="DEPLOYGUARD_STATE", help="Directory of all state; ~/.local/state/deployguard when not given.", show_default=False
    ),
]
GuardOption = Annotated[str | None, typer.Option("--guard", "-g", help="The guard's name; not needed when there is only one.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="text, json or yaml.")]

ErrorRateOption = Annotated[float | None, typer.Option(min=0, max=1, help="Stable's share of bad requests, as a fraction.")]
PowerOption = Annotated[str, typer.Option("--power", help="How certainly a regression must be seen to be called visible, as in `95%`.")]


def power_of(given: str) -> float:
    """The power as a fraction. Raises `UserError` for one that is no share, or outside 50% to 99.9%."""
    from deployguard.model.units import parse_share

    try:
        power = parse_share(given)
    except ValueError as error:
        raise UserError(f"`--power {given}` is not a power: {error}", hint="write a percentage, as in `--power 95%`") from error
    if not 0.5 <= power <= 0.999:
        raise UserError(f"`--power {given}` is outside 50% to 99.9%", hint="write a percentage, as in `--power 95%`")
    return power


def plugin() -> bool:
    """Whether kubectl runs us, as its plugin."""
    return sys.argv[0].rpartition("/")[2].startswith("kubectl-")


def state_directory(given: Path | None) -> Path:
    """The state directory: the one given, absolute, or the usual one."""
    if given is not None:
        return given.expanduser().absolute()
    return usual_directory()


def output_format(given: str, *known: str) -> str:
    """The format, checked. Raises `UserError` that lists the known ones."""
    if given not in known:
        raise UserError(f"`{given}` is not an output format of this command", hint=f"it writes {', '.join(known)}")
    return given


def write_data(data: object, output: str) -> None:
    """Print data as JSON or YAML on standard output."""
    if output == "yaml":
        import yaml

        typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
        return
    from deployguard.report.jsons import dump

    typer.echo(dump(data).rstrip("\n"))
