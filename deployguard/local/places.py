"""Ports for instances and listeners, chosen once.

They are taken from below the range that the kernel hands out to outgoing connections, so that an instance that restarts
does not find its port used by a passing one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deployguard.errors import UserError
from deployguard.local.launch import address, port_fault, split
from deployguard.local.records import Places

if TYPE_CHECKING:
    from deployguard.model.fleet import Fleet

_LOWEST = 15_000
_HIGHEST = 32_000


def choose(spec: Fleet, before: Places | None) -> Places:
    """A free place for everything that listens, the one it had before where that still fits.

    Raises `UserError` when a listener's address, or too many of the given ports, are in use.
    """
    listeners = _listeners(spec, before)
    taken = {split(listener)[1] for listener in listeners.values()}
    names = [str(number) for number in range(spec.instances)]
    old = before.ports if before is not None else {}
    ports: dict[str, int] = {}
    offered = _offered(spec, taken)
    for name in names:
        port = old.get(name)
        if port is None or port in taken or (spec.ports is not None and not _within(spec.ports, port)) or port_fault(spec.host, port):
            port = next((port for port in offered if port not in old.values()), None)
        if port is None:
            raise UserError(
                f"too few free ports for {spec.instances} instances: {_busy(spec)}",
                hint="end what uses them, or give the fleet other `ports`",
            )
        ports[name] = port
        taken.add(port)
    return Places(ports, listeners)


def _listeners(spec: Fleet, before: Places | None) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for name, wanted in (("all", spec.listen.all), ("stable", spec.listen.stable), ("candidate", spec.listen.candidate)):
        host, port = split(wanted) if wanted is not None else ("127.0.0.1", 0)
        if port:
            if fault := port_fault(host, port):
                raise UserError(
                    f"cannot start the listener `{name}` at {wanted}: {fault}",
                    hint=f"end what uses it, or change `listen.{name}` in the fleet file",
                )
            chosen[name] = address(host, port)
            continue
        known = before.listeners.get(name) if before is not None else None
        used = {split(other)[1] for other in chosen.values()}
        if known is not None and split(known)[0] == host and split(known)[1] not in used and not port_fault(*split(known)):
            chosen[name] = known
        else:
            chosen[name] = address(host, next(_free(host, used)))
    if len(set(chosen.values())) < len(chosen):
        raise UserError(f"two listeners share an address: {', '.join(chosen.values())}", hint="give each under `listen` its own")
    return chosen


def _offered(spec: Fleet, taken: set[int]) -> Iterator[int]:
    """Free ports, given out one by one; `taken` may grow meanwhile."""
    if spec.ports is None:
        yield from _free(spec.host, taken)
    else:
        first, last = _bounds(spec.ports)
        yield from _usable(spec.host, range(first, last + 1), taken)


def _free(host: str, taken: set[int]) -> Iterator[int]:
    span = _HIGHEST - _LOWEST
    start = secrets.randbelow(span)
    yield from _usable(host, (_LOWEST + (start + step) % span for step in range(span)), taken)


def _usable(host: str, ports: Iterable[int], taken: set[int]) -> Iterator[int]:
    for port in ports:
        if port not in taken and not port_fault(host, port):
            yield port


def _bounds(ports: str) -> tuple[int, int]:
    first, last = ports.split("-")
    return int(first), int(last)


def _within(ports: str, port: int) -> bool:
    first, last = _bounds(ports)
    return first <= port <= last


def _busy(spec: Fleet) -> str:
    if spec.ports is None:
        return f"none is free on {spec.host}"
    first, last = _bounds(spec.ports)
    faults = [fault for port in range(first, last + 1) if (fault := port_fault(spec.host, port))]
    return "; ".join(faults[:3]) or f"the range {spec.ports} is used up"
