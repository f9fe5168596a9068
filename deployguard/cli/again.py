"""New rollouts from what is saved: back to an older stable version, or the last candidate once more."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import typer

from deployguard import clock
from deployguard.cli import opening
from deployguard.cli.act import named
from deployguard.cli.progress import progress
from deployguard.cli.session import Session, Terms, whoami
from deployguard.engine import begin
from deployguard.errors import UserError
from deployguard.model.document import Document
from deployguard.model.rollout import Verifying, Watching
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.wiring.guard import Rig
from deployguard.wiring.home import Home
from deployguard.wiring.learning import learnt


def settled(home: Home, guard: str) -> bool:
    """Whether nothing is being rolled out: the last rollout has ended, or its candidate is stable."""
    rollout = home.store(guard).load()[0].rollout
    return rollout is not None and (rollout.terminal or isinstance(rollout.phase, (Watching, Verifying)))


def ended(home: Home, guard: str) -> bool:
    """Whether the last rollout was taken back or has ended."""
    rollout = home.store(guard).load()[0].rollout
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


def returned(home: Home, guard: str, to: str | None, generation: int, reason: str) -> int:
    """Go back from what is stable now to an older stable version; the exit code."""

    def back(document: Document, equipment: Rig, view: TargetView) -> Document:
        version = _chosen(document, to, generation)
        text = f"{whoami()} went back to {document.name(version)}" + (f": {reason}" if reason else "")
        wish = opening.like_the_last(document, version)
        return begin.returned(equipment.world.policy, document, view, wish, version, text, clock.now())

    return _driven(_opened(home, guard, back), asked=True)


def retried(home: Home, guard: str, override: str) -> int:
    """Roll the last candidate out again; the exit code."""

    def again(document: Document, equipment: Rig, view: TargetView) -> Document:
        why = f"{whoami()}: {override}" if override else ""
        wish = opening.like_the_last(document, opening.last_rollout(document).candidate, why)
        known = learnt(equipment.readings, document, equipment.world.policy)
        return begin.begun(document, view, replace(wish, learnt=known), clock.now())

    return _driven(_opened(home, guard, again), asked=False)


def _opened(home: Home, guard: str, build: Callable[[Document, Rig, TargetView], Document]) -> Rig:
    """The equipment that drives the new rollout which `build` makes of the saved document."""
    document, revision = home.store(guard).load()
    equipment = home.resumed(document)
    with opening.ended_on_failure(equipment):
        view = equipment.workload.observe()
        opening.save(equipment, document, build(document, equipment, view), view, revision)
    return equipment


def _driven(equipment: Rig, *, asked: bool) -> int:
    terms = Terms(stay=dt.timedelta(0), asked=asked)
    result = Session(equipment, progress(equipment.world.policy, clock.now()), terms).run()
    typer.echo(result.outcome.reason)
    return result.outcome.exit_code
