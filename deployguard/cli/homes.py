"""The options that say where guards are at home, the same for every command that needs one.

A command takes a `home`; `homed` gives it the options instead, in the command's own signature, so that `--help` shows them.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deployguard.cli.cluster_options import (
    AsGroupOption,
    AsOption,
    Cluster,
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    cluster,
    connected,
)
from deployguard.cli.options import StateOption, plugin, state_directory
from deployguard.errors import UserError
from deployguard.wiring.home import FileHome, Home

IN_CLUSTER = "DEPLOYGUARD_CLUSTER"
"""Set to anything but `0`, it says that guards are at home in the cluster, as `kubectl deployguard` does."""
OPTIONS: dict[str, Any] = {
    "state": StateOption,
    "namespace": NamespaceOption,
    "context": ContextOption,
    "kubeconfig": KubeconfigOption,
    "as_user": AsOption,
    "as_group": AsGroupOption,
}


@dataclass(frozen=True, slots=True)
class Place:
    """What the command line says about where guards are at home."""

    state: Path | None = None
    cluster: Cluster = field(default_factory=Cluster)

    def home(self, *, in_cluster: bool = False, namespace: str | None = None) -> Home:
        """The home: a state directory that was given, else a namespace of a cluster when an option speaks of one, else the usual directory.

        `in_cluster` is a guard of a workload there; `namespace` is what its file says, which an option goes before.
        """
        options = replace(self.cluster, namespace=self.cluster.namespace or namespace)
        asked = self.cluster.given() or plugin() or os.environ.get(IN_CLUSTER, "0") not in ("", "0")
        if self.state is None and (in_cluster or asked):
            from deployguard.wiring.cluster import ClusterHome

            return ClusterHome(lambda: connected(options), flags_of(options), everywhere=options.everywhere)
        return FileHome(state_directory(self.state), lambda: connected(options))

    def anywhere(self, *, everywhere: bool, selector: str | None) -> Home:
        """The home of guards in all namespaces with `everywhere`, and of workloads with these labels alone where `selector` is given.

        Raises `UserError` when a namespace, or a state directory, was named beside it.
        """
        chosen = self.cluster
        if everywhere:
            chosen = cluster(chosen.namespace, chosen.context, chosen.kubeconfig, chosen.as_user, list(chosen.as_groups), everywhere=True)
        home = replace(self, cluster=chosen).home(in_cluster=bool(selector))
        if (everywhere or selector) and isinstance(home, FileHome):
            raise UserError("`-A` and `-l` are for guards of a cluster", hint="leave out `--state`, and unset DEPLOYGUARD_STATE")
        if selector:
            home.select(selector)
        return home


def flags_of(options: Cluster) -> list[str]:
    """The options as they are written on a command line."""
    named = {"--namespace": options.namespace, "--context": options.context, "--kubeconfig": options.kubeconfig, "--as": options.as_user}
    flags = [part for flag, value in named.items() if value is not None for part in (flag, value)]
    return [*flags, *(part for group in options.as_groups for part in ("--as-group", group))]


def homed(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of a home instead of its parameter `home`, or `place` when it decides itself."""
    signature = inspect.signature(command, eval_str=True)
    wants = "place" if "place" in signature.parameters else "home"
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values() if p.name != wants]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in OPTIONS.items()]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        place = place_of(**{name: given.pop(name) for name in OPTIONS})
        command(**{wants: place if wants == "place" else place.home()}, **given)

    del wrapped.__wrapped__  # typer would look through it, and see the parameter that is filled in here
    wrapped.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *more]}
    return wrapped


def place_of(
    state: Path | None = None,
    namespace: str | None = None,
    context: str | None = None,
    kubeconfig: str | None = None,
    as_user: str | None = None,
    as_group: list[str] | None = None,
) -> Place:
    """The options as one value. Raises `UserError` for options that contradict each other."""
    return Place(state, cluster(namespace, context, kubeconfig, as_user, as_group))
