"""The slots of a fleet together: who takes part, who may change now, and what the balancer is told.

Assignments are decided and saved elsewhere; here they are brought about.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from deployguard.local.balance import Balancer
from deployguard.local.balancer.protocol import Route
from deployguard.local.layout import Layout
from deployguard.local.records import Assignments, Places
from deployguard.local.slot import Slot
from deployguard.model.fleet import Fleet
from deployguard.model.target import CANDIDATE, STABLE, Instance
from deployguard.model.version import Version

_CONFIRM = 1.0
"""Seconds in which a balancer that works has taken new routes."""


class Slots:
    """All slots of a fleet, and the batch that limits how many may be out of service because of a change."""

    def __init__(
        self, spec: Fleet, layout: Layout, environment: dict[str, str], places: Places, present: Assignments, balancer: Balancer
    ) -> None:
        self._balancer = balancer
        self._stable = present.stable
        self._batch = 1
        self._out = 0
        self._slots = {
            name: Slot(name, places.ports[name], version, spec, layout, environment, self) for name, version in present.slots.items()
        }

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    @property
    def stable(self) -> Version:
        return self._stable

    def assign(self, present: Assignments, batch: int | None = None, restart: Iterable[str] = ()) -> None:
        """Every slot is on its way to what it is assigned, at most `batch` (as before when None) at a time."""
        self._stable = present.stable
        self._batch = self._batch if batch is None else max(1, batch)
        wanted = set(restart)
        for name, slot in self._slots.items():
            slot.assign(present.slots[name], restart=name in wanted)
        self.changed()

    def views(self) -> tuple[Instance, ...]:
        return tuple(slot.view() for slot in self._slots.values())

    def versions(self) -> set[Version]:
        """What runs now, whatever is assigned."""
        return {slot.process.version for slot in self._slots.values() if slot.process is not None}

    def may_change(self, slot: Slot) -> bool:
        # Who is out of service already takes nothing more away from the users.
        return not slot.serving or self._out_of_service() < self._batch

    def covered(self, slot: Slot) -> bool:
        return any(other.serving for other in self._slots.values() if other is not slot)

    def changed(self) -> None:
        self._balancer.route(tuple(self._route(slot) for slot in self._slots.values() if slot.serving))
        out = self._out_of_service()
        if out != self._out:
            self._out = out
            for slot in self._slots.values():
                if slot.unsettled and not slot.changing:
                    slot.touch()

    async def unrouted(self) -> None:
        await self._balancer.confirmed(_CONFIRM)

    async def emptied(self, uid: str) -> None:
        await self._balancer.emptied(uid)

    async def close(self, drain: float) -> None:
        """Nothing runs any more; requests that were running had `drain` seconds to finish."""
        for slot in self._slots.values():
            slot.closing = True
        served = [slot.process.uid for slot in self._slots.values() if slot.process is not None]
        self.changed()
        await self.unrouted()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain):
                await asyncio.gather(*(self.emptied(uid) for uid in served))
        await asyncio.gather(*(slot.close() for slot in self._slots.values()))

    def _out_of_service(self) -> int:
        return sum(slot.changing and not slot.serving for slot in self._slots.values())

    def _route(self, slot: Slot) -> Route:
        assert slot.process is not None
        version = slot.process.version
        arm = STABLE if version == self._stable else CANDIDATE
        return Route(slot.name, slot.process.uid, slot.view().address, arm, version.digest)
