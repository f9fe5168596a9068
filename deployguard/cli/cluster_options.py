"""Options of every command that talks to a cluster, named as kubectl names them, and the connection that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from deployguard.errors import UserError

if TYPE_CHECKING:
    from deployguard.kube.client import Kube

NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="The namespace; the context's own when not given.")]
AllNamespacesOption = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")]
SelectorOption = Annotated[str | None, typer.Option("--selector", "-l", help="Only those with these labels, as in `app=web,tier!=cache`.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="The context of the kubeconfig; the current one when not given.")]
KubeconfigOption = Annotated[
    str | None,
    typer.Option("--kubeconfig", help="The kubeconfig; $KUBECONFIG or ~/.kube/config when not given."),
]
AsOption = Annotated[str | None, typer.Option("--as", help="Act as this user.", metavar="USER")]
AsGroupOption = Annotated[
    list[str] | None,
    typer.Option("--as-group", help="Act as a member of this group; may be given several times.", metavar="GROUP"),
]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that the options name. `everywhere` is `--all-namespaces`."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()
    everywhere: bool = False

    def given(self) -> bool:
        """Whether the command line says anything about a cluster at all."""
        return self != Cluster()


def cluster(
    namespace: str | None = None,
    context: str | None = None,
    kubeconfig: str | None = None,
    as_user: str | None = None,
    as_groups: list[str] | None = None,
    *,
    everywhere: bool = False,
) -> Cluster:
    """The options as one value. Raises `UserError` for options that contradict each other."""
    if everywhere and namespace is not None:
        raise UserError("`--all-namespaces` and `--namespace` were both given", hint="leave out one of them")
    if as_groups and as_user is None:
        raise UserError("`--as-group` was given without `--as`", hint="name the user too, as in `--as ann --as-group release`")
    return Cluster(namespace, context, kubeconfig, as_user, tuple(as_groups or ()), everywhere)


def connected(options: Cluster) -> Kube:
    """The API server that the options name, asked nothing yet. Raises what `kube.client.connect` raises."""
    from deployguard.kube.client import connect

    return connect(
        kubeconfig=options.kubeconfig,
        context=options.context,
        namespace=options.namespace,
        as_user=options.as_user,
        as_groups=options.as_groups,
    )
