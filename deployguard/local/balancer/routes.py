"""The instances that may be sent requests now, who gets the next one, and what has been counted."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from deployguard.clock import monotonic
from deployguard.local.balancer.protocol import CountsEvent, InstanceTally, Route, Tally

if TYPE_CHECKING:
    from deployguard.local.balancer.upstream import Upstream

_REMEMBERED = 600.0
_SPARES = 256
_LAST_PORT = 65535

logger = logging.getLogger(__name__)


class Count:
    """Requests that are over, and how many of them failed."""

    __slots__ = ("failed", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0


class Instance:
    """One process, known from its first route until ten minutes after it left."""

    __slots__ = ("arm", "by_version", "count", "host", "id", "in_flight", "left", "logged", "port", "routed", "spares", "uid", "version")

    def __init__(self, route: Route, by_version: Count) -> None:
        self.uid = route.uid
        self.count = Count()
        self.in_flight = 0
        self.routed = True
        self.left = 0.0
        self.logged = 0.0
        self.spares: list[Upstream] = []
        self.update(route, by_version)

    def update(self, route: Route, by_version: Count) -> None:
        """The instance is what the route says."""
        self.id, self.arm, self.version, self.by_version = route.id, route.arm, route.version, by_version
        self.host, self.port = split_address(route.address)

    def spare(self, youngest: float) -> Upstream | None:
        """An open connection that nobody uses and that has waited no longer than since `youngest`."""
        while self.spares:
            one = self.spares.pop()
            if one.spare_since < youngest:
                self.spares.append(one)
                return None
            if not one.closed:
                return one
        return None

    def keep(self, upstream: Upstream) -> bool:
        """True when the connection waits here for the next request."""
        if not self.routed or len(self.spares) >= _SPARES:
            return False
        self.spares.append(upstream)
        return True

    def complain(self, text: str) -> None:
        """The log says what went wrong; once a second for each instance, since under load it would be thousands of lines."""
        now = monotonic()
        if now - self.logged >= 1.0:
            self.logged = now
            logger.warning("instance %s (%s) at %s:%d: %s", self.id, self.uid, self.host, self.port, text)

    def __str__(self) -> str:
        return f"instance {self.id}"


class Routes:
    """The present routes, and every instance that is still remembered."""

    def __init__(self, drained: Callable[[str], None]) -> None:
        self._drained = drained
        self._known: dict[str, Instance] = {}
        self._versions: dict[str, Count] = {}
        self._all: list[Instance] = []
        self._arms: dict[str, list[Instance]] = {}
        self._turn = 0

    def replace(self, routes: Iterable[Route]) -> list[Instance]:
        """Only these get requests from now on. Returns those that have just left."""
        before = self._all
        self._all = [self._meet(route) for route in routes]
        self._arms = {}
        for instance in self._all:
            self._arms.setdefault(instance.arm, []).append(instance)
        wanted = {instance.uid for instance in self._all}
        gone = [instance for instance in before if instance.uid not in wanted]
        now = monotonic()
        for instance in gone:
            instance.routed = False
            instance.left = now
            drop_spares(instance)
        self._forget(now)
        return gone

    def _meet(self, route: Route) -> Instance:
        by_version = self._versions.setdefault(route.version, Count())
        instance = self._known.get(route.uid)
        if instance is None:
            instance = self._known[route.uid] = Instance(route, by_version)
            return instance
        address = instance.host, instance.port
        instance.update(route, by_version)
        instance.routed = True
        if (instance.host, instance.port) != address:
            drop_spares(instance)
        return instance

    def _forget(self, now: float) -> None:
        for uid in [i.uid for i in self._known.values() if not i.routed and not i.in_flight and now - i.left > _REMEMBERED]:
            del self._known[uid]

    def choose(self, arm: str | None, without: Collection[str] = ()) -> Instance | None:
        """The instance with the fewest requests in flight, in turn among equals; of one arm when `arm` is given."""
        group = self._all if arm is None else self._arms.get(arm, [])
        size = len(group)
        if not size:
            return None
        if not without:
            # A second try is not a turn: otherwise a dead instance would take the turns of its neighbour.
            self._turn += 1
        first = self._turn % size
        best: Instance | None = None
        for instance in group[first:] + group[:first]:
            if (best is None or instance.in_flight < best.in_flight) and instance.uid not in without:
                best = instance
                if not best.in_flight:
                    break
        return best

    def release(self, instance: Instance) -> None:
        """One request fewer is in flight there."""
        instance.in_flight -= 1
        if not instance.in_flight and not instance.routed:
            self._drained(instance.uid)

    def spares(self) -> Iterable[Upstream]:
        """Every connection that nobody uses now."""
        return [one for instance in self._all for one in instance.spares]

    def counts(self, n: int) -> CountsEvent:
        """What has been counted until now."""
        self._forget(monotonic())
        instances = {
            one.uid: InstanceTally(one.count.requests, one.count.failed, one.arm, one.version, one.in_flight)
            for one in self._known.values()
        }
        return CountsEvent(n, instances, {version: Tally(one.requests, one.failed) for version, one in self._versions.items()})


def drop_spares(instance: Instance) -> None:
    """No unused connection to the instance is open."""
    spares, instance.spares = instance.spares, []
    for one in spares:
        one.close()


def fact_of(error: Exception) -> str:
    """What the system said, without the numbers and addresses that asyncio puts around it."""
    if not isinstance(error, OSError):
        return str(error)
    known = error.errno is not None and error.errno in errno.errorcode
    return os.strerror(error.errno).lower() if known and error.errno else (error.strerror or str(error)).lower()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[host]:port`; without a host it is this machine alone."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > _LAST_PORT:
        raise ValueError(f"could not use the address {address!r}: it has no port between 0 and {_LAST_PORT}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
