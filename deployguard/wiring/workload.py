"""The guarded workload as commands and drivers need it, whatever it is: a fleet of this machine or a workload of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployguard.errors import UserError
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.ports import Sink, Source, Target

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.model.policy import Policy
    from deployguard.signals.probe import ProbePool

NAMES_KEPT = 150


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be rolled out, as it was asked for.

    A fleet takes `release` and `configs[0]`, paths both; a workload of a cluster takes `images` (`[container=]image`), `manifest`,
    `settings` (`path=value`) and `configs` (`KIND/NAME=PATH`).
    """

    release: Path | None = None
    configs: tuple[str, ...] = ()
    name: str | None = None
    override: str = ""
    images: tuple[str, ...] = ()
    manifest: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.release or self.configs or self.images or self.manifest or self.settings)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate whose content lies where the target would take it from.

    `names` is what its parts are called, `diff` how they differ from stable, line by line, `notes` what a person should know of it.
    """

    version: Version
    names: dict[str, str] = field(default_factory=dict)
    diff: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Workload(Protocol):
    """What is guarded. `word` names it in messages: `fleet shop`, `deployment/web in shop`."""

    word: str
    name: str
    target: Target

    def observe(self) -> TargetView:
        """What runs where now. Raises `WorldError`."""
        ...

    def begun(self, view: TargetView, stable: Version | None) -> Version:
        """The stable version, whose content is kept from now on. Raises `WorldError` when nothing runs that one could go back to."""
        ...

    def names(self, view: TargetView) -> dict[str, str]:
        """What people call the version that was found running."""
        ...

    def candidate(self, change: Change, stable: Version, document: Document, *, differ: bool = False) -> Candidate:
        """The candidate that the change asks for; with `differ` also how it differs from `stable`.

        What is not given is stable's. Raises `UserError` for a change that this workload cannot take.
        """
        ...

    def place(self) -> dict[str, Any]:
        """Where it lives, so that a driver of another machine finds it; empty for a fleet, which is of one machine."""
        ...

    def probes(self) -> ProbePool:
        """What walks journeys to it from outside. Nothing runs before the first walk."""
        ...

    def sources(self, policy: Policy, probes: ProbePool) -> dict[str, Source]:
        """Where each check's numbers come from."""
        ...

    def sinks(self) -> Sequence[Sink]:
        """Who is told of every transition, whatever the guard says."""
        ...

    def traffic(self, policy: Policy, seconds: float) -> float | None:
        """Requests a second of all instances, counted over some seconds; None when nobody counts them."""
        ...

    def remarks(self, policy: Policy, view: TargetView) -> list[dict[str, str]]:
        """What a person should know of the checks and of the target, as `{"check": name or "", "text": ...}`."""
        ...

    def collect(self, document: Document) -> None:
        """What is kept of versions that the document no longer names is gone, and at once what FAIL has condemned."""
        ...

    def must_have_reaper(self) -> None:
        """Raise `RefusedError` when nobody would take a candidate back that its guard has left behind."""
        ...

    def close(self) -> None:
        """End what is kept running."""
        ...


def named(document: Document, candidate: Candidate) -> dict[str, str]:
    """The document's names with those of a new candidate; at most the newest are kept."""
    import msgspec

    names = {**document.names, **candidate.names}
    # The ledger names versions by the digest of the pair, long after the rollout is gone from the document.
    names[candidate.version.digest] = msgspec.structs.replace(document, names=names).name(candidate.version)
    return dict(list(names.items())[-NAMES_KEPT:])


def refuse_cluster_options(change: Change, word: str) -> None:
    """Raise `UserError` for parts of a change that only a workload of a cluster takes."""
    for given, option in ((change.images, "--image"), (change.manifest, "--manifest"), (change.settings, "--set")):
        if given:
            raise UserError(f"`{option}` is for workloads of a cluster, and the target is {word}", hint="a fleet takes `--release DIR`")
