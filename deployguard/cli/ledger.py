"""`deployguard ledger`: the append-only record of everything that was decided, checked and exported."""

from __future__ import annotations

from typing import Annotated

import typer

from deployguard.cli.homes import homed
from deployguard.cli.options import output_format
from deployguard.errors import UserError
from deployguard.wiring.home import Home, only_guard

app = typer.Typer(
    help="The append-only record of everything that was decided.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


@app.command()
@homed
def verify(
    home: Home,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GUARD...]", help="Guards; all that are at home here when none is given.", show_default=False),
    ] = None,
) -> None:
    """Check that every line is as it was written.

    None may be changed, removed, inserted, or cut off at the end: every line carries a digest of the line before it. The
    exit code is 1 when a ledger is not whole.

    Example: deployguard ledger verify web
    """
    chosen = [only_guard(home, name) for name in names or home.guards()]
    if not chosen:
        raise UserError(f"no guard has run in {home.where} yet", hint=f"look where it did: {home.hint}")
    whole = True
    for name in dict.fromkeys(chosen):
        found = home.store(name).verify()
        whole = whole and found.ok
        entries = "1 entry" if found.lines == 1 else f"{found.lines} entries"
        typer.echo(f"{name}: {entries}, chain whole" if found.ok else f"{name}: NOT WHOLE: {found.text}")
    if not whole:
        raise typer.Exit(1)


@app.command()
@homed
def export(
    home: Home,
    guard: Annotated[str, typer.Argument(metavar="GUARD", help="The guard.", show_default=False)],
    rollout: Annotated[str | None, typer.Option("--rollout", help="Only the entries of this rollout.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="json: one entry on each line.")] = "json",
) -> None:
    """Print the entries, one JSON object on each line, oldest first.

    Example: deployguard ledger export web | jq -r .text
    """
    from deployguard.model.base import encode

    output_format(output, "json")
    store = home.store(only_guard(home, guard))
    count = 0
    for entry in store.entries(rollout):
        typer.echo(encode(entry).decode())
        count += 1
    if rollout is not None and not count:
        raise UserError(f"no rollout `{rollout}` in the ledger of `{guard}`", hint=f"list them with `deployguard history -g {guard}`")
