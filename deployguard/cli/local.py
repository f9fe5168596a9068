"""`deployguard local`: a fleet of processes on this machine, by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.options import OutputOption, StateOption, output_format, state_directory, write_data
from deployguard.errors import UserError

if TYPE_CHECKING:
    from deployguard.model.target import TargetView

app = typer.Typer(
    help="A fleet of processes on this machine, behind a balancer, kept alive by a supervisor of its own.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
NameArgument = Annotated[str | None, typer.Argument(help="The fleet's name; not needed when there is only one.")]


def only_fleet(state: Path, given: str | None) -> str:
    """The fleet that was named, or the only one. Raises `UserError` that lists them."""
    from deployguard.local.fleet import fleets

    known = [listed.name for listed in fleets(state)]
    if given is not None:
        if given not in known:
            raise UserError(
                f"there is no fleet `{given}` in {state}", hint=f"it knows {', '.join(known)}" if known else "start one with `local up -f`"
            )
        return given
    if len(known) != 1:
        listing = f"name one of {', '.join(known)}" if known else "start one with `deployguard local up -f fleet.yaml`"
        raise UserError(f"{len(known)} fleets in {state}", hint=listing)
    return known[0]


@app.command()
def up(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The fleet's file; without it a fleet that ran before starts from its disk.")
    ] = None,
    name: NameArgument = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end the fleet with this process: for systemd and launchd.")
    ] = False,
    state: StateOption = None,
) -> None:
    """Start a fleet and wait until every instance is ready or known not to be.

    Example: deployguard local up -f fleet.yaml
    """
    from deployguard.local import fleet

    root = state_directory(state)
    shown = -1

    def progress(view: TargetView) -> None:
        nonlocal shown
        ready = sum(i.ready for i in view.instances)
        if ready != shown:
            shown = ready
            typer.echo(f"{ready} of {view.wanted} instances are ready", err=True)

    if file is None:
        view = fleet.up_from_disk(only_fleet(root, name), root, foreground=foreground, on_progress=progress)
    else:
        from deployguard.files.guard_file import load_bundle

        fleets = load_bundle([file]).fleets
        chosen = name or (next(iter(fleets)) if len(fleets) == 1 else None)
        if chosen is None or chosen not in fleets:
            raise UserError(
                f"{file} holds {len(fleets)} fleets", hint="name one of " + ", ".join(fleets) if fleets else "a fleet is `kind: LocalFleet`"
            )
        view = fleet.up(fleets[chosen].value, file.absolute().parent, root, foreground=foreground, on_progress=progress)
    if foreground:
        return
    ready = sum(i.ready for i in view.instances)
    typer.echo(f"{ready} of {view.wanted} instances are ready at {view.listeners.get('all', '?')}")
    if ready < view.wanted:
        raise typer.Exit(1)


@app.command()
def down(name: NameArgument = None, state: StateOption = None) -> None:
    """End a fleet: every instance, its balancer and its supervisor. Its versions and logs stay on the disk.

    Example: deployguard local down
    """
    from deployguard.local import fleet

    root = state_directory(state)
    chosen = only_fleet(root, name)
    fleet.down(chosen, root)
    typer.echo(f"the fleet `{chosen}` is down", err=True)


@app.command()
def status(name: NameArgument = None, output: OutputOption = "text", state: StateOption = None) -> None:
    """Each instance: what it runs, whether it is ready, how often it exited.

    Example: deployguard local status -o json
    """
    from deployguard.local import fleet

    output_format(output, "text", "json", "yaml")
    root = state_directory(state)
    chosen = only_fleet(root, name)
    view = fleet.status(chosen, root)
    rows = _rows(view)
    if output != "text":
        listeners = {arm: view.listeners.get(arm) for arm in ("all", "stable", "candidate")}
        write_data({"fleet": chosen, "fence": view.fence, "listeners": listeners, "instances": rows}, output)
        return
    typer.echo("INSTANCE  VERSION     READY  EXITS  ADDRESS                SINCE")
    for row in rows:
        typer.echo(
            f"{row['instance']:<8}  {row['version']:<10}  {'yes' if row['ready'] else 'no':<5}  {row['exits']:<5}  "
            f"{row['address'] or '-':<21}  {row['since'] or '-'}" + (f"  {row['trouble']}" if row["trouble"] else "")
        )
    typer.echo("served at " + ", ".join(f"{arm} {view.listeners[arm]}" for arm in ("all", "stable", "candidate") if arm in view.listeners))


def _rows(view: TargetView) -> list[dict[str, Any]]:
    return [
        {
            "instance": i.id,
            "version": i.assigned.short,
            "loaded": i.loaded.short if i.loaded else None,
            "candidate": bool(view.told and view.told.candidate == i.assigned),
            "ready": i.ready,
            "exits": i.exits,
            "address": i.address,
            "since": i.started.strftime("%Y-%m-%d %H:%M:%S") if i.started else None,
            "trouble": i.refused or i.waiting,
        }
        for i in view.instances
    ]


@app.command()
def logs(
    instance: Annotated[str, typer.Argument(help="The instance, as `local status` shows it.")],
    name: Annotated[str | None, typer.Option("--fleet", help="The fleet's name; not needed when there is only one.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Show new lines as they come, until Ctrl-C.")] = False,
    state: StateOption = None,
) -> None:
    """The last lines that an instance logged.

    Example: deployguard local logs 3 --follow
    """
    from deployguard import clock
    from deployguard.local import fleet

    root = state_directory(state)
    path = fleet.log_path(only_fleet(root, name), instance, root)
    text = path.read_text(errors="replace") if path.exists() else ""
    shown = text.splitlines()
    for line in shown[max(0, len(shown) - lines) :]:
        typer.echo(line)
    at = len(text.encode())
    while follow:
        clock.sleep(0.2)
        size = path.stat().st_size if path.exists() else 0
        if size < at:  # rotated
            at = 0
        if size > at:
            with path.open("rb") as file:
                file.seek(at)
                data = file.read()
            at += len(data)
            typer.echo(data.decode(errors="replace"), nl=False)
