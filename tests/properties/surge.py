"""A simulated target as a cluster has them: candidates come on top, others change it too, and nothing follows on its own.

Each `shift` makes one write, and is needed again for the next one; the workload replaces its own instances two at a time.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from deployguard.errors import StaleView
from deployguard.model.target import Desired, Instance, TargetView
from deployguard.model.version import Version
from deployguard.targets.simulated import Behaviour, SimulatedTarget
from tests.properties.world import NEW, OLD, Sim

AT_ONCE = 2


class SurgeTarget(SimulatedTarget):
    """`wanted` instances of `template`, and canaries beside them."""

    template: Version = OLD
    foreign: Version | None = None
    edited: str = ""

    def observe(self) -> TargetView:
        view = super().observe()
        words = "somebody set the image of web" if self.foreign is not None else ""
        source = self.foreign or self.template
        return msgspec.structs.replace(
            view,
            surge=True,
            pending=self._left() is not None,
            superseded=words,
            source_changed=self.edited,
            adopted=source,
            source=source,
        )

    def shift(self, desired: Desired, basis: str) -> None:
        if desired.fence < self.fence or basis != str(self.generation):
            raise StaleView(f"fence {desired.fence} or basis {basis} is old")
        if desired.fence == self.fence and self.retreated == self.fence and desired.count > 0:
            raise StaleView(f"fence {desired.fence} has retreated")
        self.lease_until = self.clock.now() + dt.timedelta(seconds=desired.lease) if desired.lease else None
        if desired != self.told:
            self.fence, self.told = desired.fence, desired
            self.generation += 1
            return
        if (left := self._left()) is not None:
            self.generation += 1
            self._write(*left)

    def set_image(self, version: Version) -> None:
        """Somebody else rolls `version` out."""
        self.foreign = self.template = version
        self.generation += 1

    def scale(self, wanted: int) -> None:
        """Somebody else changes the size."""
        base = self._base()
        more = [self._started(str(n), self.template, self.clock.now()) for n in range(len(base), wanted)]
        self.instances = [*base[:wanted], *more, *self._canaries()]
        self.wanted = wanted
        self.generation += 1

    def _lapse(self, told: Desired) -> None:
        """The reaper: canaries that nobody drives go; a rolling update that is under way is left alone."""
        self.lease_until = None
        if not told.full:
            self.retreated = self.fence
            self.generation += 1
            self.told = msgspec.structs.replace(told, candidate=None, count=0)
            self.instances = self._base()

    def _base(self) -> list[Instance]:
        return [one for one in self.instances if not one.id.startswith("canary")]

    def _canaries(self) -> list[Instance]:
        return [one for one in self.instances if one.id.startswith("canary")]

    def _left(self) -> tuple[str, int] | None:
        """The next write that follows what was told; None when there is none."""
        told, canaries = self.told, len(self._canaries())
        if told is None:
            return None
        wants = told.candidate if told.full and told.candidate else told.stable
        settled = all(one.assigned == wants and one.ready for one in self._base())
        if not told.full and canaries != (told.count if told.candidate else 0):
            return "canaries", told.count if told.candidate else 0
        if self.template != wants and self.foreign is None:
            return "template", 0
        return ("canaries", 0) if told.full and settled and canaries else None

    def _write(self, what: str, count: int) -> None:
        told = self.told
        assert told is not None
        if what == "template":
            self.template = told.candidate if told.full and told.candidate else told.stable
            return
        kept = self._canaries()[:count]
        new = [f"canary-{self.generation}-{n}" for n in range(count - len(kept))]
        self.instances = [*self._base(), *kept, *(self._started(name, told.candidate or told.stable, self.clock.now()) for name in new)]

    def _live(self) -> None:
        super()._live()
        out = sum(not self._available(one) for one in self._base())
        for n, one in enumerate(self.instances):
            if not one.id.startswith("canary") and one.assigned != self.template and (out < AT_ONCE or not self._available(one)):
                out += self._available(one)
                self.instances[n] = self._started(one.id, self.template, self.clock.now())

    def _available(self, one: Instance) -> bool:
        """Ready, and of a rolling update that is paced for as long as that asks."""
        pace = self.told.pace if self.told is not None else 0
        return one.ready and one.ready_since is not None and (self.clock.now() - one.ready_since).total_seconds() >= pace


def surge_sim(*, bad: float = 0.0, behaviour: Behaviour | None = None, wanted: int = 8, policy: dict[str, object] | None = None) -> Sim:
    """A world whose target exposes by surge."""
    sim = Sim(bad=bad, behaviour=behaviour, wanted=wanted, policy=policy)
    sim.target = SurgeTarget(sim.clock, wanted, OLD, {NEW.digest: behaviour or Behaviour()})
    return sim
