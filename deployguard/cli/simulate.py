"""`deployguard policy simulate`: recorded rollouts against a draft policy."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.homes import homed
from deployguard.cli.options import GuardOption, output_format, write_data
from deployguard.errors import UserError, WorldError
from deployguard.wiring.home import Home, only_guard

if TYPE_CHECKING:
    from deployguard.wiring.simulate import Case


@homed
def simulate(
    home: Home,
    draft: Annotated[
        str,
        typer.Argument(
            metavar="DRAFT", help="A file with a guard or a policy, or a shipped policy; `-` is standard input.", show_default=False
        ),
    ],
    rollouts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ROLLOUT...]",
            help="Rollouts by their ids, as `history` shows them; all recorded ones when not given.",
            show_default=False,
        ),
    ] = None,
    guard: GuardOption = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only rollouts that began since then: a time span (`30d`) or a date (`2026-01-31`).")
    ] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only the newest so many.")] = None,
    bad: Annotated[
        list[str] | None, typer.Option("--bad", metavar="ROLLOUT", help="This one was bad, although it was promoted; may be given again.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text, json or markdown.")] = "text",
) -> None:
    """Try a draft policy on recorded rollouts: which would have been stopped, held or passed, and when.

    The real engine decides again on what was recorded, with the thresholds, soaks and gates of the draft. The exposure is what it was.
    Bad rollouts that the draft would miss are one list, good ones that it would stop another.

    Example: deployguard policy simulate strict.yaml --last 30
    """
    from deployguard import clock
    from deployguard.wiring.simulate import chosen, read_draft, tried

    output_format(output, "text", "json", "markdown")
    begin = _instant(since, clock.now()) if since is not None else None
    store = home.store(only_guard(home, guard))
    policy = read_draft(draft, store.guard)
    wanted = chosen(store, rollouts or [], begin, last)
    marked = set(bad or [])
    if strangers := sorted(marked - set(wanted)):
        raise UserError(f"`--bad {strangers[0]}` is not among the rollouts that are tried", hint="`deployguard history` lists them")
    if not wanted:
        raise WorldError(
            f"could not simulate `{policy.name}`: no rollout of `{store.guard}` is recorded" + (f" since {since}" if since else ""),
            hint="`deployguard run` records each rollout, unless DEPLOYGUARD_READINGS is false",
        )
    cases = []
    for number, case in enumerate(tried(store, wanted, policy), 1):
        cases.append(case)
        _shown(f"{number} of {len(wanted)} rollouts")
    _shown("")
    data = _data(store.guard, policy.name, cases, marked)
    _print(data, output)
    if len(data["summary"]["skipped"]) == len(cases):
        raise typer.Exit(1)


def _data(guard: str, draft: str, cases: list[Case], bad: set[str]) -> dict[str, Any]:
    from deployguard.report.simulation import row, summary

    rows, unheard, notes = [], dict[str, list[str]](), dict[str, list[str]]()
    for case in cases:
        fit = case.fitted
        for name in fit.unheard if fit is not None else ():
            unheard.setdefault(name, []).append(case.rollout)
        for note in fit.notes if fit is not None else ():
            notes.setdefault(note, []).append(case.rollout)
        more = {"unheard": list(fit.unheard) if fit is not None else [], "notes": list(fit.notes) if fit is not None else []}
        rows.append(row(case.rollout, case.entries, case.simulated, bad=case.rollout in bad, skipped=case.skipped, **more))
    return {"guard": guard, "draft": draft, "rollouts": rows, "summary": summary(rows), "unheard": unheard, "notes": notes}


def _print(data: dict[str, Any], output: str) -> None:
    if output == "json":
        write_data(data, "json")
        return
    from deployguard.report.simulation_text import simulation_markdown, simulation_text

    typer.echo(simulation_text(data) if output == "text" else simulation_markdown(data), nl=False)


def _instant(text: str, now: dt.datetime) -> dt.datetime:
    """A time span before now, or a date, or an instant. Raises `UserError`."""
    from deployguard.model.units import parse_duration

    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"`--since {text}` is neither a time span nor a date", hint="write `30d`, or `2026-01-31`") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)


def _shown(text: str) -> None:
    """One line of progress, on a terminal only; empty: the line is free again."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
