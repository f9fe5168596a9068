"""From a guard, its home and its workload to a driver's world."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployguard.announce.announcer import Announcer
from deployguard.announce.build import build as build_sinks
from deployguard.clock import SystemClock
from deployguard.driver.world import World
from deployguard.errors import UserError
from deployguard.model.document import Document
from deployguard.model.rollout import Rollout
from deployguard.model.target import Desired, TargetView
from deployguard.ports import Target
from deployguard.signals.probe import ProbePool
from deployguard.stores.readings import FileReadings
from deployguard.wiring.home import FileHome, GuardStore, Home
from deployguard.wiring.sources import patience_of
from deployguard.wiring.workload import Workload

if TYPE_CHECKING:
    from deployguard.files.guard_file import Resolved
    from deployguard.model.guard import Sink
    from deployguard.model.policy import Policy


def identity() -> str:
    """This process as a holder of claims: host, process number, the start that tells it from a later one, and where numbers are its own."""
    import psutil

    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}/{_numbered_by()}"


def _numbered_by() -> str:
    """What tells the process numbers of this machine, or this container, from those of another one of the same host name."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a link to no path
    except OSError:
        return "-"  # not Linux: then host names must do
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def gone(holder: str) -> bool:
    """Whether a holder certainly runs no more: a process of this very machine, or container, that has ended."""
    import psutil

    host, number, started, numbered_by = (holder.split("/") + [""] * 4)[:4]
    if (host, numbered_by) != (socket.gethostname(), _numbered_by()) or not number.isdigit():
        return False
    try:
        return abs(psutil.Process(int(number)).create_time() - float(started)) > 0.02
    except (psutil.NoSuchProcess, ValueError):
        return True
    except psutil.Error:
        return False


@dataclass(frozen=True, slots=True)
class Rig:
    """A driver's world, with what must be ended after it."""

    world: World
    store: GuardStore
    workload: Workload
    announcer: Announcer
    probes: ProbePool
    readings: FileReadings | None

    def flush(self) -> None:
        """What was judged so far is on the disk."""
        if self.readings is not None:
            self.readings.flush()

    def close(self, drain: float = 0.0) -> int:
        """End everything that runs; the number of announcements that were not delivered within `drain` seconds."""
        left = self.announcer.drain(drain)
        self.announcer.close()
        self.probes.close()
        self.workload.close()
        if self.readings is not None:
            self.readings.close()
        return left


class _ListeningTarget:
    """The target, whose listeners the prober is told at every look."""

    def __init__(self, target: Target, probes: ProbePool) -> None:
        self._target = target
        self._probes = probes

    def observe(self) -> TargetView:
        view = self._target.observe()
        self._probes.paths(view.listeners)
        return view

    def shift(self, desired: Desired, basis: str) -> None:
        self._target.shift(desired, basis)

    def renew(self, fence: int, lease: float) -> None:
        self._target.renew(fence, lease)


def rig(home: Home, guard: str, workload: Workload, policy: Policy, announce: Iterable[Sink], *, keep_readings: bool = True) -> Rig:
    """Everything that drives `guard` on the workload. Nothing is started before the first look."""
    store = home.store(guard)
    probes = workload.probes()
    announcer = Announcer([*build_sinks(announce), *workload.sinks()])
    readings = FileReadings(store.directory) if keep_readings else None
    world = World(
        policy=policy,
        store=store,
        inbox=store.inbox(),
        target=_ListeningTarget(workload.target, probes),
        sources=workload.sources(policy, probes),
        announcer=announcer,
        clock=SystemClock(),
        me=identity(),
        gone=gone,
        stopped=store.stopped,
        readings=readings,
        patience=patience_of(policy),
    )
    return Rig(world, store, workload, announcer, probes, readings)


def resumed(home: Home, document: Document) -> Rig:
    """The rig of a saved rollout, from the saved state alone. Raises `UserError` when there is none."""
    from pydantic import TypeAdapter

    from deployguard.model.guard import Sink
    from deployguard.model.policy import Policy

    rollout = document.rollout
    if rollout is None:
        raise UserError(f"the guard `{document.guard}` has no rollout", hint="begin one with `deployguard run -f guard.yaml`")
    sinks: list[Any] = TypeAdapter(list[Sink]).validate_python(list(rollout.announce))
    return rig(home, document.guard, _workload(home, rollout), Policy.model_validate(rollout.spec), sinks)


def workload_of(home: Home, resolved: Resolved) -> Workload:
    """The workload that the guard names. A fleet is reached by its state directory, all else by the home's cluster."""
    target = resolved.guard.spec.target
    if target.kind == "LocalFleet":
        return _fleet(home, target.name)
    from deployguard.wiring.cluster import ClusterHome, guarded

    workload = guarded(home.kube, resolved.guard)
    if isinstance(home, ClusterHome):
        home.own(resolved.guard.metadata.name, workload)
    return workload


def _workload(home: Home, rollout: Rollout) -> Workload:
    """The workload of a saved rollout."""
    if not rollout.place:
        return _fleet(home, rollout.target)
    from deployguard.wiring.cluster import placed

    return placed(rollout.place, home.kube)


def _fleet(home: Home, name: str) -> Workload:
    from deployguard.wiring.fleet import FleetWorkload

    if not isinstance(home, FileHome):
        raise UserError(
            f"the fleet {name} lives on one machine, and {home.where} is in a cluster",
            hint="leave out the options of a cluster; a fleet is found by `--state`",
        )
    return FleetWorkload(home.root, name)
