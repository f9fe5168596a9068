"""A guard as it applies: its policy found, its overrides merged, its checks added, and every fault shown where it was written."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deployguard.errors import Fault, FileError, UserError
from deployguard.files.bundle import KINDS, Bundle, Entry, load_bundle
from deployguard.files.faults import Problem, check
from deployguard.files.read import STDIN
from deployguard.files.report import fault, file_error
from deployguard.files.shape import listed, nearest
from deployguard.files.shipped import shipped_entry, shipped_names
from deployguard.files.yaml_lines import Document, dotted
from deployguard.model.check import BalancerCheck, Worse
from deployguard.model.fields import Place
from deployguard.model.fleet import FleetFile
from deployguard.model.guard import GuardFile
from deployguard.model.policy import Policy

__all__ = ["KINDS", "Bundle", "Entry", "Resolved", "load_bundle", "resolve"]

OVERRIDE: Place = ("spec", "override")
INLINE = "inline"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A guard with all that it names. `fleet` is None when the fleet's file was not given; it may already be up."""

    guard: GuardFile
    policy: Policy
    policy_name: str
    fleet: FleetFile | None
    path: str
    fleet_path: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """The policy that a guard names, as plain data, and where in its document it is written."""

    name: str
    document: Document
    at: Place

    @property
    def data(self) -> dict[str, Any]:
        """The policy's fields."""
        data = self.document.data
        for step in self.at:
            data = data[step]
        return dict(data)


def resolve(guard_name: str | None, bundle: Bundle) -> Resolved:
    """The named guard, or the only one, with its merged policy. Raises `UserError` when a name is unknown or a rule is broken."""
    entry = choose(guard_name, bundle)
    spec = entry.value.spec
    base = find_policy(spec.policy, entry.document, ("spec", "policy"), bundle)
    policy = merged(base, entry.document, OVERRIDE, ("spec", "checks"))
    if spec.target.kind == "LocalFleet":
        policy = with_default_check(policy)
    fleet = bundle.fleets.get(spec.target.name)
    return Resolved(
        guard=entry.value,
        policy=policy,
        policy_name=base.name,
        fleet=fleet.value if fleet else None,
        path=entry.path,
        fleet_path=fleet.path if fleet else "",
    )


def choose(name: str | None, bundle: Bundle) -> Entry[GuardFile]:
    """The guard of this name, or the only guard. Raises `UserError` that lists the guards."""
    files = ", ".join(bundle.paths)
    if not bundle.guards:
        raise UserError(f"no guard in {files}", hint="add a document with `kind: Guard`, or let `deployguard init` write one")
    if name is None:
        if len(bundle.guards) > 1:
            raise UserError(f"{len(bundle.guards)} guards in {files}", hint=f"name one of {listed(sorted(bundle.guards))}")
        return next(iter(bundle.guards.values()))
    if name not in bundle.guards:
        near = nearest(name, bundle.guards)
        meant = f"did you mean `{near}`? " if near else ""
        raise UserError(f"no guard `{name}` in {files}", hint=f"{meant}there are {listed(sorted(bundle.guards))}")
    return bundle.guards[name]


def find_policy(named: str | Policy, document: Document, at: Place, bundle: Bundle) -> Base:
    """The policy that `document` names at `at`: inline, of the bundle, a path, or shipped. Raises `FileError` that lists what there is."""
    if isinstance(named, Policy):
        return Base(INLINE, document, at)
    if named in bundle.policies:
        return Base(named, bundle.policies[named].document, ("spec",))
    if named.endswith((".yaml", ".yml")):
        return _policy_at(named, document, at)
    shipped = shipped_names()
    if named in shipped:
        return Base(named, shipped_entry(named)[1], ("spec",))
    known = [*sorted(bundle.policies), *shipped]
    near = nearest(named, known)
    right = f"did you mean `{near}`? " if near else ""
    if bundle.policies:
        right += f"policies in these files are {listed(sorted(bundle.policies))}, "
    raise _fault(document, at, f"no policy `{named}`", f"{right}shipped policies are {listed(shipped)}")


def _policy_at(named: str, document: Document, at: Place) -> Base:
    folder = Path() if document.path == STDIN else Path(document.path).parent
    path = folder / named
    if not path.exists():
        raise _fault(document, at, f"no file `{named}`", f"the path is relative to `{folder}`")
    policies = load_bundle([path]).policies
    if len(policies) != 1:
        raise _fault(document, at, f"`{named}` holds {len(policies)} policies", "name a file with one document of `kind: GuardPolicy`")
    ((name, entry),) = policies.items()
    return Base(name, entry.document, ("spec",))


def with_default_check(policy: Policy) -> Policy:
    """The policy, with the balancer's own count of errors where it has no check at all.

    It claims what a service with little traffic can show: a rise from one request in a hundred to one in ten takes about 75
    requests on the candidate. A check of one's own claims more.
    """
    if policy.checks:
        return policy
    errors = BalancerCheck(name="errors", claims=10, worse_than_stable=Worse(floor=0.01))
    return policy.model_copy(update={"checks": [errors]})


def merged(
    base: Base, document: Document, override_at: Place, checks_at: Place, single: Mapping[str, Place] = MappingProxyType({})
) -> Policy:
    """The base policy with the override, single fields and checks that `document` has at these places.

    Raises `FileError` with the lines of what broke a rule.
    """
    override = (_at(document.data, override_at) or {}) | {name: _at(document.data, place) for name, place in single.items()}
    added = _at(document.data, checks_at) or []
    data = deep_merge(base.data, override)
    own = data.get("checks") or []
    if added and isinstance(own, list):
        data["checks"] = [*own, *added]
    count = len(own) if isinstance(own, list) else 0

    def origin(place: Place) -> tuple[Document, Place] | None:
        if len(place) > 1 and place[0] == "checks" and isinstance(place[1], int) and place[1] >= count:
            return document, (*checks_at, place[1] - count, *place[2:])
        if place and place[0] in single:
            return document, (*single[str(place[0])], *place[1:])
        if _overridden(override, place):
            return document, (*override_at, *place)
        written = (*base.at, *place)
        return (base.document, written) if written in base.document.lines else None

    policy, problems = check(Policy, data, origin)
    if policy is None:
        raise file_error(document.path, [_blame(problem, document, override_at, origin) for problem in problems])
    return policy


def _blame(problem: Problem, document: Document, override_at: Place, origin: Any) -> Fault:
    """The fault at the first of the problem's places that the guard's own file writes; at the override when none is."""
    for place in problem.places:
        written = origin(place)
        if written is not None and written[0] is document:
            return fault(document, written[1], problem.found, problem.right)
    about = dotted(problem.places[0])
    found = f"with it, the policy's `{about}` is wrong: {problem.found}" if about else problem.found
    return fault(document, override_at, found, problem.right)


def deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A new map: maps merged field by field, all else replaced by what `over` says."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        here = result.get(key)
        result[key] = deep_merge(here, value) if isinstance(here, dict) and isinstance(value, dict) else copy.deepcopy(value)
    return result


def _at(data: Any, place: Place) -> Any:
    for step in place:
        inside = (isinstance(data, dict) and step in data) or (isinstance(data, list) and isinstance(step, int) and step < len(data))
        data = data[step] if inside else None
    return data


def _overridden(override: dict[str, Any], place: Place) -> bool:
    """Whether the override says what stands at `place`: it names it, or replaces something around it as a whole."""
    here: Any = override
    for step in place:
        if not isinstance(here, dict):
            return True
        if step not in here:
            return False
        here = here[step]
    return bool(place)


def _fault(document: Document, place: Place, found: str, right: str) -> FileError:
    return FileError(document.path, [fault(document, place, found, right)])
