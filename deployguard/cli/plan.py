"""`deployguard plan`: what a run would do, before it does anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.homes import Place, homed
from deployguard.cli.options import ErrorRateOption, GuardOption, PowerOption, output_format, power_of, write_data
from deployguard.cli.run import ConfigOption, ImageOption, ManifestOption, ReleaseOption, SetOption, change_of, guarded

if TYPE_CHECKING:
    from deployguard.files.guard_file import Resolved
    from deployguard.wiring.home import Home
    from deployguard.wiring.workload import Change


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(homed(plan))


def plan(
    place: Place,
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="Guard, policy and fleet files.")] = None,
    guard: GuardOption = None,
    release: ReleaseOption = None,
    config: ConfigOption = None,
    image: ImageOption = None,
    manifest: ManifestOption = None,
    setting: SetOption = None,
    traffic: Annotated[
        float | None, typer.Option(min=0, help="Requests a second of all instances; measured for a few seconds when not given.")
    ] = None,
    error_rate: ErrorRateOption = None,
    power: PowerOption = "90%",
    output: Annotated[str, typer.Option("--output", "-o", help="text, json, yaml or markdown.")] = "text",
) -> None:
    """What would happen: versions and their difference, stages in instances, what each can detect, gates, the way back.

    Nothing is exposed; the candidate is only copied to where the target would take it from. What is not given is measured on the
    running workload, or taken from the recordings of the guard's last rollouts; the plan says which.

    Example: deployguard plan -f guard.yaml --release ./build --traffic 50

    Example: deployguard plan -f guard.yaml --image shop/web:1.9 -o markdown
    """
    output_format(output, "text", "json", "yaml", "markdown")
    resolved, home = guarded(place, file, guard)
    change = change_of(release, config, image, manifest, setting)
    _show(_report(home, resolved, change, Given(traffic, error_rate, power_of(power))), output)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says of the traffic; what is None is measured, or recorded."""

    traffic: float | None
    error_rate: float | None
    power: float


def _report(home: Home, resolved: Resolved, change: Change, given: Given) -> dict[str, Any]:
    """The plan, ready for JSON."""
    import msgspec

    from deployguard.engine.begin import current_stable, refusal
    from deployguard.files.shipped import shipped_names, shipped_policy
    from deployguard.report.plan import plan_report
    from deployguard.stores.readings import FileReadings
    from deployguard.wiring.expect import expected
    from deployguard.wiring.guard import workload_of
    from deployguard.wiring.learning import learnt

    policy = resolved.policy
    workload = workload_of(home, resolved)
    view = workload.observe()
    store = home.store(resolved.guard.metadata.name)
    document = store.load()[0]
    known = current_stable(document, view)
    stable = workload.begun(view, known.version if known else None)
    document = msgspec.structs.replace(document, names={**workload.names(view), **document.names})
    made = workload.candidate(change, stable, document, differ=True)
    traffic_known, sources = expected(
        workload,
        policy,
        learnt(FileReadings(store.directory), document, policy),
        traffic=given.traffic,
        error_rate=given.error_rate,
        power=given.power,
        say=lambda text: typer.echo(text, err=True),
    )
    data = plan_report(
        policy,
        stable,
        made.version,
        view.wanted,
        {**document.names, **made.names},
        traffic_known,
        made.diff,
        sources=sources,
        shipped={name: shipped_policy(name) for name in shipped_names() if name != resolved.policy_name},
        surge=view.surge,
    )
    data["remarks"] = workload.remarks(policy, view) + [{"check": "", "text": note} for note in made.notes]
    data["refused"] = refusal(document, stable, made.version, "") or None
    workload.close()
    return data


def _show(data: dict[str, Any], output: str) -> None:
    from deployguard.report.plan_text import plan_markdown, plan_text

    if output in ("json", "yaml"):
        write_data(data, output)
        return
    typer.echo((plan_markdown if output == "markdown" else plan_text)(data).rstrip("\n"))
    for remark in data["remarks"]:
        about = f"check {remark['check']}: " if remark["check"] else ""
        typer.echo(f"note: {about}{remark['text']}")
    if data["refused"]:
        typer.echo(f"\nit would be refused: {data['refused']}")
