"""Commands that only look: `status`, `watch`, `why`, `history`. They read saved state and open no connection to a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from deployguard.cli.cluster_options import AllNamespacesOption, SelectorOption
from deployguard.cli.homes import Place, homed
from deployguard.cli.options import GuardOption, OutputOption, output_format, write_data
from deployguard.wiring.home import Home, only_guard

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.model.target import TargetView

T = TypeVar("T")
LOOKS = 8
"""Guards that are looked at at once."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(homed(status))
    app.command("watch")(homed(watch))
    app.command("why")(homed(why))
    app.command("history")(homed(history))


def status(
    place: Place,
    guard: GuardOption = None,
    everywhere: AllNamespacesOption = False,
    selector: SelectorOption = None,
    output: OutputOption = "text",
) -> None:
    """What serves, what is wanted, and what the guard is doing.

    Example: deployguard status -o json

    Example: deployguard status -A -l tier=front
    """
    import msgspec

    from deployguard import clock
    from deployguard.report.status import status_rows, status_text

    output_format(output, "text", "json", "yaml")
    home = place.anywhere(everywhere=everywhere, selector=selector)
    names = [only_guard(home, guard)] if guard else home.guards()

    def seen(name: str) -> tuple[Document, TargetView | None]:
        document = home.store(name).load()[0]
        return msgspec.structs.replace(document, guard=name), home.view(document)

    rows = status_rows(_side_by_side(seen, names), clock.now(), stopped=home.stopped())
    if output == "text":
        typer.echo(status_text(rows, clock.now()).rstrip("\n") if rows else f"no guard has run in {home.where} yet")
        return
    write_data(rows, output)


def _side_by_side(look: Callable[[str], T], names: list[str]) -> list[T]:
    """What each name gives, in their order; several are looked at at once."""
    if len(names) <= 1:
        return [look(name) for name in names]
    import concurrent.futures as cf

    with cf.ThreadPoolExecutor(LOOKS) as pool:
        return list(pool.map(look, names))


def watch(
    home: Home,
    guard: GuardOption = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Leave when the rollout needs nobody any more.")] = False,
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

    store = home.store(only_guard(home, guard))
    rollout = store.load()[0].rollout
    if rollout is None:
        raise UserError(f"the guard `{store.guard}` has no rollout", hint="begin one with `deployguard run -f guard.yaml`")
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
    home: Home,
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

    output_format(output, "text", "json", "yaml")
    store = home.store(only_guard(home, guard))
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
    found = list(store.entries(present.id))
    if output == "text":
        typer.echo(why_text(document, now, found).rstrip("\n"))
        return
    how = outcome(present)
    write_data(run_report(document, now=now, outcome=how.word, exit_code=how.exit_code, reason=how.reason, entries=found), output)


def history(
    home: Home,
    guard: GuardOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")] = 20,
    output: OutputOption = "text",
) -> None:
    """Past rollouts, newest first.

    Example: deployguard history --limit 5
    """
    from deployguard import clock
    from deployguard.report.history import history_rows, history_text
    from deployguard.report.versions import names_of

    output_format(output, "text", "json", "yaml")
    store = home.store(only_guard(home, guard))
    names = names_of(store.load()[0])
    found = store.history()[:limit]
    if output == "text":
        typer.echo(history_text(found, clock.now(), names).rstrip("\n"))
        return
    write_data(history_rows(found, clock.now(), names), output)
