"""A target without processes, on a given clock: for `policy test`, scenarios and stories. It obeys the same contract as a real one.

How versions behave is data: how long a start takes, when an instance exits by itself, whether it ever becomes ready.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

import msgspec

from deployguard.clock import Clock
from deployguard.errors import StaleView
from deployguard.model.target import Desired, Exit, Instance, TargetView
from deployguard.model.version import Version


@dataclass(slots=True)
class Behaviour:
    """How the instances of one version behave. Times in seconds after a start; None: never."""

    ready_after: float | None = 1.0
    exits_after: float | None = None
    exit_code: int = 1


@dataclass(slots=True)
class SimulatedTarget:
    """N instances of versions that behave as told."""

    clock: Clock
    wanted: int
    adopted: Version
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    fence: int = 0
    told: Desired | None = None
    retreated: int | None = None
    generation: int = 0
    instances: list[Instance] = field(default_factory=list)
    lease_until: dt.datetime | None = None
    starts: int = 0

    def __post_init__(self) -> None:
        born = self.clock.now() - dt.timedelta(hours=1)
        self.instances = [
            Instance(str(n), f"{n}-0", self.adopted, self.adopted, ready=True, started=born, ready_since=born, address=f"sim:{n}")
            for n in range(self.wanted)
        ]

    def observe(self) -> TargetView:
        """What runs now, after everything that time alone brings about."""
        self._live()
        return TargetView(
            fence=self.fence,
            basis=str(self.generation),
            wanted=self.wanted,
            told=self.told,
            instances=tuple(self.instances),
            retreated=self.retreated,
            served={},
            adopted=self.adopted,
        )

    def shift(self, desired: Desired, basis: str) -> None:
        """Accept `desired`, or raise `StaleView`, by the rules of the port."""
        self._live()
        if desired.fence < self.fence:
            raise StaleView(f"fence {desired.fence} is below the target's {self.fence}")
        if basis != str(self.generation):
            raise StaleView(f"basis {basis} is not the present {self.generation}")
        if desired.fence == self.fence and self.retreated == self.fence and desired.count > 0:
            raise StaleView(f"fence {desired.fence} has retreated")
        if desired == self.told:
            return
        self.fence, self.told = desired.fence, desired
        self.generation += 1
        self.lease_until = self.clock.now() + dt.timedelta(seconds=desired.lease) if desired.lease else None
        self._assign(desired)

    def renew(self, fence: int, lease: float) -> None:
        """Extend the lease of the candidates, or raise `StaleView`."""
        self._live()
        if fence != self.fence or self.retreated == self.fence:
            raise StaleView(f"fence {fence} may not renew: the target carries {self.fence}")
        self.lease_until = self.clock.now() + dt.timedelta(seconds=lease)

    def exit(self, instance: str, code: int) -> None:
        """Instance `instance` exits by itself now, and starts again."""
        for n, one in enumerate(self.instances):
            if one.id == instance:
                self.instances[n] = self._exited(one, self.clock.now(), code)

    def _assign(self, desired: Desired) -> None:
        wants = [desired.candidate if desired.candidate and n < desired.count else desired.stable for n in range(self.wanted)]
        for n, (one, version) in enumerate(zip(self.instances, wants, strict=True)):
            if one.assigned != version or one.id in desired.restart:
                self.instances[n] = self._started(one.id, version, self.clock.now())

    def _started(self, place: str, version: Version, at: dt.datetime) -> Instance:
        self.starts += 1
        return Instance(place, f"{place}-{self.starts}", version, None, ready=False, started=at, address=f"sim:{place}")

    def _exited(self, one: Instance, at: dt.datetime, code: int) -> Instance:
        assert one.started is not None
        last = Exit(at, code, (at - one.started).total_seconds(), was_ready=one.ready)
        return msgspec.structs.replace(self._started(one.id, one.assigned, at), exits=one.exits + 1, exit=last)

    def _live(self) -> None:
        """Let leases run out, instances become ready, and those that cannot live exit."""
        now = self.clock.now()
        if self.lease_until is not None and now >= self.lease_until and self.told is not None and self.told.count:
            self._lapse(self.told)
        for n, one in enumerate(self.instances):
            behaviour = self.behaviours.get(one.assigned.digest, Behaviour())
            assert one.started is not None
            up = (now - one.started).total_seconds()
            if behaviour.exits_after is not None and up >= behaviour.exits_after:
                at = one.started + dt.timedelta(seconds=behaviour.exits_after)
                ready = one.ready or (behaviour.ready_after is not None and behaviour.ready_after < behaviour.exits_after)
                one = self.instances[n] = self._exited(msgspec.structs.replace(one, ready=ready), at, behaviour.exit_code)
            elif behaviour.ready_after is not None and up >= behaviour.ready_after and not one.ready:
                since = now - dt.timedelta(seconds=up - behaviour.ready_after)
                self.instances[n] = msgspec.structs.replace(one, loaded=one.assigned, ready=True, ready_since=since)

    def _lapse(self, told: Desired) -> None:
        """Nobody renewed: at or below half of the instances the target goes back by itself; above, it holds."""
        self.lease_until = None
        if told.count * 2 > self.wanted:
            return
        self.retreated = self.fence
        self.generation += 1
        self._assign(msgspec.structs.replace(told, candidate=None, count=0))
