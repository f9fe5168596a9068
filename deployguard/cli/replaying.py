"""`deployguard why ROLLOUT[/N]`: one past decision of a rollout, and decisions made again from their recording."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from deployguard.cli.options import write_data
from deployguard.errors import UserError, WorldError
from deployguard.report.past import report_of_entries
from deployguard.report.text import why_report
from deployguard.report.versions import names_of
from deployguard.report.view import run_report
from deployguard.report.words import outcome

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.model.rollout import Entry
    from deployguard.wiring.home import GuardStore

EVERY = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """A rollout, and the number of one of its entries: 0 when its end is meant."""

    rollout: str
    n: int = 0


def asked(text: str) -> Asked:
    """`ROLLOUT` or `ROLLOUT/N`. Raises `UserError` when N is not the number of an entry."""
    rollout, slash, n = text.partition("/")
    if not slash:
        return Asked(rollout)
    if not n.isascii() or not n.isdigit() or int(n) == 0:
        raise UserError(f"`{n}` in `{text}` is not the number of an entry", hint="write ROLLOUT/N, as in `why r-20260101-120000-1b27eb/3`")
    return Asked(rollout, int(n))


def found_entries(store: GuardStore, document: Document, wanted: Asked) -> list[Entry]:
    """The entries of the rollout, up to the one that was asked for. Raises `UserError` when there are none, or no such one."""
    found = store.told(wanted.rollout, document.rollout)
    if not found:
        raise UserError(f"the ledger of `{store.guard}` has no rollout `{wanted.rollout}`", hint="`deployguard history` lists them")
    if wanted.n > found[-1].n:
        raise UserError(
            f"`{wanted.rollout}` has {found[-1].n} entries, so there is none {wanted.n}", hint="`deployguard ledger export` shows them"
        )
    return [entry for entry in found if not wanted.n or entry.n <= wanted.n]


def told(store: GuardStore, document: Document, wanted: Asked, now: dt.datetime) -> dict[str, Any]:
    """The report of an older rollout, or of any up to one of its entries, from the ledger alone."""
    found = found_entries(store, document, wanted)
    report = report_of_entries(found, found[-1].at if wanted.n else now, names_of(document))
    assert report is not None
    return report


def replay(store: GuardStore, document: Document, wanted: Asked, now: dt.datetime, output: str) -> None:
    """The decisions of a rollout are made again and printed, with how they compare with the ledger; exit 1 when they differ."""
    from deployguard.report.replay import replay_json, replay_lines
    from deployguard.wiring.replay import replay_of

    found = found_entries(store, document, wanted)
    shown = _Count()
    again = replay_of(store, wanted.rollout, shown.ticks)
    shown.close()
    entry = next((e for e in found if e.n == wanted.n), None)
    if entry is not None and entry.n not in again.documents and again.difference is None:
        raise WorldError(
            f"could not replay {entry.id}: no recorded tick decided it",
            hint=f"`deployguard why {entry.id}` shows it from the ledger; a command opened the rollout, or a crash cut the tick off",
        )
    at = entry.at if entry is not None else now
    left = again.documents.get(wanted.n) if wanted.n else again.document
    present = document.rollout is not None and document.rollout.id == wanted.rollout
    if left is not None and left.rollout is not None and (wanted.n or present):
        how = outcome(left.rollout)
        report = run_report(left, now=at, outcome=how.word, exit_code=how.exit_code, reason=how.reason, entries=found)
    else:
        known = {e.n: e for e in found} | {e.n: e for e in again.entries if not wanted.n or e.n <= wanted.n}
        report = report_of_entries([e for _, e in sorted(known.items())], at, names_of(document)) or {}
    if output == "text":
        typer.echo(why_report(report) + "\n" + "\n".join(replay_lines(again, now)))
    else:
        write_data({**report, "replay": replay_json(again)}, output)
    if not again.identical:
        raise typer.Exit(1)


class _Count:
    """How far a long replay is, on a terminal only."""

    def __init__(self) -> None:
        self._shown = False

    def ticks(self, done: int) -> None:
        """`done` ticks have been replayed."""
        if done % EVERY == 0 and sys.stderr.isatty():
            self._shown = True
            sys.stderr.write(f"\rreplayed {done} ticks")
            sys.stderr.flush()

    def close(self) -> None:
        """The line is free again."""
        if self._shown:
            sys.stderr.write("\r\033[K")
