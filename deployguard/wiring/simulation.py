"""What a scenario is played on: a clock that jumps, a fleet that obeys, recorded signals, and a driver that needs no threads."""

from __future__ import annotations

import concurrent.futures as cf
import datetime as dt
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from deployguard.driver.observe import Observer
from deployguard.driver.tick import Driver
from deployguard.driver.world import World
from deployguard.files.scenario_file import LoadedScenario
from deployguard.files.scenario_series import ArmSeries, within_edge
from deployguard.model.check import Numbers, SeriesCheck
from deployguard.model.document import Document
from deployguard.model.reading import Answer, Missing, Runs
from deployguard.model.rollout import Entry
from deployguard.model.target import CANDIDATE, STABLE, Arm, Desired, Instance, TargetView
from deployguard.model.version import Version
from deployguard.ports import Source
from deployguard.signals.replay import Recorded, ReplayProbe, ReplaySource
from deployguard.stores.memory import MemoryStore, MemoryWorld
from deployguard.targets.simulated import SimulatedTarget

T = TypeVar("T")
STABLE_VERSION = Version("sha256:" + "a" * 64)
CANDIDATE_VERSION = Version("sha256:" + "b" * 64)


class SimulatedClock:
    """Time that stands still until it is moved."""

    def __init__(self, at: dt.datetime) -> None:
        self.at = at

    def now(self) -> dt.datetime:
        return self.at

    def wait(self, seconds: float, until: threading.Event) -> bool:
        self.at += dt.timedelta(seconds=max(seconds, 0.0))
        return until.is_set()


class PlayedFleet(SimulatedTarget):
    """A simulated target whose single instances can be made to crash, or never to become ready."""

    def __init__(self, clock: SimulatedClock, wanted: int) -> None:
        self._quiet = False
        self._unready = 0
        self._stuck: set[str] = set()
        self._came_up: set[str] = set()
        super().__init__(clock, wanted, STABLE_VERSION)

    def observe(self) -> TargetView:
        """What runs now."""
        view = super().observe()
        if not self._unready and not self._stuck:
            return view
        return msgspec.structs.replace(view, instances=tuple(self._shown(one) for one in view.instances))

    def crash(self, count: int, *, candidate: bool) -> int:
        """That many instances of an arm exit with code 1; how many there were. The candidate's lowest places, stable's highest."""
        hit = self.picked(count, candidate=candidate)
        for one in hit:
            self.exit(one.id, 1)
        self._quiet = False
        return len(hit)

    def picked(self, count: int, *, candidate: bool) -> list[Instance]:
        """So many instances of an arm, as far as there are: the candidate's lowest places, stable's highest."""
        self._live()
        mine = [one for one in self.instances if (one.assigned == CANDIDATE_VERSION) == candidate]
        return mine[:count] if candidate else mine[::-1][:count]

    def never_ready(self, count: int) -> None:
        """The next `count` candidate instances that are not ready yet never will be."""
        self._live()
        self._unready += count
        self._came_up |= {one.uid for one in self.instances if one.ready}

    def _assign(self, desired: Desired) -> None:
        self._quiet = False
        super()._assign(desired)

    def _live(self) -> None:
        """As of the simulated target; while every instance is ready only the end of a lease can change anything, so it is quick."""
        leased = self.lease_until is not None and self.clock.now() >= self.lease_until
        if self._quiet and not leased:
            return
        super()._live()
        self._quiet = all(one.ready for one in self.instances)

    def _shown(self, one: Instance) -> Instance:
        if one.assigned != CANDIDATE_VERSION or one.uid in self._came_up:
            return one
        if one.uid not in self._stuck:
            if not self._unready:
                return one
            self._unready -= 1
            self._stuck.add(one.uid)
        return msgspec.structs.replace(one, ready=False, loaded=None, ready_since=None)


class PlayedStore(MemoryStore):
    """A store in memory that reads a document only when its bytes are new."""

    def __init__(self, world: MemoryWorld, guard: str) -> None:
        super().__init__(world, guard)
        self._bytes: bytes | None = None
        self._loaded: tuple[Document, str] | None = None

    def load(self) -> tuple[Document, str]:
        """The saved document and its revision."""
        data = self.world.documents.get(self.guard)
        if self._loaded is None or data is not self._bytes:
            self._bytes, self._loaded = data, super().load()
        return self._loaded


class _Walks:
    """A replayed probe: the candidate's walks from its first exposure, and those of users, who mostly come to the stable arm."""

    def __init__(self, inner: ReplayProbe) -> None:
        self._inner = inner
        self._exposed: dt.datetime | None = None

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:
        """The walks that ended after `through`. Users' walks are stable's, or the candidate's when stable has none."""
        if arm not in (STABLE, CANDIDATE):
            answer = self._inner.read(STABLE, instances, through, now)
            return self._inner.read(CANDIDATE, instances, through, now) if isinstance(answer, Missing) else answer
        answer = self._inner.read(arm, instances, through, now)
        if arm == CANDIDATE:
            self._exposed = self._exposed or now
            if isinstance(answer, Runs):
                return msgspec.structs.replace(answer, runs=tuple(run for run in answer.runs if run.at >= self._exposed))
        return answer

    def close(self) -> None:
        """Nothing is kept running."""


def sources(loaded: LoadedScenario, start: dt.datetime) -> dict[str, Source]:
    """A source for each check of the policy; a check without series is silent."""
    interval = loaded.policy.interval
    found: dict[str, Source] = {}
    for check in loaded.policy.checks:
        series = loaded.scenario.series.get(check.name)
        arms = series.arms if series is not None else {}
        if check.source == "probe":
            found[check.name] = _Walks(ReplayProbe(start, interval, {arm: one.parts[""][0] for arm, one in arms.items()}))
        else:
            recorded = {arm: _recorded(check, one) for arm, one in arms.items()}
            found[check.name] = ReplaySource(start, interval, check.kind, recorded)
    return found


def _recorded(check: Numbers, series: ArmSeries) -> Recorded:
    """The columns of an arm; a histogram that is judged by `within` counts its requests in the buckets beyond it."""
    parts, edges = series.parts, series.edges
    if isinstance(check, SeriesCheck) and check.within is not None and series.buckets is not None:
        edge = within_edge(check, series)
        assert edge is not None
        slow = parts[""][edges.index(edge) + 1 :]
        parts, edges = {"": (_summed(slow), _summed(parts[""]))}, ()
    return Recorded(parts, edges, series.clumps, series.lost)


def _summed(columns: Sequence[Sequence[float | None]]) -> list[float | None]:
    return [None if None in row else sum(value for value in row if value is not None) for row in zip(*columns, strict=True)]


class Heard:
    """Announcements that arrive at once."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def offer(self, entries: Iterable[Entry]) -> None:
        """Delivered."""
        for entry in entries:
            self._last[entry.rollout] = max(self._last.get(entry.rollout, 0), entry.n)

    def delivered(self, rollout: str) -> int:
        """Everything that was offered."""
        return self._last.get(rollout, 0)


class _InThisThread(cf.ThreadPoolExecutor):
    """Runs what is submitted at once, so that a play is the same every time."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> cf.Future[T]:
        """Done when this returns."""
        future: cf.Future[T] = cf.Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Eyes(Observer):
    """An observer without threads: recorded signals answer at once."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._pool = _InThisThread(1)


def driver_in(world: World) -> Driver:
    """A driver of this world that works in the caller's thread alone."""
    driver = Driver(world)
    driver.observer = _Eyes(world)
    return driver
