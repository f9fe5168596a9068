"""`deployguard demo`: an outage with and without the guard, on this machine, with real processes and real requests."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployguard.cli.options import output_format
from deployguard.errors import DeployguardError

if TYPE_CHECKING:
    from deployguard.cli.demos.ending import Played
    from deployguard.cli.demos.incidents import Incident
    from deployguard.cli.demos.stage import Stage

HELP = """Play an outage on this machine, without the guard and with it. Takes less than two minutes.

A small shop runs as twenty processes with about 100 requests a second from users in a process of their own. A bad change goes everywhere
at once and is put back by hand; then the same change goes through `deployguard run`; then a good one does. Everything uses free ports of
this machine and a temporary directory, and is gone at the end but for the results.

The exit code is 0 when the guard kept the bad change to one instance, took it back, and promoted the good one; else 1.

Examples:

  deployguard demo

  deployguard demo twitter-2022 --results /tmp/twitter-2022

  deployguard demo -o json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help=HELP)(demo)


def demo(
    incident: Annotated[str | None, typer.Argument(help="Which outage; `--list` describes them.", show_default="twitter-2019")] = None,
    results: Annotated[Path, typer.Option(help="Where the reports, the ledger and the users' counts go.")] = Path("demo-results"),
    listing: Annotated[bool, typer.Option("--list", help="List the incidents that can be played, and leave.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
) -> None:
    """Play an outage without and with the guard."""
    from deployguard.cli.demos.incidents import DEFAULT, INCIDENTS, incident_of

    output_format(output, "text", "json")
    if listing:
        _list(list(INCIDENTS.values()), output)
        return
    chosen = incident_of(incident or DEFAULT)
    from deployguard.cli.demos.ending import check_place
    from deployguard.cli.demos.show import Shown
    from deployguard.cli.demos.stage import Stage

    check_place(results)
    stage = Stage(Shown(), chosen)
    with stage.interrupts():
        raise typer.Exit(_to_the_end(stage, results, output))


def _list(incidents: list[Incident], output: str) -> None:
    from deployguard.cli.options import write_data

    if output == "json":
        write_data([{"incident": known.name, "about": known.sentence} for known in incidents], output)
        return
    for known in incidents:
        typer.echo(f"{known.name}  {known.sentence}")


def _to_the_end(stage: Stage, results: Path, output: str) -> int:
    """The exit code of a demo that left nothing behind but its results, however it ended."""
    from deployguard.cli.demos import ending
    from deployguard.cli.demos.stage import Interrupted
    from deployguard.report.jsons import dump

    played, gone = None, False
    try:
        played = _play(stage)
        ending.write_document(ending.document(played, results), stage.results)
        ending.keep(stage.results, results)
    except Interrupted:
        stage.shown.say("interrupted: ending the users, the guard and the fleet")
    except BaseException:
        with contextlib.suppress(OSError, DeployguardError):
            stage.keep_logs()
            ending.write_document({"incident": stage.incident.name, "error": "the demo did not come to its end"}, stage.results)
            ending.keep(stage.results, results)
            stage.shown.say(f"what there is, logs included, is in {results}")
        raise
    finally:
        gone = stage.close()
        if gone and played is None:
            stage.shown.say("everything is brought down; nothing is left running")
    if played is None:
        return 130
    played = replace(played, seconds=stage.shown.seconds)
    typer.echo((dump(ending.document(played, results)) if output == "json" else "\n" + ending.text(played, results)).rstrip("\n"))
    return 0 if played.well and gone else 1


def _play(stage: Stage) -> Played:
    """All three acts were played."""
    import shutil

    from deployguard.cli.demos import acts
    from deployguard.cli.demos.ending import Played

    shown, incident = stage.shown, stage.incident
    shown.title(f"{incident.name}: {incident.sentence}")
    stage.lay_out()
    shown.say("   starting the shop: 20 instances behind a balancer")
    view = stage.up()
    shown.say(f"   {view.wanted} instances serve at {view.listeners['all']}; about 100 requests a second come from a process of their own")
    what = "configuration" if incident.part == "config" else "release"
    shown.title(f"1 of 3: without a guard. The bad {what} `{incident.bad}` goes to all {view.wanted} instances at once")
    bad = acts.unguarded(stage)
    shown.say(f"   {bad.felt.failed:,} of {bad.felt.requests:,} requests of users failed")
    shown.title(f"2 of 3: with the guard. The very same {what} goes through `deployguard run`")
    kept = acts.guarded(stage)
    shown.say(f"   {kept.report['outcome'].replace('_', ' ')}; {kept.felt.failed:,} of {kept.felt.requests:,} requests of users failed")
    shown.title(f"3 of 3: with the guard. A good {what}, `{incident.good}`")
    good = acts.good(stage)
    shutil.copyfile(stage.store.ledger.path, stage.results / "ledger.jsonl")
    shown.say("   bringing the shop down")
    return Played(incident, bad, kept, good, shown.seconds)
