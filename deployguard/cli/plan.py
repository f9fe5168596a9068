"""`deployguard plan`: what a run would do, before it does anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.options import (
    ErrorRateOption,
    GuardOption,
    PowerOption,
    StateOption,
    output_format,
    power_of,
    state_directory,
    write_data,
)
from deployguard.errors import UserError

if TYPE_CHECKING:
    from deployguard.local.client import FleetClient
    from deployguard.model.version import Version


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="Guard, policy and fleet files.")] = None,
    guard: GuardOption = None,
    release: Annotated[Path | None, typer.Option(help="The candidate's release: a directory or a file.")] = None,
    config: Annotated[Path | None, typer.Option(help="The candidate's configuration: a file or a directory.")] = None,
    traffic: Annotated[
        float | None, typer.Option(min=0, help="Requests a second of all instances; measured for a few seconds when not given.")
    ] = None,
    error_rate: ErrorRateOption = None,
    power: PowerOption = "90%",
    output: Annotated[str, typer.Option("--output", "-o", help="text, json, yaml or markdown.")] = "text",
    state: StateOption = None,
) -> None:
    """What would happen: versions and their difference, stages in instances, what each can detect, gates, the way back.

    Nothing is exposed; the candidate is only copied to where the fleet would take it from. What is not given is measured on the running
    fleet, or taken from the recordings of the guard's last rollouts; the plan says which.

    Example: deployguard plan -f guard.yaml --release ./build --traffic 50
    """
    from deployguard.cli.opening import first_names
    from deployguard.clock import now
    from deployguard.engine.begin import current_stable, refusal
    from deployguard.files.guard_file import load_bundle, resolve
    from deployguard.files.shipped import shipped_names, shipped_policy
    from deployguard.local.client import FleetClient
    from deployguard.report.plan import plan_report
    from deployguard.stores.file import FileStore
    from deployguard.stores.readings import FileReadings
    from deployguard.wiring.expect import expected
    from deployguard.wiring.guard import fleet_directory
    from deployguard.wiring.learning import learnt
    from deployguard.wiring.remarks import remarks

    output_format(output, "text", "json", "yaml", "markdown")
    wanted_power = power_of(power)
    if not file:
        raise UserError("no guard was given", hint="name its file: `deployguard plan -f guard.yaml --release DIR`")
    root = state_directory(state)
    resolved = resolve(guard, load_bundle([str(f) for f in file]))
    client = FleetClient(fleet_directory(root, resolved.guard.spec.target.name))
    view = client.observe()
    store = FileStore(root, resolved.guard.metadata.name)
    document = store.load()[0]
    known = current_stable(document, view)
    stable = known.version if known else view.instances[0].assigned
    candidate, names, changes = _change(client, stable, release, config)
    names = {**first_names(client, view), **document.names, **names}
    traffic_known, sources = expected(
        client,
        learnt(FileReadings(store.directory), document, resolved.policy),
        traffic=traffic,
        error_rate=error_rate,
        power=wanted_power,
        say=lambda text: typer.echo(text, err=True),
    )
    shipped = {name: shipped_policy(name) for name in shipped_names() if name != resolved.policy_name}
    data = plan_report(resolved.policy, stable, candidate, view.wanted, names, traffic_known, changes, sources=sources, shipped=shipped)
    data["remarks"] = remarks(resolved.policy, view.instances, now())
    data["refused"] = refusal(document, stable, candidate, "") or None
    _show(data, output)


def _show(data: dict[str, Any], output: str) -> None:
    from deployguard.report.plan_text import plan_markdown, plan_text

    if output in ("json", "yaml"):
        write_data(data, output)
        return
    typer.echo((plan_markdown if output == "markdown" else plan_text)(data).rstrip("\n"))
    for remark in data["remarks"]:
        typer.echo(f"note: check {remark['check']}: {remark['text']}")
    if data["refused"]:
        typer.echo(f"\nit would be refused: {data['refused']}")


def _change(client: FleetClient, stable: Version, release: Path | None, config: Path | None) -> tuple[Version, dict[str, str], list[str]]:
    """The candidate, what its parts are called, and how it differs from stable, line by line."""
    from deployguard.model.version import Version
    from deployguard.report.diff import directory_diff

    candidate = Version(
        client.admit("release", release) if release else stable.release,
        client.admit("config", config) if config else stable.config,
    )
    names: dict[str, str] = {}
    changes: list[str] = []
    for kind, path in (("release", release), ("config", config)):
        if path is not None:
            names[getattr(candidate, kind)] = path.resolve().name
            changes += directory_diff(_content(client, kind, getattr(stable, kind)), path)
    return candidate, names, changes


def _content(client: FleetClient, part: str, digest: str) -> Path | None:
    from deployguard.errors import WorldError

    try:
        return client.content("release" if part == "release" else "config", digest)
    except WorldError:
        return None
