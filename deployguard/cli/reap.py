"""`deployguard reap`: take back every canary that nobody drives any more. What a pipeline that was killed leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.cluster_options import (
    AllNamespacesOption,
    AsGroupOption,
    AsOption,
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    cluster,
    connected,
)
from deployguard.cli.options import OutputOption, output_format, write_data
from deployguard.errors import DeployguardError, UserError

if TYPE_CHECKING:
    from deployguard.kube.client import Kube
    from deployguard.targets.kubernetes.reap import Reaped


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reap")(reap)


def reap(
    namespace: NamespaceOption = None,
    everywhere: AllNamespacesOption = False,
    lasting: Annotated[
        str | None, typer.Option("--for", help="Look again and again for so long, for example 55s; once when not given.")
    ] = None,
    every: Annotated[str, typer.Option(help="How often it looks.")] = "5s",
    output: OutputOption = "text",
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    as_user: AsOption = None,
    as_group: AsGroupOption = None,
) -> None:
    """Take back every canary that nobody drives any more: whoever drove it was killed, or cannot reach the cluster.

    Stable pods are not touched, and a canary that somebody drives is left alone. `deployguard install --ci --reaper` prints a CronJob
    that runs this each minute. The exit code is 1 when the cluster could not be looked at the last time.

    Example: deployguard reap -n shop --for 55s
    """
    from deployguard.model.units import parse_duration

    output_format(output, "text", "json", "yaml")
    try:
        seconds = 0.0 if lasting is None else parse_duration(lasting).total_seconds()
        pause = parse_duration(every).total_seconds()
    except ValueError as error:
        raise UserError(str(error)) from error
    if pause < 1:
        raise UserError(f"`--every {every}` is too often", hint="once a second is the most: `--every 1s`")
    kube = connected(cluster(namespace, context, kubeconfig, as_user, as_group, everywhere=everywhere))
    rows, failure = _passes(kube, "" if everywhere else kube.namespace, seconds, pause, tell=output == "text")
    if output != "text":
        write_data(rows, output)
    elif not rows and failure is None:
        typer.echo(f"no canary in {'any namespace' if everywhere else kube.namespace} is without a driver", err=True)
    if failure is not None:
        raise failure


def _passes(
    kube: Kube, namespace: str, seconds: float, pause: float, *, tell: bool
) -> tuple[list[dict[str, Any]], DeployguardError | None]:
    """What was taken back in all passes, and why the last one failed; None when it did not."""
    from deployguard import clock
    from deployguard.targets.kubernetes import reap as reaper

    deadline = clock.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    while True:
        failure: DeployguardError | None = None
        try:
            taken = reaper.reap(kube, [namespace], clock.now())
        except DeployguardError as error:
            taken, failure = [], error
        rows += [_row(one) for one in taken]
        for one in taken if tell else []:
            typer.echo(f"{one.workload.namespace}: canary {one.canary} of {one.workload.kind}/{one.workload.name} taken back: {one.why}")
        if clock.monotonic() + pause > deadline:
            return rows, failure
        if failure is not None:
            typer.echo(f"error: {failure.message}; looking again in {pause:g} s", err=True)
        clock.sleep(pause)


def _row(taken: Reaped) -> dict[str, Any]:
    return {
        "namespace": taken.workload.namespace,
        "kind": taken.workload.kind,
        "name": taken.workload.name,
        "canary": taken.canary,
        "fence": taken.fence,
        "replicas": taken.replicas,
        "why": taken.why,
    }
