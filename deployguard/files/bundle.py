"""The guards, policies and fleets of some files, read together because they name one another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from deployguard.errors import Fault, FileError
from deployguard.files.faults import validate
from deployguard.files.read import STDIN
from deployguard.files.report import fault, file_error
from deployguard.files.shape import listed, nearest
from deployguard.files.wording import shown
from deployguard.files.yaml_lines import Document, read_yaml
from deployguard.model.fleet import FleetFile
from deployguard.model.guard import GuardFile
from deployguard.model.policy import PolicyFile

T = TypeVar("T", GuardFile, PolicyFile, FleetFile)

KINDS: dict[str, type[GuardFile] | type[PolicyFile] | type[FleetFile]] = {
    "Guard": GuardFile,
    "GuardPolicy": PolicyFile,
    "LocalFleet": FleetFile,
}


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One object and the document that writes it."""

    value: T
    document: Document

    @property
    def path(self) -> str:
        """The file that it stands in; `-` for standard input."""
        return self.document.path

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.path} line {self.document.line_of(('metadata', 'name'))}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Objects by kind and name."""

    guards: dict[str, Entry[GuardFile]] = field(default_factory=dict)
    policies: dict[str, Entry[PolicyFile]] = field(default_factory=dict)
    fleets: dict[str, Entry[FleetFile]] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


def load_bundle(paths: Sequence[str | Path]) -> Bundle:
    """Every Guard, GuardPolicy and LocalFleet of the files; `-` is standard input.

    Raises `FileError` with every fault of the first file that has one; the hint counts those of the others.
    """
    bundle = Bundle(paths=tuple(str(path) for path in paths))
    errors = []
    seen: set[str] = set()
    for path in bundle.paths:
        identity = path if path == STDIN else os.path.realpath(path)
        if identity in seen:
            continue
        seen.add(identity)
        try:
            _load(bundle, path)
        except FileError as error:
            errors.append(error)
    if errors:
        others = "; ".join(f"`{error.path}` has faults too ({len(error.faults)})" for error in errors[1:])
        raise FileError(errors[0].path, list(errors[0].faults), hint=others or errors[0].hint) from errors[0]
    return bundle


def _load(bundle: Bundle, path: str) -> None:
    documents = read_yaml(path)
    if not documents:
        right = "write a guard in it, or let `deployguard init` write one"
        raise FileError(path, [Fault(0, "", "nothing stands in this file", right)])
    faults = [one for document in documents for one in add_document(bundle, document)]
    if faults:
        raise file_error(path, faults)


def add_document(bundle: Bundle, document: Document) -> list[Fault]:
    """The faults of the document; without one, its object is in the bundle."""
    kind = kind_of(document)
    if isinstance(kind, Fault):
        return [kind, *document.faults]
    match kind:
        case "Guard":
            return _keep(GuardFile, bundle.guards, document)
        case "GuardPolicy":
            return _keep(PolicyFile, bundle.policies, document)
        case _:
            return _keep(FleetFile, bundle.fleets, document)


def kind_of(document: Document) -> str | Fault:
    """The kind that the document says it is, or what is wrong with that."""
    data = document.data
    if not isinstance(data, dict):
        what = "a list" if isinstance(data, list) else "text"
        return Fault(document.line, "", f"{what} stands where a map is expected", "begin with `kind: Guard`")
    kind = data.get("kind")
    if kind is None:
        return fault(document, ("kind",), "missing", f"write one of {listed(KINDS)}")
    if kind in KINDS if isinstance(kind, str) else False:
        return str(kind)
    near = nearest(str(kind), {name.lower(): name for name in KINDS})
    meant = next((name for name in KINDS if name.lower() == near), None)
    right = (f"did you mean `{meant}`? " if meant else "") + f"known kinds are {listed(KINDS)}"
    return fault(document, ("kind",), f"unknown kind {shown(kind, None)}", right)


def _keep(model: type[T], entries: dict[str, Entry[T]], document: Document) -> list[Fault]:
    value, faults = validate(model, document)
    if value is None:
        return faults
    entry = Entry(value, document)
    name = value.metadata.name
    if name in entries:
        found = f"a second {value.kind} named `{name}`, the first is in {entries[name].place}"
        return [fault(document, ("metadata", "name"), found, "give it another name, or take one away")]
    entries[name] = entry
    return []
