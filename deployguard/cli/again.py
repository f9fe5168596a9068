"""New rollouts from what is saved: back to an older stable version, or the last candidate once more."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import typer

from deployguard import clock
from deployguard.cli.act import named
from deployguard.cli.progress import progress
from deployguard.cli.session import Session, Terms, whoami
from deployguard.engine import begin, claims
from deployguard.engine.begin import Wish
from deployguard.errors import UserError
from deployguard.model.document import Document
from deployguard.model.rollout import Verifying, Watching
from deployguard.model.version import Version
from deployguard.stores.file import FileStore
from deployguard.wiring.guard import Rig, resumed


def settled(root: Path, guard: str) -> bool:
    """Whether nothing is being rolled out: the last rollout has ended, or its candidate is stable."""
    rollout = FileStore(root, guard).load()[0].rollout
    return rollout is not None and (rollout.terminal or isinstance(rollout.phase, (Watching, Verifying)))


def ended(root: Path, guard: str) -> bool:
    """Whether the last rollout was taken back or has ended."""
    rollout = FileStore(root, guard).load()[0].rollout
    return rollout is not None and (rollout.terminal or isinstance(rollout.phase, Verifying))


def _chosen(document: Document, to: str | None, generation: int) -> Version:
    """The stable version to go back to. Raises `UserError` that lists what there is."""
    known = ", ".join(document.name(s.version) for s in document.stable)
    if to is not None:
        found = named(document, to)
        if len(found) != 1:
            raise UserError(f"`{to}` names {len(found)} stable versions of `{document.guard}`", hint=f"stable were {known}")
        return found[0]
    if generation >= len(document.stable):
        raise UserError(
            f"`{document.guard}` knows {len(document.stable)} stable versions, so there is none {generation} before the present one",
            hint=f"stable were {known}" if known else "nothing has become stable yet",
        )
    return document.stable[generation].version


def returned(root: Path, guard: str, to: str | None, generation: int, reason: str) -> int:
    """Go back from what is stable now to an older stable version; the exit code."""
    store = FileStore(root, guard)
    document, revision = store.load()
    version = _chosen(document, to, generation)
    equipment = resumed(root, document)
    try:
        wish = _wish(document, version, "")
        text = f"{whoami()} went back to {document.name(version)}" + (f": {reason}" if reason else "")
        view = equipment.client.observe()
        new = begin.returned(equipment.world.policy, document, view, wish, version, text, clock.now())
        _saved(equipment, document, new, revision)
    except BaseException:
        equipment.close()
        raise
    return _driven(equipment, asked=True)


def retried(root: Path, guard: str, override: str) -> int:
    """Roll the last candidate out again; the exit code."""
    store = FileStore(root, guard)
    document, revision = store.load()
    rollout = document.rollout
    assert rollout is not None
    equipment = resumed(root, document)
    try:
        wish = _wish(document, rollout.candidate, f"{whoami()}: {override}" if override else "")
        new = begin.begun(document, equipment.client.observe(), wish, clock.now())
        _saved(equipment, document, new, revision)
    except BaseException:
        equipment.close()
        raise
    return _driven(equipment, asked=False)


def _wish(document: Document, version: Version, override: str) -> Wish:
    old, now = document.rollout, clock.now()
    assert old is not None
    return Wish(f"r-{now:%Y%m%d-%H%M%S}-{version.short[:6]}", old.guard, old.target, version, old.spec, override, old.announce)


def _saved(equipment: Rig, old: Document, new: Document, revision: str) -> None:
    """The new rollout is saved, after what the old one had still to tell the ledger."""
    closing = begin.closed(old, equipment.client.observe(), clock.now()).rollout
    if closing is not None:
        equipment.store.append(closing.outbox)
    equipment.store.save(claims.claimed(new, equipment.world.me, clock.now()), revision)


def _driven(equipment: Rig, *, asked: bool) -> int:
    terms = Terms(stay=dt.timedelta(0), asked=asked)
    result = Session(equipment, progress(equipment.world.policy, clock.now()), terms).run()
    typer.echo(result.outcome.reason)
    return result.outcome.exit_code
