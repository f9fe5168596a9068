"""Where the report of a rollout goes: standard output, files, and the CI system that we run on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from deployguard.errors import UserError

FORMS = ("text", "json", "yaml", "markdown", "junit")
SUFFIXES = {".json": "json", ".md": "markdown", ".txt": "text", ".xml": "junit", ".yaml": "yaml"}

ReportOption = Annotated[
    list[Path] | None,
    typer.Option("--report", help="Also write the report here; the suffix says how: .json, .md, .txt, .xml (JUnit) or .yaml."),
]
FormOption = Annotated[str, typer.Option("--output", "-o", help="text, json, yaml, markdown or junit.")]


def check_reports(paths: Sequence[Path]) -> None:
    """Nothing is wrong with the files that the report shall be written to, as far as one can tell before. Raises `UserError`."""
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise UserError(f"`--report {path}`: the suffix does not say how to write it", hint=f"end it in {', '.join(SUFFIXES)}")
        if not path.absolute().parent.is_dir():
            raise UserError(f"`--report {path}`: there is no directory {path.absolute().parent}", hint="make it first")


def finish(report: dict[str, Any], output: str, paths: Sequence[Path] = ()) -> int:
    """The report is written everywhere it was asked for, and given to the CI system that we run on; its exit code."""
    from deployguard.report.annotations import platform

    for path in paths:
        try:
            path.write_text(rendered(report, SUFFIXES[path.suffix]), encoding="utf-8")
        except OSError as error:
            raise UserError(f"could not write the report to {path}: {error.strerror}", hint="choose another place") from error
    for line in platform(report, os.environ, paths[0] if paths else None):
        typer.echo(line, err=True)
    typer.echo(rendered(report, output).rstrip("\n"))
    return int(report["exit_code"])


def rendered(report: dict[str, Any], output: str) -> str:
    """The report as text in one of its forms."""
    if output == "json":
        from deployguard.report.jsons import dump

        return dump(report)
    if output == "yaml":
        import yaml

        return str(yaml.safe_dump(report, sort_keys=False, allow_unicode=True))
    if output == "markdown":
        from deployguard.report.markdown import report_markdown

        return report_markdown(report)
    if output == "junit":
        from deployguard.report.junit import report_junit

        return report_junit(report)
    from deployguard.report.text import report_text

    return report_text(report)
