"""`deployguard install`: print what has to be in a cluster before a pipeline can guard there."""

from __future__ import annotations

import re
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

_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("install")(install)


def install(
    ci: Annotated[bool, typer.Option("--ci", help="For pipelines: ServiceAccount, Role and RoleBinding.")] = False,
    reaper: Annotated[
        bool, typer.Option("--reaper", help="A CronJob that takes back canaries that nobody drives, with an account of its own.")
    ] = False,
    namespace: NamespaceOption = None,
    account: Annotated[str, typer.Option("--service-account", help="What the pipeline's account is called.")] = "deployguard",
    kinds: Annotated[
        list[str] | None, typer.Option("--kinds", help="The kinds that are guarded, for example `deployment`; all when not given.")
    ] = None,
    secrets: Annotated[
        list[str] | None, typer.Option("--secrets", help="Secrets that are guarded, by name; without it no rule speaks of Secrets.")
    ] = None,
    pools: Annotated[
        bool, typer.Option("--node-pools", help="DaemonSets are guarded pool by pool (`target.pool`): a ClusterRole to list nodes, too.")
    ] = False,
    image: Annotated[str | None, typer.Option("--image", help="For --reaper: an image that holds deployguard.")] = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    as_user: AsOption = None,
    as_group: AsGroupOption = None,
) -> None:
    """Print manifests for a cluster; nothing is applied. Each rule of a role says what it is for.

    Example: deployguard install --ci -n shop | kubectl apply -f -

    Example: deployguard install --ci --reaper -n shop --kinds deployment --image registry.example/deployguard:1
    """
    from deployguard.report.install import Pipeline, pipeline_manifests, reaper_manifests

    if not ci and not reaper:
        raise UserError("nothing to print was named", hint="write `deployguard install --ci`, `--reaper`, or both")
    if reaper and not image:
        raise UserError(
            "the reaper's CronJob needs an image", hint="name one that holds deployguard: `--image registry.example/deployguard:1`"
        )
    for what, names in (("--service-account", [account]), ("--secrets", _listed(secrets))):
        for name in names:
            if not _NAME.fullmatch(name):
                raise UserError(f"`{what} {name}` is no name that an object can have", hint="lower case letters, digits, `-` and `.`")
    options = cluster(namespace, context, kubeconfig, as_user, as_group)
    where = namespace if namespace is not None else connected(options).namespace
    if not _NAME.fullmatch(where):
        raise UserError(f"`--namespace {where}` is no name that a namespace can have", hint="lower case letters, digits and `-`")
    parts = [pipeline_manifests(Pipeline(where, account, _kinds(kinds), tuple(_listed(secrets)), pools))] if ci else []
    if reaper and image:
        parts.append(reaper_manifests(where, image, _kinds(kinds)))
    typer.echo("---\n".join(parts), nl=False)


def _listed(values: list[str] | None) -> list[str]:
    """The words of an option that may be given several times, and may hold several, split at commas."""
    return [word.strip() for value in values or [] for word in value.split(",") if word.strip()]


def _kinds(given: list[str] | None) -> tuple[str, ...]:
    """The kinds, in their usual order. Raises `UserError` for one that cannot be guarded."""
    from deployguard.report.rbac import KINDS
    from deployguard.wiring.survey import KINDS as WORDS

    words = {alias: kind for kind, aliases in WORDS.items() for alias in aliases}
    wanted = set()
    for word in _listed(given):
        if word.lower() not in words:
            raise UserError(f"`--kinds {word}` cannot be guarded", hint="there are deployment, statefulset and daemonset")
        wanted.add(words[word.lower()])
    return tuple(kind for kind in KINDS if kind in wanted) or KINDS
