"""Every error that deployguard raises, split by who must act.

    DeployguardError
    ├── UserError            the command line or a file is wrong; nothing was changed; exit 2
    │   └── FileError        one or more places in a file, each with line, field, what was found, what would be right
    ├── RefusedError         the change may not start (quarantine, freeze, strict plan); exit 13
    ├── WorldError           a process, a file system or a network said no; trying again may help; exit 1
    │   └── ForeignState     saved state that this version cannot read
    ├── StaleView            a conditional write met a newer world: normal, look again
    └── Bug                  an invariant is broken: stop and keep the evidence

A message names the operation, the object and the fact; the hint says what to do. A library's exception never
crosses its adapter: it is the `__cause__` of one of these. Absence of data is a value (`Missing`), not an exception.
"""

from __future__ import annotations

from dataclasses import dataclass


class DeployguardError(Exception):
    """Something a person can read and act on. `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(DeployguardError):
    """What the user gave cannot be used; nothing was changed."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong place in a file. `line` counts from 1; 0 when the place has no line."""

    line: int
    field: str
    found: str
    right: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        field = f"`{self.field}`: " if self.field else ""
        return f"{place}{field}{self.found}; {self.right}" if self.right else f"{place}{field}{self.found}"


class FileError(UserError):
    """A guard, policy or fleet file that cannot be used, with every fault found in it."""

    def __init__(self, path: str, faults: list[Fault], *, hint: str = "") -> None:
        self.path = path
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{path}: {fault}" for fault in faults), hint=hint)


class RefusedError(DeployguardError):
    """The change may not start, and the message says why."""

    exit_code = 13


class WorldError(DeployguardError):
    """The world outside said no: a process, a disk, a network. Trying again may help."""


class ForeignState(WorldError):
    """Saved state that this version of deployguard cannot read."""


class StaleView(DeployguardError):
    """A conditional write met a newer world. Normal: reload and look again."""


class Bug(DeployguardError):
    """An invariant does not hold. Nothing further is written; the state on disk is the evidence."""
