"""`deployguard policy`: files checked, policies tried on scenarios and on recordings, shown as they apply, and their schemas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployguard.cli.options import ErrorRateOption, PowerOption, power_of, write_data
from deployguard.cli.scenarios import is_scenario, play_all
from deployguard.cli.simulate import simulate
from deployguard.errors import FileError, UserError

if TYPE_CHECKING:
    from deployguard.files.bundle import Bundle

app = typer.Typer(
    help="Check policies and guards, try them on scenarios and on recorded rollouts, show what applies.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.command("test")(play_all)
app.command()(simulate)
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Files to read; `-` is standard input.", show_default=False)]


@app.command()
def validate(
    files: Files,
    traffic: Annotated[
        float | None, typer.Option(min=0, help="Requests a second of all instances: then it is also said what each stage can see.")
    ] = None,
    error_rate: ErrorRateOption = None,
    instances: Annotated[int, typer.Option(min=1, help="Instances of the target.")] = 20,
    power: PowerOption = "90%",
) -> None:
    """Check guard, policy, fleet and scenario files.

    All files are read together, so that a guard may name a policy of another file; what a guard names must be there. Every fault of
    every file is shown with its line; the exit code is 2 when there is one.

    With --traffic it is also said what each stage of each guard and policy can see. A stage that cannot see what its checks claim is
    a warning, and the exit code stays 0; with `strict: true` in the policy it is 1, as `run` would refuse it with 13.

    Example: deployguard policy validate guard.yaml policies/*.yaml

    Example: deployguard policy validate guard.yaml --traffic 50 --instances 4
    """
    from deployguard.files.bundle import Bundle

    wanted_power = power_of(power)
    bundle = Bundle(paths=tuple(files))
    good: dict[str, str] = {}
    wrong: list[FileError] = []
    for path in dict.fromkeys(files):
        try:
            good[path] = _read(path, bundle)
        except FileError as error:
            wrong.append(error)
    wrong += _unresolved(bundle, {error.path for error in wrong})
    bad = {error.path for error in wrong}
    for path, found in good.items():
        if path not in bad:
            typer.echo(f"{path}: ok ({found})")
    if wrong:
        raise UserError("\n".join(error.message for error in wrong), hint=next((error.hint for error in wrong if error.hint), ""))
    if traffic is not None and _foreseen(bundle, instances, traffic, error_rate, wanted_power):
        raise typer.Exit(1)


def _foreseen(bundle: Bundle, instances: int, traffic: float, error_rate: float | None, power: float) -> bool:
    """Say what each stage of every guard, and of every policy that no guard names, can see; whether a strict one is blind."""
    from deployguard.files.guard_file import resolve
    from deployguard.report.plan import foresight
    from deployguard.report.plan_text import sight_lines
    from deployguard.report.sight import Expected

    resolved = {name: resolve(name, bundle) for name in bundle.guards}
    shown = {f"guard {name}": found.policy for name, found in resolved.items()}
    named = {found.policy_name for found in resolved.values()}
    shown |= {f"policy {name}": entry.value.spec for name, entry in bundle.policies.items() if name not in named}
    refused = False
    for name, policy in shown.items():
        seen = foresight(policy, instances, Expected(traffic, error_rate, power=power))
        blind = seen["sees_enough"] is False or seen["passes"] is False
        refused |= blind and policy.strict
        plan = {**seen, "sources": {}, "policies": [], "strict": policy.strict, "pass": policy.pass_}
        typer.echo("\n".join(["", f"{name}, {instances} instances:", *sight_lines(plan)]))
    return refused


def _read(path: str, bundle: Bundle) -> str:
    """What stands in a file, in words; its objects are in the bundle. Raises `FileError` with every fault."""
    from deployguard.errors import Fault
    from deployguard.files.bundle import add_document
    from deployguard.files.scenario_file import load_scenarios
    from deployguard.files.yaml_lines import read_yaml

    documents = read_yaml(path)
    if any(is_scenario(document) for document in documents):
        if path == "-":
            raise FileError(path, [Fault(0, "", "scenarios on standard input", "write them to a file and name it")])
        several = load_scenarios(path)
        return "1 scenario" if len(several) == 1 else f"{len(several)} scenarios"
    if not documents:
        raise FileError(path, [Fault(0, "", "nothing stands in this file", "write a guard in it, or let `deployguard init` write one")])
    faults = [fault for document in documents for fault in add_document(bundle, document)]
    if faults:
        raise FileError(path, sorted(faults, key=lambda fault: fault.line))
    return ", ".join(f"{document.data['kind']} {document.data['metadata']['name']}" for document in documents)


def _unresolved(bundle: Bundle, skip: set[str]) -> list[FileError]:
    """What the guards name and what is not there, or does not fit. Guards of files with faults of their own are left out."""
    from deployguard.files.guard_file import resolve

    wrong = []
    for name, entry in bundle.guards.items():
        if entry.path in skip:
            continue
        try:
            resolve(name, bundle)
        except FileError as error:
            wrong.append(error)
    return wrong


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="A shipped policy, or a file with a guard or policies.", show_default=False)
    ] = None,
    guard: Annotated[str | None, typer.Option("--guard", "-g", help="The guard, when the file has several.")] = None,
) -> None:
    """Print a policy with every field.

    Fields that nobody wrote stand there with their defaults. For a guard's file it is what really applies: its policy, its overrides
    and its checks, merged. Without a name the shipped policies are listed.

    Example: deployguard policy show production

    Example: deployguard policy show guard.yaml --guard web
    """
    from deployguard.files.shipped import shipped_names, shipped_policy
    from deployguard.files.write import to_yaml

    if name is None:
        if guard is not None:
            raise UserError(f"no file was given that holds the guard `{guard}`", hint="name it, as in `policy show guard.yaml --guard web`")
        typer.echo("\n".join(shipped_names()))
        return
    if name != "-" and not name.endswith((".yaml", ".yml")) and not Path(name).is_file():
        typer.echo(to_yaml(shipped_policy(name), name), nl=False)
        return
    typer.echo("---\n".join(_applying(name, guard)), nl=False)


def _applying(path: str, guard: str | None) -> list[str]:
    """The merged policy of the file's guard, or the policies of a file without one."""
    from deployguard.files.guard_file import load_bundle, resolve
    from deployguard.files.write import to_yaml

    bundle = load_bundle([path])
    if bundle.guards or guard is not None or not bundle.policies:
        found = resolve(guard, bundle)
        return [to_yaml(found.policy, found.policy_name)]
    return [to_yaml(entry.value.spec, name) for name, entry in bundle.policies.items()]


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="guard, policy, fleet, scenario or report.", show_default=False)],
) -> None:
    """Print the JSON Schema of a kind of file.

    Editors check files with it while they are written; `report` is for programs that read the run report.

    Example: deployguard policy schema guard > guard.schema.json
    """
    from deployguard.report.schema import report_schema

    known = {"guard": "guard", "policy": "policy", "fleet": "fleet", "scenario": "test", "test": "test"}
    if kind == "report":
        write_data(report_schema(), "json")
        return
    if kind not in known:
        raise UserError(f"no schema `{kind}`", hint="there are guard, policy, fleet, scenario and report")
    from deployguard.files.schemas import schema_text

    typer.echo(schema_text(known[kind]), nl=False)
