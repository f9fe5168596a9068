"""`deployguard policy`: files checked, policies tried on scenarios and on recordings, shown as they apply, and their schemas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.options import output_format, write_data
from deployguard.cli.simulate import simulate
from deployguard.errors import FileError, UserError

if TYPE_CHECKING:
    from deployguard.files.bundle import Bundle
    from deployguard.files.scenario_file import LoadedScenario
    from deployguard.files.yaml_lines import Document
    from deployguard.wiring.scenario import Played

app = typer.Typer(
    help="Check policies and guards, try them on scenarios and on recorded rollouts, show what applies.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.command()(simulate)
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Files to read; `-` is standard input.", show_default=False)]


@app.command()
def validate(files: Files) -> None:
    """Check guard, policy, fleet and scenario files.

    All files are read together, so that a guard may name a policy of another file; what a guard names must be there. Every fault of
    every file is shown with its line; the exit code is 2 when there is one.

    Example: deployguard policy validate guard.yaml policies/*.yaml
    """
    from deployguard.files.bundle import Bundle

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


def _read(path: str, bundle: Bundle) -> str:
    """What stands in a file, in words; its objects are in the bundle. Raises `FileError` with every fault."""
    from deployguard.errors import Fault
    from deployguard.files.bundle import add_document
    from deployguard.files.scenario_file import load_scenarios
    from deployguard.files.yaml_lines import read_yaml

    documents = read_yaml(path)
    if any(_is_scenario(document) for document in documents):
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


def _is_scenario(document: Document) -> bool:
    data = document.data
    return isinstance(data, dict) and (data.get("kind") == "PolicyTest" or ("kind" not in data and bool({"why", "tests"} & data.keys())))


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


@app.command("test")
def play_all(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files with scenarios.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", help="text, json or junit.")] = "text",
) -> None:
    """Play scenarios and compare with what they expect.

    A scenario is a policy, what its signals read poll by poll, what happens, and the transcript that must come of it. It is played
    on a simulated clock by the real engine, and nothing outside is touched. The exit code is 1 when a scenario fails.

    Example: deployguard policy test policies/*.test.yaml
    """
    from deployguard import clock
    from deployguard.files.scenario_file import load_scenarios
    from deployguard.wiring.scenario import play

    output_format(output, "text", "json", "junit")
    loaded = [one for path in dict.fromkeys(files) for one in load_scenarios(path)]
    rows: list[tuple[LoadedScenario, Played, float]] = []
    for one in loaded:
        began = clock.monotonic()
        rows.append((one, play(one), clock.monotonic() - began))
        if output == "text":
            _tell(one, rows[-1][1])
    failed = sum(not played.ok for _, played, _ in rows)
    if output == "text":
        typer.echo(f"{len(rows) - failed} passed, {failed} failed")
    elif output == "json":
        write_data({"passed": len(rows) - failed, "failed": failed, "scenarios": [_row(*row) for row in rows]}, "json")
    else:
        typer.echo(_junit(rows, failed), nl=False)
    if failed:
        raise typer.Exit(1)


def _tell(loaded: LoadedScenario, played: Played) -> None:
    typer.echo(f"{'ok    ' if played.ok else 'FAILED'} {loaded.path}:{loaded.line}: {loaded.scenario.why}")
    if not played.ok:
        typer.echo("\n".join(f"    {line}".rstrip() for line in played.explained().splitlines()) + "\n")


def _row(loaded: LoadedScenario, played: Played, seconds: float) -> dict[str, Any]:
    return {
        "file": loaded.path,
        "line": loaded.line,
        "why": loaded.scenario.why,
        "policy": loaded.policy_name,
        "ok": played.ok,
        "outcome": played.outcome,
        "exit_code": played.exit_code,
        "problems": [{"file": p.path, "line": p.line, "text": p.text} for p in played.problems],
        "transcript": played.transcript,
        "diff": played.diff,
        "findings": played.findings.splitlines(),
        "seconds": round(seconds, 3),
    }


def _junit(rows: list[tuple[LoadedScenario, Played, float]], failed: int) -> str:
    """One suite, one case for each scenario."""
    from xml.sax.saxutils import escape, quoteattr

    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>"]
    total = sum(seconds for _, _, seconds in rows)
    lines.append(f'  <testsuite name="deployguard policy test" tests="{len(rows)}" failures="{failed}" errors="0" time="{total:.3f}">')
    for loaded, played, seconds in rows:
        place = f"file={quoteattr(loaded.path)} line={quoteattr(str(loaded.line))}"
        name = quoteattr(_printable(loaded.scenario.why))
        head = f'    <testcase classname={quoteattr(loaded.path)} name={name} {place} time="{seconds:.3f}"'
        if played.ok:
            lines.append(head + "/>")
            continue
        first = quoteattr(_printable(str(played.problems[0])))
        lines.append(f"{head}><failure message={first}>{escape(_printable(played.explained()))}</failure></testcase>")
    return "\n".join([*lines, "  </testsuite>", "</testsuites>"]) + "\n"


def _printable(text: str) -> str:
    """The text without characters that XML cannot carry."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


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
