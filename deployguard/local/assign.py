"""Pure decisions about assignments: what is accepted, which slots take the candidate, what a retreat leaves.

Kept apart from processes and disks, because these are the promises that must hold whatever those do.
"""

from __future__ import annotations

import hashlib

import msgspec

from deployguard.errors import StaleView
from deployguard.local.records import Assignments
from deployguard.model.target import Desired
from deployguard.model.version import Version

KEPT_STABLES = 3
LEASE_MAX_SHARE = 0.5
"""Above this share of slots on the candidate a silent guard must not flip the fleet."""
RETREAT_SHARE = 0.25
"""A retreat takes at most this share of the slots out of service at a time (one, if that is less)."""


def first(version: Version, wanted: int) -> Assignments:
    """All slots on the version that `local up` brought."""
    return Assignments(adopted=version, stable=version, slots={str(n): version for n in range(wanted)}, stables=(version,))


def reshape(present: Assignments, wanted: int) -> Assignments:
    """The same assignments for `wanted` slots: new slots run stable, slots that are gone are forgotten."""
    names = [str(n) for n in range(wanted)]
    if names == list(present.slots):
        return present
    slots = {name: present.slots.get(name, present.stable) for name in names}
    return msgspec.structs.replace(present, slots=slots, generation=present.generation + 1)


def accept(present: Assignments, desired: Desired, basis: str) -> Assignments:
    """The assignments that bring `desired` about; `present` itself when nothing changes. Raises `StaleView`."""
    if desired.fence < present.fence:
        raise StaleView(f"fence {desired.fence} is outdated: this fleet follows fence {present.fence}")
    if basis != present.basis:
        raise StaleView(f"the fleet has changed since it was seen: basis {basis} is now {present.basis}")
    exposing = desired.candidate is not None and desired.count > 0
    if desired.fence == present.fence and present.told is not None:
        if present.retreated == present.fence and exposing:
            raise StaleView(f"fence {desired.fence} has retreated: its lease ran out, and it exposes nothing again")
        if desired == present.told:
            return present
        if exposing and (desired.candidate != present.told.candidate or desired.count > present.told.count):
            raise StaleView(f"fence {desired.fence} was already used for less: more exposure needs a higher fence")
    slots = dict.fromkeys(present.slots, desired.stable)
    if desired.candidate is not None:
        for slot in _chosen(present, desired.candidate, desired.count):
            slots[slot] = desired.candidate
    return msgspec.structs.replace(
        present,
        fence=desired.fence,
        generation=present.generation + 1,
        told=desired,
        stable=desired.stable,
        slots=slots,
        restarted={**present.restarted, **{slot: desired.fence for slot in desired.restart if slot in slots}},
        stables=_stables(present, desired.stable),
    )


def retreat(present: Assignments) -> Assignments:
    """Every slot back on stable, under the same fence, which is marked as retreated."""
    return msgspec.structs.replace(
        present,
        generation=present.generation + 1,
        retreated=present.fence,
        slots=dict.fromkeys(present.slots, present.stable),
    )


def may_retreat(present: Assignments) -> bool:
    """Whether candidates are exposed, and few enough to be taken back without a guard."""
    return 0 < len(present.candidates) <= LEASE_MAX_SHARE * len(present.slots)


def retreat_batch(present: Assignments) -> int:
    """How many slots a retreat may take out of service at a time."""
    told = present.told.batch if present.told is not None else 1
    return max(1, told, int(RETREAT_SHARE * len(present.slots)))


def kept(present: Assignments) -> set[Version]:
    """The versions whose content must stay on the disk."""
    versions = {present.adopted, present.stable, *present.slots.values(), *present.stables}
    if present.told is not None:
        versions.update((present.told.stable, *present.told.keep))
        if present.told.candidate is not None:
            versions.add(present.told.candidate)
    return versions


def _chosen(present: Assignments, candidate: Version, count: int) -> list[str]:
    """The slots for the candidate: those on it already come first, then the order of a stable hash."""

    def rank(slot: str) -> tuple[bool, str]:
        return present.slots[slot] != candidate, hashlib.sha256(f"{candidate.digest}\n{slot}".encode()).hexdigest()

    return sorted(present.slots, key=rank)[: max(0, count)]


def _stables(present: Assignments, stable: Version) -> tuple[Version, ...]:
    return (stable, *(version for version in present.stables if version != stable))[:KEPT_STABLES]
