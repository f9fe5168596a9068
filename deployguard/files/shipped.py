"""The policies that come with deployguard: package data of an installed wheel, or the folder of a source checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import deployguard
from deployguard.errors import Bug, FileError, UserError
from deployguard.files.faults import validate
from deployguard.files.shape import listed, nearest
from deployguard.files.yaml_lines import Document, read_yaml
from deployguard.model.policy import Policy, PolicyFile

_PACKAGE = Path(deployguard.__file__).parent


def shipped_folder() -> Path:
    """The folder with the shipped policies."""
    installed = _PACKAGE / "shipped" / "policies"
    return installed if installed.is_dir() else _PACKAGE.parent / "policies"


def shipped_names() -> list[str]:
    """The names of the shipped policies, sorted."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml") if not path.name.endswith(".test.yaml"))


def shipped_policy(name: str) -> Policy:
    """The shipped policy of this name. Raises `UserError` that lists the shipped ones."""
    return shipped_entry(name)[0].spec


@cache
def shipped_entry(name: str) -> tuple[PolicyFile, Document]:
    """The shipped policy with the document that writes it. Raises `UserError` that lists the shipped ones."""
    names = shipped_names()
    if name not in names:
        near = nearest(name, names)
        hint = (f"did you mean `{near}`? " if near else "") + f"shipped policies are {listed(names)}"
        raise UserError(f"no shipped policy `{name}`", hint=hint)
    path = str(shipped_folder() / f"{name}.yaml")
    (document,) = read_yaml(path)
    policy, faults = validate(PolicyFile, document)
    if policy is None:
        raise Bug(f"the shipped policy `{name}` does not load") from FileError(path, faults)
    return policy, document
