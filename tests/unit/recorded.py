"""Rollouts through the real driver on a simulated fleet and clock, with their ledger and recordings in a real state directory."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

from deployguard.driver.tick import Driver
from deployguard.driver.world import World
from deployguard.engine import begin, claims
from deployguard.engine.recording import closing
from deployguard.files.write import plain
from deployguard.model.document import Document, Request
from deployguard.model.policy import Policy
from deployguard.model.reading import Answer, Counter, Counters, Missing
from deployguard.model.rollout import Watching
from deployguard.model.target import Instance
from deployguard.model.version import Version
from deployguard.stores.file import FileStore
from deployguard.stores.inbox import MemoryInbox
from deployguard.stores.readings import FileReadings
from deployguard.targets.simulated import Behaviour, SimulatedTarget
from deployguard.wiring.simulation import Heard, SimulatedClock, driver_in

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FIRST = Version("sha256:" + "0" * 64)
ERRORS: dict[str, Any] = {
    "name": "errors",
    "source": "balancer",
    "claims": 10,
    "limit": 0.2,
    "worse_than_stable": {"ratio": 1.25, "margin": 0.0002, "floor": 0.01},
}
POLICY: dict[str, Any] = {
    "stages": [
        {"instances": 1, "soak": "20s", "limit": "5m"},
        {"exposure": "50%", "soak": "10s", "limit": "5m"},
        {"exposure": "100%", "soak": "10s"},
    ],
    "checks": [ERRORS],
    "interval": "1s",
    "warmup": "5s",
    "pass": "soak",
    "advance_within": "30s",
    "rollback": {"within": "30s", "relapse_watch": "5s"},
    "watch": "10s",
}


class Requests:
    """Each ready instance answers about `rate` requests a second from its start; a version fails its own share of them, by chance.

    What an instance has counted by an instant depends on nothing but the seed, its uid and the instant.
    """

    def __init__(self, clock: SimulatedClock, shares: dict[str, float], rate: int, seed: int) -> None:
        self.clock, self.shares, self.rate, self.seed = clock, shares, rate, seed
        self.counted: dict[str, tuple[int, Counter]] = {}
        self.silent = False

    def counter(self, instance: Instance) -> Counter:
        """What the instance has counted by now."""
        assert instance.started is not None
        up = int((self.clock.at - max(instance.started, START)).total_seconds())
        second, counter = self.counted.get(instance.uid, (0, Counter(0.0, 0.0)))
        while second < up:
            chance = random.Random(f"{self.seed} {instance.uid} {instance.assigned.digest} {second}")
            total = chance.randint(self.rate - 3, self.rate + 3)
            bad = sum(chance.random() < self.shares[instance.assigned.digest] for _ in range(total))
            second, counter = second + 1, Counter(counter.bad + bad, counter.total + total)
        self.counted[instance.uid] = (second, counter)
        return counter

    def read(self, arm: str, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:
        ready = [i for i in instances if i.ready]
        if self.silent or not ready:
            return Missing("timeout" if self.silent else "no_instance")
        return Counters(now, {i.uid: self.counter(i) for i in ready}, {i.uid: i.started for i in ready if i.started})

    def close(self) -> None:
        """Nothing runs."""


class Yard:
    """One guarded fleet: rollouts follow one another on it."""

    def __init__(self, state: Path, policy: dict[str, Any] | None = None, *, guard: str = "web", rate: int = 20, seed: int = 1) -> None:
        self.clock = SimulatedClock(START)
        self.policy = Policy.model_validate({**POLICY, **(policy or {})})
        self.store = FileStore(state, guard)
        self.readings = FileReadings(self.store.directory)
        self.shares = {FIRST.digest: 0.003}
        self.behaviours: dict[str, Behaviour] = {}
        self.target = SimulatedTarget(self.clock, 8, FIRST, self.behaviours)
        self.requests = Requests(self.clock, self.shares, rate, seed)
        self.inbox, self.heard = MemoryInbox(), Heard()
        self.drivers = 0
        self.driver = self.new_driver()

    def new_driver(self) -> Driver:
        """A new guard process; those before it are known to be gone."""
        self.drivers += 1
        world = World(
            policy=self.policy,
            store=self.store,
            inbox=self.inbox,
            target=self.target,
            sources={check.name: self.requests for check in self.policy.checks},
            announcer=self.heard,
            clock=self.clock,
            me=f"guard-{self.drivers}",
            gone=lambda _: True,
            readings=self.readings,
        )
        self.driver = driver_in(world)
        return self.driver

    def begin(self, name: str, share: float, *, crashes: bool = False, ready_after: float = 1.0) -> Version:
        """A rollout of a new version that fails `share` of its requests, or whose instances exit, is saved in Waiting."""
        version = Version("sha256:" + f"{name:z>64}".encode().hex()[-64:])
        self.shares[version.digest] = share
        slow = Behaviour(ready_after=ready_after)
        self.behaviours[version.digest] = Behaviour(ready_after=None, exits_after=0.5) if crashes else slow
        old, revision = self.store.load()
        view, now, me = self.target.observe(), self.clock.at, self.driver.world.me
        wish = begin.Wish(name, self.store.guard, "fleet", version, plain(self.policy))
        new = begin.begun(old, view, wish, now)
        closed = begin.closed(old, view, now)
        if closed is not old and closed.rollout is not None:
            revision = self.store.save(closed, revision)
            self.readings.append(closed.rollout.id, closing(me, old, view, now))
            self.store.append(closed.rollout.outbox)
        self.store.save(claims.claimed(new, me, now), revision)
        return version

    def tick(self) -> Document:
        """One tick, and the pause after it."""
        document = self.driver.tick().document
        self.clock.at += dt.timedelta(seconds=1)
        return document

    def run(self, *, most: int = 1500, watched: bool = True) -> Document:
        """Tick until the rollout is over, or, if it is not `watched`, until its candidate is stable."""
        for _ in range(most):
            document = self.tick()
            assert document.rollout is not None
            if document.rollout.terminal or (not watched and isinstance(document.rollout.phase, Watching)):
                self.readings.flush()
                return document
        raise AssertionError(f"never over: {document.rollout.phase if document.rollout else None}")

    def ask(self, verb: Any) -> None:
        """A person's request lies in the inbox."""
        self.inbox.put(Request(f"{verb}-{self.clock.at:%H%M%S}", verb, "ann", self.clock.at))
