"""Commands that ask: they append a request to the inbox, which the next tick consumes. No command moves a target by itself.

When nobody drives, the command drives the rollout until its request is in place.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from deployguard.cli.homes import Place, homed
from deployguard.cli.named import GuardFileOption, guard_of
from deployguard.cli.options import GuardOption
from deployguard.wiring.home import GuardStore, Home, only_guard

if TYPE_CHECKING:
    from deployguard.model.document import Document, RequestVerb
    from deployguard.model.version import Version

ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; it stands in the ledger.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Only ask; do not wait until it is done.")]
HEARD_WITHIN = 30.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name in ("approve", "pause", "resume", "abort", "rollback", "retry", "stop"):
        app.command(name)(homed(globals()[name]))
    app.command("skip-soak")(homed(skip_soak))


def approve(home: Home, guard: GuardOption = None, reason: ReasonOption = "", no_wait: NoWaitOption = False) -> None:
    """Open the approval gate before the next stage.

    Example: deployguard approve --reason 'checked the dashboards'
    """
    _ask(home, guard, "approve", reason, no_wait)


def pause(home: Home, guard: GuardOption = None, reason: ReasonOption = "", no_wait: NoWaitOption = False) -> None:
    """Hold the rollout where it is; it is still watched, and taken back if it gets worse.

    Example: deployguard pause --reason 'incident elsewhere'
    """
    _ask(home, guard, "pause", reason, no_wait)


def resume(home: Home, guard: GuardOption = None, reason: ReasonOption = "", no_wait: NoWaitOption = False) -> None:
    """Go on after a pause; the stage is watched anew.

    Example: deployguard resume
    """
    _ask(home, guard, "resume", reason, no_wait)


def abort(
    place: Place, file: GuardFileOption = None, guard: GuardOption = None, reason: ReasonOption = "", no_wait: NoWaitOption = False
) -> None:
    """Take the candidate back. Nothing is quarantined.

    Example: deployguard abort --reason 'wrong build'
    """
    home, name = guard_of(place, file, guard)
    _ask(home, name, "abort", reason, no_wait)


def skip_soak(home: Home, guard: GuardOption = None, reason: ReasonOption = "", no_wait: NoWaitOption = False) -> None:
    """Ask for promotion now instead of at the end of the soak; every check must still pass.

    Example: deployguard skip-soak --reason 'hotfix'
    """
    _ask(home, guard, "skip-soak", reason, no_wait)


def retry(
    home: Home,
    guard: GuardOption = None,
    reason: ReasonOption = "",
    override: Annotated[str, typer.Option(help="The reason for letting a quarantined candidate through.")] = "",
) -> None:
    """Roll the last candidate out again, from stage 1; in a held rollout, watch its stage anew.

    Example: deployguard retry --override 'the database was the cause'
    """
    from deployguard.cli import again

    name = only_guard(home, guard)
    if again.ended(home, name):
        raise typer.Exit(again.retried(home, name, override))
    _ask(home, guard, "retry", reason, no_wait=False)


def stop(
    home: Home,
    guard: GuardOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Freeze every promotion of every guard that is at home here.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="With --all: lift the freeze.")] = False,
    reason: ReasonOption = "",
    no_wait: NoWaitOption = False,
) -> None:
    """Stop a rollout where it is, or with --all freeze every promotion until `stop --all --clear`.

    Example: deployguard stop --all --reason INC-912
    """
    from deployguard.cli.session import whoami
    from deployguard.errors import UserError

    if not everything:
        if clear:
            raise UserError("`--clear` goes with `--all`", hint="a single rollout goes on with `deployguard resume`")
        _ask(home, guard, "stop", reason, no_wait)
        return
    if clear:
        home.clear()
        typer.echo("promotions are free again", err=True)
        return
    if not reason:
        raise UserError("a stop of everything needs a reason", hint="`deployguard stop --all --reason INC-912`")
    home.stop(whoami(), reason)
    typer.echo("every promotion is frozen; lift it with `deployguard stop --all --clear`", err=True)


def rollback(
    home: Home,
    guard: GuardOption = None,
    to: Annotated[str | None, typer.Option("--to", help="The version to go back to: a name or the first digits of a digest.")] = None,
    generation: Annotated[
        int, typer.Option("--generation", min=1, help="How many stable versions back, when nothing is being rolled out.")
    ] = 1,
    reason: ReasonOption = "",
    no_wait: NoWaitOption = False,
) -> None:
    """Go back to the last stable version: of a rollout that goes on, or from what is stable now to the one before.

    Example: deployguard rollback --reason 'customers complain'
    """
    from deployguard.cli import again

    name = only_guard(home, guard)
    if again.settled(home, name):
        raise typer.Exit(again.returned(home, name, to, generation, reason))
    _ask(home, guard, "rollback", reason, no_wait)


def _ask(home: Home, guard: str | None, verb: RequestVerb, reason: str, no_wait: bool) -> None:
    """Put the request, and see to it that somebody takes it in."""
    from deployguard.cli.session import request
    from deployguard.errors import UserError

    store = home.store(only_guard(home, guard))
    rollout = store.load()[0].rollout
    if rollout is None or rollout.terminal:
        raise UserError(f"the guard `{store.guard}` has no rollout that goes on", hint="`deployguard status` shows what it did last")
    asked = request(verb, reason, rollout.id)
    store.inbox().put(asked)
    if no_wait:
        typer.echo(f"asked `{store.guard}` to {verb}", err=True)
        return
    _see_through(home, store, asked.id, verb)


def _see_through(home: Home, store: GuardStore, asked: str, verb: str) -> None:
    """Wait until the driver has taken the request in; without a driver, drive until it is in place."""
    from deployguard import clock
    from deployguard.engine.claims import held_by_other
    from deployguard.errors import WorldError
    from deployguard.wiring.guard import gone

    deadline = clock.monotonic() + HEARD_WITHIN
    while True:
        document = store.load()[0]
        if _in_place(document, asked, verb):
            typer.echo(f"`{store.guard}`: {verb} is in place", err=True)
            return
        if held_by_other(document, "", clock.now(), gone) is None:
            _drive(home, document, asked, verb)
            return
        if asked not in document.consumed and clock.monotonic() >= deadline:
            claim = document.claim
            raise WorldError(
                f"could not {verb} `{store.guard}`: {claim.holder if claim else 'its driver'} has not taken the request in",
                hint="it lies in the inbox, and whoever drives next consumes it; see `deployguard status`",
            )
        clock.sleep(0.1)


def _in_place(document: Document, asked: str, verb: str) -> bool:
    from deployguard.model.rollout import RollingBack

    if asked not in document.consumed:
        return False
    back = verb in ("abort", "rollback")
    return not (back and document.rollout is not None and isinstance(document.rollout.phase, RollingBack))


def _drive(home: Home, document: Document, asked: str, verb: str) -> None:
    from deployguard import clock
    from deployguard.cli.progress import progress
    from deployguard.cli.session import GOING, Session, Terms

    equipment = home.resumed(document)
    terms = Terms(stay=dt.timedelta(0), asked=True, enough=lambda saved: _in_place(saved, asked, verb), flags=tuple(home.flags()))
    result = Session(equipment, progress(equipment.world.policy, clock.now()), terms).run()
    typer.echo(result.outcome.reason, err=True)
    if result.document.rollout is not None and isinstance(result.document.rollout.phase, GOING):
        words = " ".join(["deployguard run --resume --guard", document.guard, *home.flags()])
        typer.echo(f"nobody drives `{document.guard}` now; go on with `{words}`", err=True)
    if verb in ("abort", "rollback") and result.outcome.exit_code:
        raise typer.Exit(result.outcome.exit_code)


def named(document: Document, to: str) -> list[Version]:
    """Stable versions that `to` names: by a name of a component, or by the first digits of a digest."""
    found = []
    for known in document.stable:
        words = {document.name(known.version), document.names.get(known.version.release, ""), document.names.get(known.version.config, "")}
        digests = (known.version.digest, known.version.release, known.version.config)
        if to in words or (len(to) >= 6 and any(d.removeprefix("sha256:").startswith(to.removeprefix("sha256:")) for d in digests)):
            found.append(known.version)
    return found
