"""`deployguard policy test`: policies tried on scenarios."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.options import output_format, write_data
from deployguard.errors import FileError, UserError

if TYPE_CHECKING:
    from deployguard.files.scenario_file import LoadedScenario
    from deployguard.files.yaml_lines import Document
    from deployguard.wiring.scenario import Played

MANY = 10
"""Scenarios from which on those that failed are listed once more at the end."""


def play_all(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files with scenarios, or folders of such files.", show_default=False)
    ],
    only: Annotated[
        str, typer.Option("--filter", "-k", metavar="TEXT", help="Only scenarios with this text in their sentence or file name.")
    ] = "",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the transcript and the numbers of scenarios that pass too.")
    ] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="text, json or junit.")] = "text",
) -> None:
    """Play scenarios and compare with what they expect.

    A scenario is a policy, what its signals read poll by poll, what happens, and the transcript that must come of it. It is played
    on a simulated clock by the real engine, and nothing outside is touched. The exit code is 1 when a scenario fails.

    Example: deployguard policy test policies/*.test.yaml

    Example: deployguard policy test tests/scenarios --filter latency --verbose
    """
    from deployguard import clock
    from deployguard.wiring.scenario import play

    output_format(output, "text", "json", "junit")
    loaded = _chosen(_loaded(_spread(files)), only)
    rows: list[tuple[LoadedScenario, Played, float]] = []
    for number, one in enumerate(loaded, 1):
        _shown(f"{number} of {len(loaded)}: {one.path}")
        began = clock.monotonic()
        rows.append((one, play(one), clock.monotonic() - began))
        _shown("")
        if output == "text":
            _tell(one, rows[-1][1], verbose=verbose)
    failed = [(one, played) for one, played, _ in rows if not played.ok]
    if output == "text":
        _sum_up(len(rows), [one for one, _ in failed])
    elif output == "json":
        write_data({"passed": len(rows) - len(failed), "failed": len(failed), "scenarios": [_row(*row) for row in rows]}, "json")
    else:
        typer.echo(_junit(rows, len(failed)), nl=False)
    if failed:
        raise typer.Exit(1)


def is_scenario(document: Document) -> bool:
    """Whether a document is meant as one or several scenarios."""
    data = document.data
    return isinstance(data, dict) and (data.get("kind") == "PolicyTest" or ("kind" not in data and bool({"why", "tests"} & data.keys())))


def _spread(files: Iterable[str]) -> list[str]:
    """The files, each once; a folder stands for those in it that hold scenarios. Raises `UserError` for one without any."""
    from deployguard.files.yaml_lines import read_yaml

    found: dict[str, None] = {}
    for path in files:
        folder = Path(path)
        if not folder.is_dir():
            found[path] = None
            continue
        inside = [str(one) for one in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))]
        inside = [one for one in inside if any(is_scenario(document) for document in read_yaml(one))]
        if not inside:
            raise UserError(f"no scenario stands in the folder {path}", hint="name a folder with YAML files that have `why` and `expect`")
        found |= dict.fromkeys(inside)
    return list(found)


def _loaded(paths: Iterable[str]) -> list[LoadedScenario]:
    """All scenarios. Raises `UserError` with every fault of every file."""
    from deployguard.files.scenario_file import load_scenarios

    loaded, wrong = list["LoadedScenario"](), list[FileError]()
    for path in paths:
        try:
            loaded += load_scenarios(path)
        except FileError as error:
            wrong.append(error)
    if wrong:
        raise UserError("\n".join(error.message for error in wrong), hint=next((error.hint for error in wrong if error.hint), ""))
    return loaded


def _chosen(loaded: list[LoadedScenario], only: str) -> list[LoadedScenario]:
    if not only:
        return loaded
    found = [one for one in loaded if only.lower() in f"{Path(one.path).name} {one.scenario.why}".lower()]
    if not found:
        raise UserError(f"none of {len(loaded)} scenarios has `{only}` in its sentence or file name", hint="choose another `--filter`")
    return found


def _tell(loaded: LoadedScenario, played: Played, *, verbose: bool) -> None:
    typer.echo(f"{'ok    ' if played.ok else 'FAILED'} {loaded.path}:{loaded.line}: {loaded.scenario.why}")
    if verbose or not played.ok:
        typer.echo("\n".join(f"    {line}".rstrip() for line in played.explained().splitlines()) + "\n")


def _sum_up(count: int, failed: list[LoadedScenario]) -> None:
    if count > MANY and failed:
        typer.echo("\n".join(["failed:", *(f"  {one.path}:{one.line}: {one.scenario.why}" for one in failed), ""]))
    typer.echo(f"{count - len(failed)} passed, {len(failed)} failed")


def _shown(text: str) -> None:
    """One line of progress, on a terminal only; empty: the line is free again."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


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
