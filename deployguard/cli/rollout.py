"""From files and flags to a saved rollout, and on to its end: what `run` does, step by step."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from deployguard import clock
from deployguard.cli import opening
from deployguard.cli.progress import progress
from deployguard.cli.run import report_of
from deployguard.cli.session import Session, Terms, whoami
from deployguard.engine import begin, claims
from deployguard.engine.begin import Wish
from deployguard.errors import DeployguardError, RefusedError, StaleView, WorldError
from deployguard.files.guard_file import Resolved
from deployguard.files.write import plain
from deployguard.model.document import Document
from deployguard.model.evidence import Evidence
from deployguard.model.rollout import RolledBack, Verifying
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.report.view import bare_report, unchanged_report
from deployguard.wiring.guard import Rig, gone, rig, workload_of
from deployguard.wiring.home import GuardStore, Home
from deployguard.wiring.learning import learnt
from deployguard.wiring.workload import Change, named

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is driven, whatever it rolls out."""

    home: Home
    stay: dt.timedelta
    timeout: dt.timedelta | None = None
    watch: bool = False
    wait: bool = False
    detach: bool = False
    hold_on_cancel: bool = False
    require_reaper: bool = False
    quiet: bool = False


def started(plan: Plan, resolved: Resolved, change: Change) -> dict[str, Any]:
    """The report of a new rollout, driven to its end. Nothing is changed when a file, a flag or the workload is not right."""
    equipment = _rig(plan, resolved)
    try:
        with opening.ended_on_failure(equipment):
            document = _begin(plan, equipment, resolved, change)
    except RefusedError as error:
        typer.echo(f"error: {error.message}\n\nhint: {error.hint}", err=True)
        return bare_report(resolved.guard.metadata.name, "refused", error.exit_code, f"{error.message}; {error.hint}", clock.now())
    if isinstance(document, dict):
        equipment.close()
        return document
    return _driven(plan, equipment, document)


def _rig(plan: Plan, resolved: Resolved) -> Rig:
    from deployguard.settings import settings

    workload = workload_of(plan.home, resolved)
    if plan.require_reaper:
        workload.must_have_reaper()
    name = resolved.guard.metadata.name
    return rig(plan.home, name, workload, resolved.policy, resolved.guard.spec.announce, keep_readings=settings().readings)


def _begin(plan: Plan, equipment: Rig, resolved: Resolved, change: Change) -> Document | dict[str, Any]:
    """The saved document with a new rollout in Waiting; a report when there is nothing to do."""
    document, revision, view = _alone(plan, equipment)
    workload, known = equipment.workload, begin.current_stable(document, view)
    stable = workload.begun(view, known.version if known else None)
    before = msgspec.structs.replace(document, names={**workload.names(view), **document.names})
    made = workload.candidate(change, stable, before)
    now = clock.now()
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    if made.version == stable and _runs_everywhere(view, stable):
        return unchanged_report(document, now=now)
    past = learnt(equipment.readings, document, resolved.policy)
    if resolved.policy.strict:
        _must_see(equipment, resolved, past, view)
    entitled = msgspec.structs.replace(before, names=named(before, made))
    wish = Wish(
        id=opening.rollout_id(made.version, now),
        guard=document.guard,
        target=workload.name,
        candidate=made.version,
        spec=plain(resolved.policy),
        override=f"{whoami()}: {change.override}" if change.override else "",
        announce=tuple(plain(sink) for sink in resolved.guard.spec.announce),
        learnt=past,
        place=workload.place(),
    )
    while True:
        try:
            return opening.save(equipment, entitled, begin.begun(entitled, view, wish, now), view, revision)
        except StaleView:
            document, revision, view = _alone(plan, equipment)
            entitled = msgspec.structs.replace(document, names=entitled.names)


def _must_see(equipment: Rig, resolved: Resolved, past: dict[str, Evidence], view: TargetView) -> None:
    """Raise `RefusedError` when the policy is strict and a stage cannot see, at the traffic of now, what its checks claim."""
    from deployguard.report.plan import foresight
    from deployguard.wiring.expect import expected

    known, _ = expected(equipment.workload, resolved.policy, past)
    seen = foresight(resolved.policy, view.wanted, known, surge=view.surge)
    if seen["sees_enough"] is True and seen["passes"] is not False:
        return
    if not known.rps:
        raise RefusedError(
            "the policy is strict, and no requests were counted on the workload: nobody knows what its stages could see",
            hint="begin when there is traffic, or take `strict` away",
        )
    blind = [n for stage in seen["stages"] if stage["held"] or any(c["sees"] is False for c in stage["checks"]) for n in stage["numbers"]]
    where = f"stage {', '.join(map(str, blind))} cannot" if blind else "a check can nowhere"
    raise RefusedError(
        f"the policy is strict, and {where} see what the checks claim: {known.rps:.3g} requests/s are too few",
        hint="`deployguard plan` says what each stage sees and needs: a longer soak, more exposure, more traffic, or a larger claim",
    )


def _runs_everywhere(view: TargetView, version: Version) -> bool:
    return all(i.assigned == version for i in view.instances)


def _alone(plan: Plan, equipment: Rig) -> tuple[Document, str, TargetView]:
    """The saved document once nobody else drives, and the target as it is then; what a killed driver left behind is ended first.

    A plan that is to wait also waits until no other guard has a candidate on the target.
    """
    told = ended = False
    while True:
        document, revision = _free(plan, equipment.store)
        view = equipment.workload.observe()
        if not ended and begin.left_behind(document, view):
            ended = True
            _end(plan, document)
            continue
        other = begin.held_by(document, view)
        if not other or not plan.wait:
            return document, revision, view
        if not told:
            sys.stderr.write(f"waiting: {other} has a candidate on {equipment.workload.word}\n")
            told = True
        clock.sleep(WAIT)


def _end(plan: Plan, document: Document) -> None:
    """The way back of a rollout whose driver is gone is complete, or could not be completed. Raises `KeyboardInterrupt` for Ctrl-C."""
    typer.echo(f"note: the driver of {opening.last_rollout(document).id} is gone; its way back is completed first", err=True)
    equipment = plan.home.resumed(document)
    shown = progress(equipment.world.policy, clock.now(), quiet=plan.quiet)
    result = Session(equipment, shown, Terms(stay=dt.timedelta(0))).run()
    typer.echo(f"note: {result.outcome.reason}", err=True)
    if result.interrupted:
        raise KeyboardInterrupt


def _free(plan: Plan, store: GuardStore) -> tuple[Document, str]:
    """The saved document once nobody else drives. Raises `WorldError` that names the holder, unless the plan is to wait."""
    told = False
    while True:
        document, revision = store.load()
        other = claims.held_by_other(document, "", clock.now(), gone)
        if other is None:
            return document, revision
        if not plan.wait:
            raise WorldError(
                f"could not drive `{document.guard}`: {other.holder} drives it until {other.until:%H:%M:%S} UTC",
                hint="wait for it with `--wait`, or watch it with `deployguard watch`",
            )
        if not told:
            sys.stderr.write(f"waiting: {other.holder} drives `{document.guard}`\n")
            told = True
        clock.sleep(WAIT)


def resumed(plan: Plan, guard: str) -> dict[str, Any]:
    """The report of the saved rollout, driven to its end.

    One that went back because its lease ran out begins anew at stage 1: this is the explicit wish that it takes.
    """
    document, revision = _free(plan, plan.home.store(guard))
    equipment = plan.home.resumed(document)
    with opening.ended_on_failure(equipment):
        if _left_after_lease(document):
            document = _again(equipment, document, revision)
    return _driven(plan, equipment, document)


def _left_after_lease(document: Document) -> bool:
    """Whether the rollout went back because its lease ran out, and its last driver left it there: nobody watches for a relapse."""
    phase = document.rollout.phase if document.rollout is not None else None
    if isinstance(phase, Verifying):
        # A claim that is still there belongs to a driver that was killed: this one ends what that one had begun.
        return phase.why == "lease" and document.claim is None
    return isinstance(phase, RolledBack) and phase.why == "lease"


def _again(equipment: Rig, document: Document, revision: str) -> Document:
    """A new rollout of the same candidate, saved in Waiting."""
    view = equipment.workload.observe()
    wish = opening.like_the_last(document, opening.last_rollout(document).candidate)
    return opening.save(equipment, document, begin.begun(document, view, wish, clock.now()), view, revision)


def _driven(plan: Plan, equipment: Rig, document: Document) -> dict[str, Any]:
    """Drive to the end in this process, or hand over to a background one."""
    if plan.detach:
        equipment.close()
        _release(equipment)
        spawn_driver(plan.home, document.guard)
        now = clock.now()
        report = bare_report(document.guard, "failed", 0, "a background process drives it", now)
        return {**report, "outcome": "detached", "rollout": document.rollout.id if document.rollout else None}
    terms = Terms(
        stay=plan.stay,
        timeout=plan.timeout,
        watch=plan.watch,
        hand_over=_hand_over(plan, document.guard) if plan.hold_on_cancel else None,
        flags=tuple(plan.home.flags()),
    )
    shown = progress(equipment.world.policy, clock.now(), quiet=plan.quiet)
    result = Session(equipment, shown, terms).run()
    return report_of(result, clock.now())


def _release(equipment: Rig) -> None:
    saved, revision = equipment.store.load()
    equipment.store.save(claims.released(saved, equipment.world.me), revision)


def _hand_over(plan: Plan, guard: str) -> Callable[[], None]:
    from deployguard.cli.session import request

    def hand_over() -> None:
        try:
            plan.home.store(guard).inbox().put(request("pause", "the run was cancelled"))
        except DeployguardError as error:
            typer.echo(f"trouble: {error.message}; the background process goes on with the rollout instead of holding it", err=True)
        # The background driver waits until this process has given its claim back.
        spawn_driver(plan.home, guard)

    return hand_over


def spawn_driver(home: Home, guard: str) -> int:
    """A process of its own session drives the guard's saved rollout; its number."""
    directory = home.store(guard).directory
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "driver.log").open("ab") as out:
        command = [sys.executable, "-P", "-m", "deployguard", "run", "--resume", "--wait", "--guard", guard, *home.flags()]
        driver = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    return driver.pid
