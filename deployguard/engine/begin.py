"""Opening a rollout: what the candidate is compared with, what came before it, and why it may not start."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from deployguard.engine.health import restored
from deployguard.engine.record import entered
from deployguard.errors import RefusedError, WorldError
from deployguard.model.document import GENERATIONS, Document, StableVersion
from deployguard.model.evidence import Evidence
from deployguard.model.rollout import (
    Advancing,
    Analyzing,
    Holding,
    Promoted,
    RolledBack,
    RollingBack,
    Rollout,
    Superseded,
    Verifying,
    Waiting,
    Watching,
)
from deployguard.model.target import TargetView
from deployguard.model.version import Version, components

if TYPE_CHECKING:
    from deployguard.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to roll out. `override` is the reason for letting a quarantined component through.

    `learnt` is what is known of stable before anything is read. `place` says where a workload of a cluster lives.
    """

    id: str
    guard: str
    target: str
    candidate: Version
    spec: dict[str, Any]
    override: str = ""
    announce: tuple[dict[str, Any], ...] = ()
    learnt: Mapping[str, Evidence] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)


def current_stable(document: Document, view: TargetView) -> StableVersion | None:
    """The version to compare with and to go back to: the newest stable one that is known, else the one found running.

    After a lost store it is what the target itself was told is stable. Where others may change what runs, it is what runs, unless
    FAIL condemned that; what a source asks for and nothing runs yet is a candidate.
    """
    if view.source is not None and view.adopted is not None and not condemned_before(document, view.adopted):
        known = next((s for s in document.stable if s.version == view.adopted), None)
        return known or StableVersion(view.adopted, since=dt.datetime.min.replace(tzinfo=dt.UTC), adopted=True)
    if document.stable:
        return document.stable[0]
    if view.told is not None:
        return StableVersion(view.told.stable, since=dt.datetime.min.replace(tzinfo=dt.UTC), adopted=True)
    if view.adopted is not None:
        return StableVersion(view.adopted, since=dt.datetime.min.replace(tzinfo=dt.UTC), adopted=True)
    return None


def condemned_before(document: Document, version: Version) -> bool:
    """Whether a version, or a part of it, is quarantined."""
    return any(bad.digest in (version.release, version.config, version.digest) for bad in document.quarantine)


def closed(document: Document, view: TargetView, now: dt.datetime) -> Document:
    """The document with its settled rollout ended, so that another may begin.

    Watching ends as Promoted, a complete way back as RolledBack, a rollout that exposed nothing as Superseded. Raises `WorldError`
    for one that is still going on.
    """
    rollout = document.rollout
    if rollout is None or rollout.terminal:
        return document
    phase = rollout.phase
    text = "a new candidate came"
    if isinstance(phase, Watching):
        return _with(document, entered(rollout, Promoted(), f"{text}: the watch is over", now, shifts=False))
    if isinstance(phase, Verifying) and restored(view, phase.to):
        ended = RolledBack(phase.to, phase.why, phase.text)
        return _with(document, entered(rollout, ended, f"{text}: the relapse watch is over", now, shifts=False))
    if isinstance(phase, Waiting):
        return _with(document, entered(rollout, Superseded(text), text, now, shifts=False))
    raise WorldError(
        f"could not begin a rollout of `{document.guard}`: {rollout.id} is not at its end",
        hint="go on with it by `deployguard run --resume`, or take it back by `deployguard abort`",
    )


def _with(document: Document, rollout: Rollout) -> Document:
    return msgspec.structs.replace(document, rollout=rollout, fence=max(document.fence, rollout.seq))


def left_behind(document: Document, view: TargetView) -> bool:
    """Whether the rollout is on its way back, or its candidate was taken back because nobody drove it: it only wants to be ended."""
    rollout = document.rollout
    if rollout is None:
        return False
    if isinstance(rollout.phase, (Advancing, Analyzing, Holding)):
        return view.retreated is not None and view.retreated >= rollout.first_seq
    return isinstance(rollout.phase, RollingBack)


def refusal(document: Document, stable: Version, candidate: Version, override: str) -> str:
    """Why the candidate may not start: a component of it is quarantined and nobody gave a reason to override."""
    if override:
        return ""
    parts = {candidate.release, candidate.config, candidate.digest, *components(candidate, stable)}
    for bad in document.quarantine:
        if bad.digest in parts and candidate != stable:
            name = document.names.get(bad.digest, bad.digest[7:17])
            return f"{name} is quarantined since {bad.at:%Y-%m-%d %H:%M:%S} ({bad.rollout}): {bad.text}"
    return ""


def held_by(document: Document, view: TargetView) -> str:
    """The guard and rollout of somebody else that has a candidate exposed on this target; empty when nobody has."""
    told = view.told
    if told is None or told.candidate is None or told.count == 0 or view.retreated == view.fence:
        return ""
    mine = document.rollout is not None and told.by == f"{document.guard}/{document.rollout.id}"
    return "" if mine else told.by or "another guard"


def begun(document: Document, view: TargetView, wish: Wish, now: dt.datetime) -> Document:
    """The document with a new rollout in Waiting. Its fence is above everything the target and the document ever carried.

    Raises `RefusedError` for a quarantined candidate, `WorldError` while another rollout goes on or when nothing stable is known.
    """
    document = closed(document, view, now)
    if other := held_by(document, view):
        raise WorldError(
            f"could not begin a rollout of `{document.guard}`: {other} has a candidate on {wish.target}",
            hint="wait for it with `--wait`; a candidate that nobody drives goes back when its lease runs out",
        )
    stable = current_stable(document, view)
    if stable is None:
        raise WorldError(
            f"could not begin a rollout of `{document.guard}`: no version is running that one could go back to",
            hint="start the fleet with a first release: `deployguard local up -f fleet.yaml`",
        )
    if why := refusal(document, stable.version, wish.candidate, wish.override):
        raise RefusedError(f"the candidate is refused: {why}", hint="mend it, or give a reason: `--override 'why'`")
    if all(known.version != stable.version for known in document.stable):
        adopted = msgspec.structs.replace(stable, since=now)
        document = msgspec.structs.replace(document, stable=(adopted, *document.stable)[: GENERATIONS + 1])
    seq = max(document.fence, view.fence) + 1
    rollout = Rollout(
        id=wish.id,
        kind="candidate",
        guard=wish.guard,
        target=wish.target,
        spec=wish.spec,
        candidate=wish.candidate,
        stable=stable.version,
        seq=seq,
        phase=Waiting((), now),
        started=now,
        updated=now,
        adopted=stable.adopted,
        override=wish.override,
        announce=wish.announce,
        evidence=dict(wish.learnt),
        wanted=view.wanted,
        first_seq=seq,
        fence_seen=view.fence,
        place=wish.place,
        surge=view.surge,
    )
    return msgspec.structs.replace(document, rollout=rollout, fence=seq)


def returned(policy: Policy, document: Document, view: TargetView, wish: Wish, to: Version, reason: str, now: dt.datetime) -> Document:
    """The document with a rollout of kind `return`: back to a named version, paced, without stages."""
    document = closed(document, view, now)
    leaving = current_stable(document, view)
    seq = max(document.fence, view.fence) + 1
    phase = RollingBack(to, 0, "rollback", reason, now + policy.rollback.within)
    rollout = Rollout(
        id=wish.id,
        kind="return",
        guard=wish.guard,
        target=wish.target,
        spec=wish.spec,
        announce=wish.announce,
        candidate=leaving.version if leaving else to,
        stable=to,
        seq=seq - 1,
        phase=Waiting((), now),
        started=now,
        updated=now,
        wanted=view.wanted,
        first_seq=seq,
        fence_seen=view.fence,
        place=wish.place,
        surge=view.surge,
    )
    return _with(document, entered(rollout, phase, reason, now, shifts=True))
