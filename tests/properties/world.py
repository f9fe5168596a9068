"""The simulated world of the stories: a clock, a store, a target, traffic, crashes, and the promises asserted at every write."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from deployguard.driver.tick import Driver, Ticked
from deployguard.driver.world import Readings, World
from deployguard.engine import begin, claims, recording
from deployguard.engine.recording import Record
from deployguard.errors import DeployguardError, StaleView, WorldError
from deployguard.model.base import decode, encode
from deployguard.model.document import Document, Request
from deployguard.model.policy import Policy
from deployguard.model.reading import Answer, Counter, Counters, Missing
from deployguard.model.rollout import Advancing, Analyzing, Promoted, RolledBack, RollingBack, Verifying, Watching
from deployguard.model.target import Desired, Instance, TargetView
from deployguard.model.version import Version
from deployguard.stores.inbox import MemoryInbox
from deployguard.stores.memory import MemoryStore, MemoryWorld
from deployguard.targets.simulated import Behaviour, SimulatedTarget

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
OLD, NEW = Version("sha256:" + "a" * 64), Version("sha256:" + "b" * 64)
NEXT = Version("sha256:" + "c" * 64)


class Crash(BaseException):
    """The process of a driver dies here."""


class Broken(AssertionError):
    """A promise does not hold."""


class SimClock:
    """Time that moves when the story says so."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> dt.datetime:
        return self.at

    def wait(self, seconds: float, until: threading.Event) -> bool:
        self.at += dt.timedelta(seconds=max(seconds, 0.0))
        return until.is_set()


class Sinks:
    """Announcements that arrive at once."""

    def __init__(self) -> None:
        self.got: dict[str, int] = {}

    def offer(self, entries: Any) -> None:
        for entry in entries:
            self.got[entry.rollout] = max(self.got.get(entry.rollout, 0), entry.n)

    def delivered(self, rollout: str) -> int:
        return self.got.get(rollout, 0)


class Traffic:
    """Each instance serves `rate` requests a second from its start; a version fails its own share of them."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim

    def read(self, arm: str, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:
        self.sim.io("read")
        if self.sim.blind:
            return Missing("timeout", "nobody answers")
        ready = [i for i in instances if i.ready]
        if not ready:
            return Missing("no_instance")
        return Counters(now, {i.uid: self.sim.counter(i) for i in ready}, {i.uid: i.started for i in ready if i.started})

    def close(self) -> None:
        """Nothing runs."""


class WatchedStore(MemoryStore):
    """A store that asserts the promises about what is saved."""

    def __init__(self, sim: Sim) -> None:
        super().__init__(sim.memory, "web")
        self.sim = sim

    def save(self, document: Document, expected: str) -> str:
        before, _ = MemoryStore(MemoryWorld(), "web").load() if "web" not in self.sim.memory.documents else self._peek()
        revision = super().save(document, expected)
        self.sim.saved_now(before, document)
        return revision

    def _peek(self) -> tuple[Document, str]:
        return decode(self.sim.memory.documents["web"], Document), ""


class WatchedTarget:
    """A target that asserts the promises about what it is told."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim

    def observe(self) -> TargetView:
        self.sim.io("observe")
        if self.sim.target_down:
            raise WorldError("could not ask the target: it is down")
        return self.sim.target.observe()

    def shift(self, desired: Desired, basis: str) -> None:
        self.sim.io("shift")
        if self.sim.target_down or self.sim.write_down:
            raise WorldError("could not tell the target: it is down")
        self.sim.tell(desired, basis)
        self.sim.io("shifted")

    def renew(self, fence: int, lease: float) -> None:
        self.sim.io("renew")
        if self.sim.target_down:
            raise WorldError("could not tell the target: it is down")
        self.sim.target.renew(fence, lease)


POLICY: dict[str, Any] = {
    "stages": [{"instances": 1, "soak": "10s"}, {"exposure": "50%", "soak": "10s"}, {"exposure": "100%", "soak": "10s"}],
    "checks": [
        {"name": "errors", "source": "balancer", "claims": 10, "worse_than_stable": {"ratio": 1.25, "margin": "0.02%", "floor": "1%"}}
    ],
    "interval": "1s",
    "warmup": "5s",
    "pass": "soak",
    "advance_within": "30s",
    "lease": "15s",
    "blind": {"hold_after": "3 intervals", "retreat_after": "60s", "hold_limit": "120s"},
    "rollback": {"within": "30s", "relapse_watch": "20s"},
    "watch": "30s",
}


class Sim:
    """One story's world. Drivers come and go; what it keeps is what survives them."""

    def __init__(
        self, *, bad: float = 0.0, behaviour: Behaviour | None = None, policy: dict[str, Any] | None = None, wanted: int = 8
    ) -> None:
        self.clock = SimClock()
        self.memory = MemoryWorld(before=self._before, after=self._after)
        self.inbox = MemoryInbox()
        self.sinks = Sinks()
        self.target = SimulatedTarget(self.clock, wanted, OLD, {NEW.digest: behaviour or Behaviour()})
        self.bad = {OLD.digest: 0.002, NEW.digest: bad, NEXT.digest: 0.0}
        self.policy = Policy.model_validate({**POLICY, **(policy or {})})
        self.rate = 20.0
        self.blind = self.target_down = self.store_down = self.write_down = False
        self.calls = 0
        self.crash_at: int | None = None
        self.saves: list[Document] = []
        self.counted: dict[str, float] = {}
        self.earliest = self.latest = START
        self.widest = wanted
        self.drivers = 0
        self.hook: Callable[[str], None] = lambda what: None
        self.driver_class: type[Driver] = Driver
        self.readings: Readings | None = None

    # -- what drivers use ------------------------------------------------------------------------------------------

    def io(self, what: str) -> None:
        """One input or output call; the planned crash happens here."""
        self.calls += 1
        self.widest = max(self.widest, self.target.wanted)
        self.earliest, self.latest = min(self.earliest, self.clock.at), max(self.latest, self.clock.at)
        if self.crash_at is not None and self.calls == self.crash_at:
            raise Crash(what)
        self.hook(what)

    def _before(self, what: str) -> None:
        self.io("before " + what)
        if self.store_down and what in ("save", "append"):
            raise WorldError("could not save: the disk is full")

    def _after(self, what: str) -> None:
        self.io("after " + what)

    def driver(self) -> Driver:
        """A new driver process. All earlier ones are known to be dead."""
        self.drivers += 1
        world = World(
            policy=self.policy,
            store=WatchedStore(self),
            inbox=self.inbox,
            target=WatchedTarget(self),
            sources={"errors": Traffic(self)},
            announcer=self.sinks,
            clock=self.clock,
            me=f"driver-{self.drivers}",
            gone=lambda holder: holder not in self.alive,
            readings=self.readings,
        )
        self.alive = {world.me}
        driver = self.driver_class(world)
        driver.observer._pool = InThisThread()  # type: ignore[assignment]
        return driver

    def counter(self, instance: Instance) -> Counter:
        """What `instance` has counted since its start."""
        assert instance.started is not None
        total = float(int(self.rate * max((self.clock.at - instance.started).total_seconds(), 0)))
        total = self.counted[instance.uid] = max(self.counted.get(instance.uid, 0.0), total)  # a clock set back un-serves nothing
        return Counter(float(int(total * self.bad[instance.assigned.digest])), total)

    # -- promises --------------------------------------------------------------------------------------------------

    def tell(self, desired: Desired, basis: str) -> None:
        """The target is told; every promise about it is asserted."""
        before = self.target.fence
        if not any(d.rollout is not None and d.rollout.seq == desired.fence for d in self.saves):
            raise Broken("the target was told what no saved state says")
        if desired.fence < before and basis == str(self.target.generation):
            raise Broken(f"an old copy wrote although it could see the fence: {desired.fence} after {before}")
        exposed = sum(i.assigned == NEW for i in self.target.instances)
        self.target.shift(desired, basis)
        if self.target.fence < before:
            raise Broken(f"fence went back: {before} -> {self.target.fence}")
        after = sum(i.assigned == NEW for i in self.target.instances)
        last = self.saves[-1].rollout
        turned = last is not None and last.candidate == NEW and isinstance(last.phase, (RollingBack, Verifying, RolledBack))
        if turned and after > exposed and desired.fence >= last.seq:
            raise Broken("exposure raised after the rollback")

    def saved_now(self, before: Document, after: Document) -> None:
        """A document was saved; every promise about it is asserted."""
        self.saves.append(after)
        old, new = before.rollout, after.rollout
        if old is not None and old.terminal and (new is None or (new.id == old.id and new.phase != old.phase)):
            raise Broken("left a terminal phase")
        if old is not None and new is not None and old.id == new.id and new.seq < old.seq:
            raise Broken("the saved fence went back")
        if after.fence < before.fence:
            raise Broken("the saved fence went back")
        if new is None:
            return
        for arm, evidence in new.evidence["errors"].counted.items() if "errors" in new.evidence else ():
            most = self.rate * self.widest * ((self.latest - self.earliest).total_seconds() + 1)
            if evidence.total > most:
                raise Broken(f"counted {evidence.total:.0f} {arm} requests where {most:.0f} can have been served")

    # -- driving ---------------------------------------------------------------------------------------------------

    def begin(self, candidate: Version = NEW, name: str = "r1") -> None:
        """A rollout of `candidate` is saved in Waiting."""
        document, revision = MemoryStore(self.memory, "web").load()
        view = self.target.observe()
        wish = begin.Wish(name, "web", "web", candidate, {})
        new = begin.begun(document, view, wish, self.clock.at)
        MemoryStore(self.memory, "web").save(claims.claimed(new, "driver-0", self.clock.at), revision)
        self.saves.append(new)

    def document(self) -> Document:
        """What is saved."""
        return decode(self.memory.documents["web"], Document)

    def tick(self, driver: Driver) -> Ticked | None:
        """One tick and the pause after it; None when the store said no."""
        try:
            ticked = driver.tick()
        except DeployguardError:
            ticked = None
        self.clock.at += dt.timedelta(seconds=1)
        return ticked

    def run(self, driver: Driver | None = None, *, limit: int = 400) -> Document:
        """Tick until the rollout has settled for good. Raises `Broken` when it never does."""
        driver = driver or self.driver()
        for _ in range(limit):
            self.tick(driver)
            rollout = self.document().rollout
            if rollout is not None and rollout.terminal:
                return self.document()
        raise Broken(f"never settles: {rollout.phase if rollout else None}")

    def ask(self, verb: Any, name: str = "q1") -> None:
        """A person's request lies in the inbox."""
        self.inbox.put(Request(name, verb, "ann", self.clock.at))

    def trail(self) -> list[str]:
        """Phases and stages in the order they were entered; takeovers are not phases."""
        rollout = self.document().rollout
        assert rollout is not None
        return [f"{s.phase} {s.text.split(':')[0] if s.phase in ('advancing', 'analyzing') else ''}".strip() for s in rollout.trail]

    def exposed(self) -> int:
        """Instances that run or are told to run the candidate."""
        return sum(NEW in (i.assigned, i.loaded) for i in self.target.instances)


class Kept:
    """Recordings in memory, that pass through their bytes as they do on a disk."""

    losses = 0

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = {}

    def append(self, rollout: str, record: dict[str, Any]) -> None:
        self.lines.setdefault(rollout, []).append(msgspec.json.encode(record))

    def read(self, rollout: str) -> Iterator[Record]:
        """The recording of a rollout."""
        return recording.read(map(msgspec.json.decode, self.lines[rollout]), rollout)


class InThisThread:
    """Runs what is submitted at once: stories are deterministic."""

    def submit(self, work: Callable[..., Any], *args: Any) -> Any:
        import concurrent.futures as cf

        future: cf.Future[Any] = cf.Future()
        future.set_result(work(*args))
        return future

    def shutdown(self, **_: Any) -> None:
        """Nothing runs."""


__all__ = ["NEW", "OLD", "Advancing", "Analyzing", "Broken", "Crash", "Kept", "Promoted", "Sim", "StaleView", "Watching", "encode"]
