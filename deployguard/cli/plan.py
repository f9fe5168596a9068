"""`deployguard plan`: what a run would do, before it does anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployguard.cli.options import GuardOption, StateOption, output_format, state_directory, write_data
from deployguard.errors import UserError

if TYPE_CHECKING:
    from deployguard.local.client import FleetClient

MEASURED = 2.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="Guard, policy and fleet files.")] = None,
    guard: GuardOption = None,
    release: Annotated[Path | None, typer.Option(help="The candidate's release: a directory or a file.")] = None,
    config: Annotated[Path | None, typer.Option(help="The candidate's configuration: a file or a directory.")] = None,
    traffic: Annotated[
        float | None, typer.Option(min=0, help="Requests a second of all instances; measured for two seconds when not given.")
    ] = None,
    error_rate: Annotated[float | None, typer.Option(min=0, max=1, help="Stable's share of bad requests, as a fraction.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text, json or yaml.")] = "text",
    state: StateOption = None,
) -> None:
    """What would happen: versions and their difference, stages in instances, what each can detect, gates, the way back.

    Nothing is exposed; the candidate is only copied to where the fleet would take it from.

    Example: deployguard plan -f guard.yaml --release ./build --traffic 50
    """
    from deployguard.cli.opening import first_names
    from deployguard.engine.begin import current_stable, refusal
    from deployguard.files.guard_file import load_bundle, resolve
    from deployguard.local.client import FleetClient
    from deployguard.model.version import Version
    from deployguard.report.diff import directory_diff
    from deployguard.report.plan import plan_report, plan_text
    from deployguard.stores.file import FileStore
    from deployguard.wiring.guard import fleet_directory

    output_format(output, "text", "json", "yaml")
    if not file:
        raise UserError("no guard was given", hint="name its file: `deployguard plan -f guard.yaml --release DIR`")
    root = state_directory(state)
    resolved = resolve(guard, load_bundle([str(f) for f in file]))
    client = FleetClient(fleet_directory(root, resolved.guard.spec.target.name))
    view = client.observe()
    document = FileStore(root, resolved.guard.metadata.name).load()[0]
    known = current_stable(document, view)
    stable = known.version if known else view.instances[0].assigned
    candidate = Version(
        client.admit("release", release) if release else stable.release,
        client.admit("config", config) if config else stable.config,
    )
    names = {**first_names(client, view), **document.names}
    for path, digest in ((release, candidate.release), (config, candidate.config)):
        if path is not None:
            names[digest] = path.resolve().name
    changes: list[str] = []
    if release is not None:
        changes += directory_diff(_content(client, "release", stable.release), release)
    if config is not None:
        changes += directory_diff(_content(client, "config", stable.config), config)
    rate = traffic if traffic is not None else traffic_of(client)
    data = plan_report(resolved.policy, stable, candidate, view.wanted, names, rate, error_rate, changes)
    data["refused"] = refusal(document, stable, candidate, "") or None
    if output != "text":
        write_data(data, output)
        return
    typer.echo(plan_text(data).rstrip("\n"))
    if data["refused"]:
        typer.echo(f"\nit would be refused: {data['refused']}")


def _content(client: FleetClient, part: str, digest: str) -> Path | None:
    from deployguard.errors import WorldError

    try:
        return client.content("release" if part == "release" else "config", digest)
    except WorldError:
        return None


def traffic_of(client: FleetClient) -> float | None:
    """Requests a second, counted by the balancer; None when it counts nothing."""
    from deployguard import clock

    before, began = client.observe().served, clock.monotonic()
    clock.sleep(MEASURED)
    after, ended = client.observe().served, clock.monotonic()
    if not after:
        return None
    return sum(s.requests for s in after.values()) / (ended - began) - sum(s.requests for s in before.values()) / (ended - began)
