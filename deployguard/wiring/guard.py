"""From a guard and a state directory to a driver's world."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployguard.announce.announcer import Announcer
from deployguard.announce.build import build as build_sinks
from deployguard.clock import SystemClock
from deployguard.driver.world import World
from deployguard.errors import UserError
from deployguard.local.client import FleetClient
from deployguard.model.document import Document
from deployguard.model.target import TargetView
from deployguard.signals.balancer import BalancerSource
from deployguard.signals.probe import ProbePool, ProbeSource
from deployguard.signals.scrape import ScrapePool, ScrapeSource
from deployguard.stores import stop
from deployguard.stores.file import FileStore
from deployguard.stores.inbox import FileInbox
from deployguard.stores.readings import FileReadings
from deployguard.targets.local import LocalTarget

if TYPE_CHECKING:
    from deployguard.model.guard import Sink
    from deployguard.model.policy import Policy
    from deployguard.ports import Source


def fleet_directory(state: Path, name: str) -> Path:
    """Where the fleet `name` lives below a state directory."""
    return state / "fleets" / name


def identity() -> str:
    """This process as a holder of claims: host, process number, and the start that tells it from a later one of the same number."""
    import psutil

    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def gone(holder: str) -> bool:
    """Whether a holder certainly runs no more: a process of this host that has ended."""
    import psutil

    host, _, rest = holder.partition("/")
    number, _, started = rest.partition("/")
    if host != socket.gethostname() or not number.isdigit():
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
    store: FileStore
    client: FleetClient
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
        if self.readings is not None:
            self.readings.close()
        return left


class _ListeningTarget(LocalTarget):
    """The fleet, whose listeners the prober is told at every look."""

    def __init__(self, directory: Path, probes: ProbePool) -> None:
        super().__init__(directory)
        self._probes = probes

    def observe(self) -> TargetView:
        view = super().observe()
        self._probes.paths(view.listeners)
        return view


def rig(state: Path, guard: str, fleet: str, policy: Policy, announce: Iterable[Sink], *, keep_readings: bool = True) -> Rig:
    """Everything that drives `guard` on the local fleet `fleet`. Nothing is started before the first look."""
    store = FileStore(state, guard)
    client = FleetClient(fleet_directory(state, fleet))
    probes = ProbePool()
    announcer = Announcer(build_sinks(announce))
    readings = FileReadings(store.directory) if keep_readings else None
    world = World(
        policy=policy,
        store=store,
        inbox=FileInbox(store.directory),
        target=_ListeningTarget(client.layout.root, probes),
        sources=_sources(policy, client, probes),
        announcer=announcer,
        clock=SystemClock(),
        me=identity(),
        gone=gone,
        stopped=_stopped(state),
        readings=readings,
    )
    return Rig(world, store, client, announcer, probes, readings)


def _stopped(state: Path) -> Callable[[], str]:
    return lambda: stop.stopped(state)


def _sources(policy: Policy, client: FleetClient, probes: ProbePool) -> dict[str, Source]:
    interval = policy.interval.total_seconds()
    pool = ScrapePool(timeout=min(0.8 * interval, 5.0))
    sources: dict[str, Source] = {}
    for check in policy.checks:
        if check.source == "scrape":
            sources[check.name] = ScrapeSource(check, pool)
        elif check.source == "balancer":
            sources[check.name] = BalancerSource(check, client)
        else:
            sources[check.name] = ProbeSource(check, probes)
    return sources


def resumed(state: Path, document: Document) -> Rig:
    """The rig of a saved rollout, from the saved state alone. Raises `UserError` when there is none."""
    from pydantic import TypeAdapter

    from deployguard.model.guard import Sink
    from deployguard.model.policy import Policy

    rollout = document.rollout
    if rollout is None:
        raise UserError(f"the guard `{document.guard}` has no rollout", hint="begin one with `deployguard run -f guard.yaml --release DIR`")
    sinks: list[Any] = TypeAdapter(list[Sink]).validate_python(list(rollout.announce))
    return rig(state, document.guard, rollout.target, Policy.model_validate(rollout.spec), sinks)
