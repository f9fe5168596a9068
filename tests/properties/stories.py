"""Stories: lists of events that happen to one rollout, and how they are played."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from deployguard.driver.tick import Driver
from deployguard.driver.world import Readings
from deployguard.errors import DeployguardError
from deployguard.model.rollout import Watching
from deployguard.stores.memory import MemoryStore
from deployguard.targets.simulated import Behaviour
from tests.properties.world import NEXT, Broken, Crash, Sim


@dataclass(frozen=True)
class Event:
    """`what` happens, with two small numbers that say how long and when."""

    what: str
    n: int
    m: int


KINDS = (
    "tick", "tick", "tick", "crash", "crash", "overtake", "blind", "target_down", "store_down", "write_down", "clock_back",
    "silence", "approve", "pause", "resume", "abort", "rollback", "skip-soak", "foreign", "exit",
)  # fmt: skip
EVENTS = st.lists(st.builds(Event, st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=14)
CANDIDATES = {
    "good": (0.0, Behaviour()),
    "bad": (0.2, Behaviour()),
    "never ready": (0.0, Behaviour(ready_after=None)),
    "exits at start": (0.0, Behaviour(ready_after=None, exits_after=0.5)),
    "exits later": (0.0, Behaviour(exits_after=7.0)),
}


class Story:
    """One rollout and its driver, to which events happen."""

    def __init__(
        self, candidate: str, driver_class: type[Driver] = Driver, readings: Readings | None = None, world: Callable[..., Sim] = Sim
    ) -> None:
        bad, behaviour = CANDIDATES[candidate]
        self.sim = world(bad=bad, behaviour=behaviour)
        self.sim.driver_class = driver_class
        self.sim.readings = readings
        self.sim.begin()
        self.driver = self.sim.driver()
        self.asked = 0

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.sim.tick(self.driver)

    def play(self, event: Event) -> None:
        """The event happens; a driver that dies in it is replaced."""
        sim, n, m = self.sim, event.n, event.m
        match event.what:
            case "tick":
                self.ticks(n)
            case "crash":
                self._crash(n, m)
            case "overtake":
                self._overtake(n, m)
            case "blind" | "target_down" | "store_down" | "write_down":
                setattr(sim, event.what, True)
                self.ticks(n)
                setattr(sim, event.what, False)
            case "clock_back":
                sim.clock.at -= dt.timedelta(seconds=n)
                self.ticks(m)
            case "silence":
                sim.clock.at += dt.timedelta(seconds=n)
            case "foreign":
                sim.target.generation += 1
                self.ticks(m)
            case "exit":
                sim.target.exit(str(n % 8), 1)
                self.ticks(m)
            case "scale":
                sim.target.scale(4 + n % 9)  # type: ignore[attr-defined]  # of a workload whose size others may change
                self.ticks(m)
            case verb:
                self.asked += 1
                sim.ask(verb, f"q{self.asked}")
                self.ticks(m)

    def _crash(self, after: int, sleep: int) -> None:
        self.sim.crash_at = self.sim.calls + after
        try:
            self.ticks(20)
        except Crash:
            self.sim.clock.at += dt.timedelta(seconds=sleep)
        self.sim.crash_at = None
        self.driver = self.sim.driver()

    def _overtake(self, after: int, ticks: int) -> None:
        """This driver freezes inside a call for longer than its claim; another takes over; then it wakes and goes on."""
        sim, at, done = self.sim, self.sim.calls + after, False

        def freeze(_: str) -> None:
            nonlocal done
            if sim.calls >= at and not done:
                done = True
                frozen = set(sim.alive)
                other = sim.driver()
                sim.alive |= frozen
                sim.clock.at += dt.timedelta(seconds=31)
                for _ in range(ticks):
                    sim.tick(other)

        sim.hook = freeze
        self.ticks(10)
        sim.hook = lambda what: None

    def finish(self) -> None:
        """The world is quiet again; the rollout settles, and what it promised is true."""
        sim = self.sim
        sim.inbox.put(_request(sim, "resume"))
        sim.clock.at += dt.timedelta(seconds=31)
        document = sim.run(sim.driver(), limit=600)
        rollout = document.rollout
        assert rollout is not None
        if rollout.latched is not None and sim.exposed():
            raise Broken("a bad candidate stays exposed")
        if rollout.terminal and not any(isinstance(d.rollout.phase, Watching) for d in sim.saves if d.rollout) and sim.exposed():
            raise Broken("a candidate that was never stable stays exposed")
        numbers = [e.n for e in sim.memory.ledgers["web"] if e.rollout == rollout.id]
        if numbers != list(range(1, rollout.written + 1)):
            raise Broken(f"the ledger has {numbers} of {rollout.written} entries")
        self._second()

    def _second(self) -> None:
        """Another rollout follows on the same target, and ends too."""
        sim = self.sim
        sim.begin(NEXT, "r2")
        document = sim.run(sim.driver(), limit=400)
        if document.stable[0].version != NEXT:
            raise Broken("a good second release did not become stable")


def _request(sim: Sim, verb: str) -> object:
    from deployguard.model.document import Request

    return Request("last", verb, "ann", sim.clock.at)  # type: ignore[arg-type]


def tell(
    candidate: str,
    events: list[Event],
    driver_class: type[Driver] = Driver,
    *,
    settles: bool = False,
    readings: Readings | None = None,
    world: Callable[..., Sim] = Sim,
) -> Story:
    """The whole story; raises `Broken` or `Bug` when a promise does not hold. With `settles`, its events must suffice to end it."""
    story = Story(candidate, driver_class, readings, world)
    for event in events:
        story.play(event)
        rollout = story.sim.document().rollout
        if rollout is None or rollout.terminal:
            break
    else:
        if settles:
            raise Broken("a rollout never settles")
    story.finish()
    return story


__all__ = ["CANDIDATES", "EVENTS", "DeployguardError", "Event", "MemoryStore", "Story", "tell"]
