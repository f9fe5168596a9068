"""`deployguard init`: look at a running workload and write a guard file that fits it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from deployguard.cli.cluster_options import (
    AsGroupOption,
    AsOption,
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    cluster,
    connected,
)
from deployguard.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    workload: Annotated[str, typer.Argument(metavar="KIND/NAME", help="The workload, as in deployment/web, sts/db, ds/agent.")],
    namespace: NamespaceOption = None,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file; to standard output when not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    watched: Annotated[str, typer.Option("--for", help="How long to count requests, to propose a policy that fits.")] = "5s",
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    as_user: AsOption = None,
    as_group: AsGroupOption = None,
) -> None:
    """Look at a running workload - replicas, configuration, metrics, traffic - and write a guard file that fits, with comments.

    Nothing is changed in the cluster.

    Example: deployguard init deployment/web -n shop -o guard.yaml
    """
    from deployguard.model.units import parse_duration
    from deployguard.wiring.proposal import guard_text
    from deployguard.wiring.survey import named, survey

    kind, name = named(workload)
    try:
        seconds = parse_duration(watched).total_seconds()
    except ValueError as error:
        raise UserError(str(error)) from error
    if out is not None and not force:
        _must_be_free(out)
    kube = connected(cluster(namespace, context, kubeconfig, as_user, as_group))
    typer.echo(f"looking at {kind.lower()}/{name} in {kube.namespace}, counting requests for {seconds:g} s", err=True)
    text = guard_text(survey(kube, kind, kube.namespace, name, seconds))
    if out is None:
        typer.echo(text, nl=False)
        return
    _write(out, text, force=force)
    typer.echo(f"{out} written; next: `deployguard plan -f {out} --image NEW_IMAGE`", err=True)


def _must_be_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} is there already", hint="write it elsewhere, or over that one with `--force`")


def _write(path: Path, text: str, *, force: bool) -> None:
    """The file holds `text`. Raises `UserError`; without `force` also when somebody made the file meanwhile."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _must_be_free(path)
    except OSError as error:
        raise UserError(f"could not write the guard to {path}: {error.strerror}", hint="choose another place with `-o`") from error
