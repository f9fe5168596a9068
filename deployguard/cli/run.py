"""`deployguard run`: guard one change to its end."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.options import GuardOption, StateOption, only_guard, output_format, state_directory
from deployguard.errors import UserError

if TYPE_CHECKING:
    from deployguard.cli.session import Result
    from deployguard.model.document import Document

HELP = """Guard one change, a release or a configuration, to its end.

The candidate goes in front of a few instances first; the signals of the policy are watched; when they get worse than on the stable
instances, the last stable version comes back by itself. The exit code says how it ended:

  0 promoted, or nothing to do   10 rolled back: judged bad   11 the rollback is not complete

  12 taken back without a verdict   13 refused   124 timeout   130 interrupted   1 error   2 usage

Examples:

  deployguard run -f guard.yaml --release ./build

  deployguard run -f guard.yaml --config ./settings.json --report report.md

  deployguard run --resume
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", help=HELP)(run)


def run(
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="Guard, policy and fleet files; `-` reads standard input.")
    ] = None,
    guard: GuardOption = None,
    release: Annotated[Path | None, typer.Option(help="The candidate's release: a directory or a file.")] = None,
    config: Annotated[Path | None, typer.Option(help="The candidate's configuration: a file or a directory.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the candidate in reports; the path's last part when not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the saved rollout, from the saved state alone.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Let a background process drive it, and return at once.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while somebody else drives, instead of leaving.")] = False,
    timeout: Annotated[str | None, typer.Option(help="Take the candidate back after this time, for example 30m.")] = None,
    stay: Annotated[str, typer.Option(help="How long to stay for the relapse watch after a rollback.")] = "2m",
    watch: Annotated[bool, typer.Option("--watch", help="Stay after the promotion until the policy's watch is over.")] = False,
    override: Annotated[str | None, typer.Option(help="The reason for letting a quarantined candidate through.")] = None,
    on_cancel: Annotated[
        str, typer.Option(help="What Ctrl-C does: `rollback`, or `hold` (a background process keeps it where it is).")
    ] = "rollback",
    report: Annotated[list[Path] | None, typer.Option(help="Also write the report here; the suffix says how: .json, .md or .txt.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text, json, yaml or markdown.")] = "text",
    state: StateOption = None,
) -> None:
    """Guard one change to its end."""
    from deployguard.cli import rollout
    from deployguard.model.units import parse_duration

    output_format(output, "text", "json", "yaml", "markdown")
    if on_cancel not in ("rollback", "hold"):
        raise UserError(f"`--on-cancel {on_cancel}` is not known", hint="write `rollback` or `hold`")
    for path in report or []:
        _check_report(path)
    try:
        times = {what: parse_duration(text) for what, text in (("timeout", timeout), ("stay", stay)) if text is not None}
    except ValueError as error:
        raise UserError(str(error)) from error
    root = state_directory(state)
    plan = rollout.Plan(
        state=root,
        stay=times["stay"],
        timeout=times.get("timeout"),
        watch=watch,
        wait=wait,
        detach=detach,
        hold_on_cancel=on_cancel == "hold",
    )
    if resume:
        if file or release or config:
            raise UserError("`--resume` goes on with the saved rollout", hint="leave out `--file`, `--release` and `--config`")
        result = rollout.resumed(plan, only_guard(root, guard))
    else:
        if not file:
            raise UserError("no guard was given", hint="name its file: `deployguard run -f guard.yaml --release DIR`")
        change = rollout.Change(release=release, config=config, name=name, override=override or "")
        result = rollout.started(plan, [str(f) for f in file], guard, change)
    code = _finish(result, output, report or [])
    raise typer.Exit(code)


def _check_report(path: Path) -> None:
    if path.suffix not in (".json", ".md", ".txt"):
        raise UserError(f"`--report {path}`: the suffix does not say how to write it", hint="end it in .json, .md or .txt")
    if not path.absolute().parent.is_dir():
        raise UserError(f"`--report {path}`: there is no directory {path.absolute().parent}", hint="make it first")


def _finish(data: dict[str, Any], output: str, reports: list[Path]) -> int:
    """Write the report everywhere it was asked for; its exit code."""
    for path in reports:
        kind = {".json": "json", ".md": "markdown"}.get(path.suffix, "text")
        try:
            path.write_text(rendered(data, kind), encoding="utf-8")
        except OSError as error:
            raise UserError(f"could not write the report to {path}: {error.strerror}", hint="choose another place") from error
    typer.echo(rendered(data, output).rstrip("\n"))
    return int(data["exit_code"])


def rendered(data: dict[str, Any], output: str) -> str:
    """The run report as text in one of its forms."""
    if output == "json":
        from deployguard.report.jsons import dump

        return dump(data)
    if output == "yaml":
        import yaml

        return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    if output == "markdown":
        from deployguard.report.markdown import report_markdown

        return report_markdown(data)
    from deployguard.report.text import report_text

    return report_text(data)


def report_of(result: Result, now: dt.datetime) -> dict[str, Any]:
    """The run report of a drive."""
    from deployguard.report.view import run_report

    how = result.outcome
    return run_report(result.document, now=now, outcome=how.word, exit_code=how.exit_code, reason=how.reason)


def names_of(document: Document, release: Path | None, config: Path | None, name: str | None, digests: tuple[str, str]) -> dict[str, str]:
    """The document's names with those of a new candidate; at most the newest 150 are kept."""
    import msgspec

    from deployguard.model.version import Version

    names = dict(document.names)
    if release is not None:
        names[digests[0]] = name or release.resolve().name
    if config is not None:
        names[digests[1]] = (name if name and release is None else None) or config.resolve().name
    candidate = Version(*digests)
    # The ledger names versions by the digest of the pair, long after the rollout is gone from the document.
    names[candidate.digest] = msgspec.structs.replace(document, names=names).name(candidate)
    return dict(list(names.items())[-150:])
