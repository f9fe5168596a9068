"""`deployguard wait`: wait for the verdict on a rollout that somebody else drives."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.homes import Place, homed
from deployguard.cli.named import GuardFileOption, guard_of
from deployguard.cli.options import GuardOption, output_format
from deployguard.cli.reporting import FORMS, FormOption, ReportOption, check_reports, finish
from deployguard.errors import UserError
from deployguard.wiring.home import GuardStore, Home

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.model.rollout import OutcomeWord, Rollout

EVERY = 1.0
PATIENCE = 120.0
UNDRIVEN = dt.timedelta(seconds=60)
"""A rollout that nobody has claimed for so long is not waited for: a driver that begins again does so within seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Why the waiting ended without a verdict."""

    word: OutcomeWord
    exit_code: int
    reason: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("wait")(homed(wait))


def wait(
    place: Place,
    file: GuardFileOption = None,
    guard: GuardOption = None,
    new: Annotated[
        str | None,
        typer.Option(
            "--new", help="Wait for a rollout that begins from now on, at most so long until it does; an older verdict does not count."
        ),
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Wait no longer than this, for example 90m; the rollout goes on.")] = None,
    report: ReportOption = None,
    output: FormOption = "text",
) -> None:
    """Wait for the verdict on the rollout that somebody else drives, and end as `run` would have: 0 promoted, 10 rolled back, ...

    For the step after a deploy step: there the deploy is done when the objects are written, and the rollout has only begun.
    Nothing is changed, whatever happens to this command. 124: the time was over. 11: the candidate serves and nobody drives the rollout.

    Example: deployguard wait -f guard.yaml --new 2m --timeout 90m --report report.xml
    """
    from deployguard import clock
    from deployguard.model.units import parse_duration
    from deployguard.wiring.home import only_guard

    output_format(output, *FORMS)
    check_reports(report or [])
    try:
        limits = {what: parse_duration(text) for what, text in (("timeout", timeout), ("new", new)) if text is not None}
    except ValueError as error:
        raise UserError(str(error)) from error
    home, name = guard_of(place, file, guard)
    store = home.store(only_guard(home, name) if name is None or new is None else name)
    try:
        found = waited(home, store, clock.now(), limits.get("new"), limits.get("timeout"))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(finish(found, output, report or []))


def waited(home: Home, store: GuardStore, began: dt.datetime, new: dt.timedelta | None, timeout: dt.timedelta | None) -> dict[str, Any]:
    """The report of the rollout, when it needs nobody any more or is not waited for any longer.

    With `new` only a rollout counts that is under way, or that began after `began`.
    """
    from deployguard import clock

    last = ""
    while True:
        document, now = _loaded(store), clock.now()
        rollout = document.rollout if new is None or _counts(document.rollout, began) else None
        if rollout is None:
            if new is None:
                raise UserError(f"the guard `{store.guard}` has no rollout", hint="say with `--new 1m` that one is about to begin")
            if now - began >= new:
                return _none_began(home, document, now, new)
        else:
            last = _told(document, rollout, now, last)
            ended = _ended(document, rollout, now, began, timeout)
            if ended is not None:
                return _report(document, now, ended)
        clock.sleep(EVERY)


def _loaded(store: GuardStore) -> Document:
    """What is saved now. A store that does not answer is asked again for a while: an API server that is restarted fails no pipeline."""
    from deployguard import clock
    from deployguard.errors import ForeignState, WorldError

    begun = clock.monotonic()
    while True:
        try:
            return store.load()[0]
        except ForeignState:
            raise
        except WorldError as error:
            if clock.monotonic() - begun >= PATIENCE:
                raise
            typer.echo(f"{error.message}; asking again", err=True)
        clock.sleep(5 * EVERY)


def _counts(rollout: Rollout | None, began: dt.datetime) -> bool:
    return rollout is not None and (_going(rollout) or rollout.started >= began)


def _going(rollout: Rollout) -> bool:
    """Whether the verdict, or the way back, is still to come."""
    from deployguard.model.rollout import Verifying, Watching

    return not (rollout.terminal or isinstance(rollout.phase, (Watching, Verifying)))


def _told(document: Document, rollout: Rollout, now: dt.datetime, last: str) -> str:
    """Say on standard error where the rollout stands, when that is another phase than the last time; the phase."""
    from deployguard.model.rollout import phase_name
    from deployguard.report.words import phase_words

    present = f"{rollout.id} {phase_name(rollout.phase)} {len(rollout.trail)}"
    if present != last:
        typer.echo(f"{now:%H:%M:%S} {rollout.id}: {phase_words(rollout, now, name=document.name)}", err=True)
    return present


def _ended(document: Document, rollout: Rollout, now: dt.datetime, began: dt.datetime, timeout: dt.timedelta | None) -> Ended | None:
    """How the waiting ended; None when it has not."""
    from deployguard.report.words import outcome, phase_words

    if not _going(rollout):
        how = outcome(rollout)
        return Ended(how.word, how.exit_code, how.reason)
    if timeout is not None and now - began >= timeout:
        return Ended("failed", 124, f"the time to wait was over, and the rollout goes on: {phase_words(rollout, now, name=document.name)}")
    if now - max(began, _driven(document, rollout)) >= UNDRIVEN:
        code = 11 if rollout.exposed_since is not None else 1
        return Ended("failed", code, "nobody drives it any more; `deployguard run --resume` goes on with it")
    return None


def _driven(document: Document, rollout: Rollout) -> dt.datetime:
    """Until when somebody drives, or drove, the rollout."""
    return max(rollout.updated, document.claim.until) if document.claim is not None else rollout.updated


def _report(document: Document, now: dt.datetime, ended: Ended) -> dict[str, Any]:
    from deployguard.report.view import run_report

    return run_report(document, now=now, outcome=ended.word, exit_code=ended.exit_code, reason=ended.reason)


def _none_began(home: Home, document: Document, now: dt.datetime, new: dt.timedelta) -> dict[str, Any]:
    """No rollout began: well, when the target shows that its sources ask for the stable version; else nobody guards it."""
    from deployguard.model.units import format_duration
    from deployguard.report.view import bare_report, unchanged_report

    view = home.view(document)
    if view is not None and document.stable and view.source == document.stable[0].version:
        return unchanged_report(document, now=now, reason="no rollout began, and what is asked for is stable already")
    reason = f"no rollout began within {format_duration(new)}: nobody guards it, or nobody knows whether anything changed"
    return bare_report(document.guard, "failed", 1, reason, now)
