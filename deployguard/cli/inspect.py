"""Commands that only look: `status`, `watch`, `why`, `history`. They read saved state and open no connection to a signal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployguard.cli.options import GuardOption, OutputOption, StateOption, only_guard, output_format, state_directory, write_data

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.model.target import TargetView


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("watch")(watch)
    app.command("why")(why)
    app.command("history")(history)


def _view(state: Path, document: Document) -> TargetView | None:
    """What runs now; None when the fleet does not answer, which `status` says."""
    from deployguard.errors import DeployguardError
    from deployguard.local.client import FleetClient

    if document.rollout is None:
        return None
    try:
        return FleetClient(state / "fleets" / document.rollout.target, timeout=1.0).observe()
    except DeployguardError:
        return None


def status(guard: GuardOption = None, output: OutputOption = "text", state: StateOption = None) -> None:
    """What serves, what is wanted, and what the guard is doing.

    Example: deployguard status -o json
    """
    from deployguard import clock
    from deployguard.report.status import status_rows, status_text
    from deployguard.stores import stop
    from deployguard.stores.file import FileStore, guards

    output_format(output, "text", "json", "yaml")
    root = state_directory(state)
    names = [only_guard(root, guard)] if guard else guards(root)
    documents = [FileStore(root, name).load()[0] for name in names]
    rows = status_rows([(document, _view(root, document)) for document in documents], clock.now(), stopped=stop.stopped(root))
    if output == "text":
        typer.echo(status_text(rows, clock.now()).rstrip("\n") if rows else f"no guard has run in {root} yet")
        return
    write_data(rows, output)


def watch(
    guard: GuardOption = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Leave when the rollout needs nobody any more.")] = False,
    state: StateOption = None,
) -> None:
    """Follow a rollout that somebody else drives, until Ctrl-C.

    Example: deployguard watch --guard shop
    """
    import datetime as dt

    from deployguard import clock
    from deployguard.cli.progress import progress
    from deployguard.driver.tick import Ticked
    from deployguard.errors import UserError
    from deployguard.model.policy import Policy
    from deployguard.model.rollout import Verifying, Watching
    from deployguard.stores.file import FileStore

    root = state_directory(state)
    store = FileStore(root, only_guard(root, guard))
    rollout = store.load()[0].rollout
    if rollout is None:
        raise UserError(f"the guard `{store.guard}` has no rollout", hint="begin one with `deployguard run -f guard.yaml --release DIR`")
    shown = progress(Policy.model_validate(rollout.spec), clock.now() - dt.timedelta(days=1))
    try:
        while True:
            document = store.load()[0]
            shown.tick(Ticked(document, clock.now()))
            rollout = document.rollout
            if until_end and rollout is not None and (rollout.terminal or isinstance(rollout.phase, (Watching, Verifying))):
                return
            clock.sleep(0.5)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        shown.close()


def why(
    rollout: Annotated[
        str | None,
        typer.Argument(
            metavar="[ROLLOUT[/N]]",
            help="An older rollout by its id, as `history` shows it, or one entry of its ledger; the present one when not given.",
            show_default=False,
        ),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Decide it again from its recording, and compare with the ledger byte for byte.")
    ] = False,
    guard: GuardOption = None,
    output: OutputOption = "text",
    state: StateOption = None,
) -> None:
    """The evidence of a decision: counts of both arms, ratio and interval, limit, exposure, action.

    With --replay the exit code is 1 when a decision does not come out as it was recorded.

    Example: deployguard why

    Example: deployguard why r-20260101-120000-1b27eb/3 --replay
    """
    from deployguard import clock
    from deployguard.cli import replaying
    from deployguard.errors import UserError
    from deployguard.report.text import why_report, why_text
    from deployguard.report.view import run_report
    from deployguard.report.words import outcome
    from deployguard.stores.file import FileStore
    from deployguard.stores.ledger import entries

    output_format(output, "text", "json", "yaml")
    root = state_directory(state)
    store = FileStore(root, only_guard(root, guard))
    document, now = store.load()[0], clock.now()
    present = document.rollout
    named = rollout or (present.id if present is not None else None)
    if named is None:
        raise UserError(f"the guard `{store.guard}` has no rollout yet", hint="`deployguard history` lists them")
    wanted = replaying.asked(named)
    if replay:
        replaying.replay(store, document, wanted, now, output)
        return
    if present is None or wanted.rollout != present.id or wanted.n:
        report = replaying.told(store, document, wanted, now)
        if output == "text":
            typer.echo(why_report(report).rstrip("\n"))
        else:
            write_data(report, output)
        return
    found = list(entries(store.ledger.path, present.id))
    if output == "text":
        typer.echo(why_text(document, now, found).rstrip("\n"))
        return
    how = outcome(present)
    write_data(run_report(document, now=now, outcome=how.word, exit_code=how.exit_code, reason=how.reason, entries=found), output)


def history(
    guard: GuardOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    output: OutputOption = "text",
    state: StateOption = None,
) -> None:
    """Past rollouts, newest first.

    Example: deployguard history -n 5
    """
    from deployguard import clock
    from deployguard.report.history import history_rows, history_text
    from deployguard.report.versions import names_of
    from deployguard.stores.file import FileStore
    from deployguard.stores.ledger import history as read

    output_format(output, "text", "json", "yaml")
    root = state_directory(state)
    store = FileStore(root, only_guard(root, guard))
    names = names_of(store.load()[0])
    found = read(store.ledger.path)[:limit]
    if output == "text":
        typer.echo(history_text(found, clock.now(), names).rstrip("\n"))
        return
    write_data(history_rows(found, clock.now(), names), output)
