"""A draft policy on recorded rollouts: which of its checks a recording holds, and what it would have decided there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployguard.engine.recording import Loaded, read
from deployguard.engine.simulate import Simulated, simulated, whole
from deployguard.engine.stages import planned
from deployguard.errors import DeployguardError, UserError
from deployguard.files.bundle import Bundle
from deployguard.files.guard_file import load_bundle, resolve
from deployguard.files.shipped import shipped_names, shipped_policy
from deployguard.model.rollout import Entry
from deployguard.model.units import format_duration
from deployguard.stores.readings import FileReadings
from deployguard.wiring.home import GuardStore
from deployguard.wiring.replay import JUDGING, recorded

if TYPE_CHECKING:
    from deployguard.model.check import Check
    from deployguard.model.policy import Policy

PACING = frozenset({"every", "timeout"})
"""Fields of a probe that say how often it walks: a recording has its own pace."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The policy to be tried, by the name it goes under. `own_checks`: it has checks; without any, those of each recording are asked."""

    name: str
    policy: Policy
    own_checks: bool


@dataclass(frozen=True, slots=True)
class Fitted:
    """A draft as one recording can answer it.

    `names` are the recorded checks by those of the draft that read the same, `unheard` the draft's checks that the recording does not
    hold; `notes` say what is taken as it was recorded.
    """

    policy: Policy
    names: dict[str, str]
    unheard: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One rollout: its ledger entries, and the simulation, or why there is none."""

    rollout: str
    entries: tuple[Entry, ...]
    simulated: Simulated | None = None
    fitted: Fitted | None = None
    skipped: str = ""


def read_draft(path: str, guard: str) -> Draft:
    """The policy of a file: of its guard named `guard`, of its only guard, or its only policy; or a shipped policy by its name.

    Raises `UserError` when there is none, or more than one.
    """
    if path in shipped_names():
        return _bare(f"policy {path}", shipped_policy(path))
    bundle = load_bundle([path])
    if bundle.guards:
        found = resolve(guard if guard in bundle.guards else None, bundle)
        return Draft(f"guard {found.guard.metadata.name} of {path}", found.policy, own_checks=True)
    return _only_policy(path, bundle)


def _only_policy(path: str, bundle: Bundle) -> Draft:
    if len(bundle.policies) != 1:
        names = f": {', '.join(bundle.policies)}" if bundle.policies else ""
        raise UserError(
            f"{path} holds {len(bundle.policies)} policies and no guard{names}",
            hint="give a file with one document of `kind: GuardPolicy`, or a guard's",
        )
    ((name, entry),) = bundle.policies.items()
    return _bare(f"policy {name} of {path}", entry.value.spec)


def _bare(name: str, policy: Policy) -> Draft:
    return Draft(name, policy, own_checks=bool(policy.checks))


def fitted(draft: Draft, past: Policy, wanted: int) -> Fitted:
    """The draft on a recording that was made under `past`, of a target of `wanted` instances."""
    policy, notes = draft.policy, []
    if not draft.own_checks:
        policy = policy.model_copy(update={"checks": past.checks})
        notes.append("the draft has no checks: those of the recorded policy are asked")
    theirs = {check.name: _reads(check) for check in past.checks}
    names: dict[str, str] = {}
    for check in policy.checks:
        mine = _reads(check)
        same = [name for name, reads in theirs.items() if reads == mine]
        if same:
            names[check.name] = check.name if check.name in same else same[0]
    unheard = tuple(check.name for check in policy.checks if check.name not in names)
    if unheard:
        # Kept, so that it has its share of alpha, but its silence must hold nothing.
        silent = [check.model_copy(update={"required": False}) if check.name in unheard else check for check in policy.checks]
        policy = policy.model_copy(update={"checks": silent})
    notes += _taken(policy, past, wanted)
    return Fitted(policy.model_copy(update={"interval": past.interval}), names, unheard, tuple(notes))


def _reads(check: Check) -> dict[str, object]:
    return check.model_dump(mode="json", exclude=set(JUDGING | PACING))


def _taken(policy: Policy, past: Policy, wanted: int) -> list[str]:
    """What the recording decides instead of the draft."""
    notes = []
    mine, theirs = ([stage.count for stage in planned(p, max(wanted, 1))] for p in (policy, past))
    if mine != theirs:
        counts = [", ".join(map(str, found)) for found in (mine, theirs)]
        notes.append(f"the draft's stages have {counts[0]} instances; they are judged on the recorded exposure of {counts[1]}")
    if policy.interval != past.interval:
        notes.append(f"the draft polls every {format_duration(policy.interval)}; the recording every {format_duration(past.interval)}")
    pace = {check.name: check.every for check in past.checks if check.source == "probe"}
    walked = {c.name: pace.get(c.name, c.every) for c in policy.checks if c.source == "probe" and pace.get(c.name, c.every) != c.every}
    return notes + [f"{name} was walked every {format_duration(every)} in the recording" for name, every in walked.items()]


def chosen(store: GuardStore, rollouts: Iterable[str], since: dt.datetime | None, last: int | None) -> list[str]:
    """The rollouts to be tried, the oldest first: those named, else all that are recorded.

    Raises `UserError` for one that the ledger does not know.
    """
    began: dict[str, dt.datetime] = {}
    for entry in store.entries():
        began.setdefault(entry.rollout, entry.at)
    named = list(dict.fromkeys(rollouts))
    for rollout in named:
        if rollout not in began:
            raise UserError(f"the ledger of `{store.guard}` has no rollout `{rollout}`", hint="`deployguard history` lists them")
    kept = set(named or FileReadings(store.directory).rollouts())
    found = sorted((at, rollout) for rollout, at in began.items() if rollout in kept and (since is None or at >= since))
    return [rollout for _, rollout in found][-last if last is not None else 0 :]


def tried(store: GuardStore, rollouts: Iterable[str], draft: Draft) -> Iterator[Case]:
    """Each rollout under the draft, one after the other. A recording that cannot be used is told in its case, never raised."""
    readings = FileReadings(store.directory)
    present = store.load()[0].rollout
    for rollout in rollouts:
        ledger = tuple(store.told(rollout, present))
        try:
            yield _tried(readings, rollout, draft, ledger)
        except DeployguardError as error:
            yield Case(rollout, ledger, skipped=error.message.removeprefix(f"could not replay `{rollout}`: "))


def _tried(readings: FileReadings, rollout: str, draft: Draft, ledger: tuple[Entry, ...]) -> Case:
    source = recorded(readings, rollout)
    first = next(read(readings.read(rollout), rollout))
    why = whole(source.document) if isinstance(first, Loaded) else "the beginning of its recording is gone"
    if why or source.document.rollout is None:
        return Case(rollout, ledger, skipped=why)
    fit = fitted(draft, source.policy, source.document.rollout.wanted)
    return Case(rollout, ledger, simulated(fit.policy, fit.names, source.document, source.records()), fit)
