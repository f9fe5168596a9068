"""The live view of one rollout on a terminal. The only module here that imports rich, and the command line imports it late."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deployguard.engine.stages import PlannedStage
from deployguard.model.document import Document
from deployguard.model.evidence import Finding
from deployguard.model.rollout import Advancing, Analyzing, Holding, RollingBack, Rollout
from deployguard.report.instants import running
from deployguard.report.lines import trail_line
from deployguard.report.numbers import count, percent
from deployguard.report.table import plain
from deployguard.report.words import phase_words, verdict_words

MOST_TRAIL = 5
_STYLES = {"fail": "bold red", "blind": "yellow", "pass": "green", "undecided": ""}


def render(document: Document, stages: Sequence[PlannedStage], now: dt.datetime) -> RenderableType:
    """The document's rollout as it stands: header, stages, exposure, checks, the end of the trail."""
    rollout = document.rollout
    if rollout is None:
        return Text(f"{document.guard}: nothing was rolled out yet")
    head = Text.assemble((document.guard, "bold"), f"  {document.name(rollout.stable)} -> {document.name(rollout.candidate)}")
    state = Text(plain(phase_words(rollout, now, name=document.name)), style=_state_style(rollout))
    parts: list[RenderableType] = [head, state]
    if stages and rollout.kind == "candidate":
        parts.append(_bars(rollout, stages, now))
    parts.append(Text(_exposure(rollout)))
    findings = rollout.latched.findings if rollout.latched is not None else rollout.findings
    if findings:
        parts.append(_checks(findings))
    parts += [
        Text(trail_line(step, rollout.started), style="dim", overflow="ellipsis", no_wrap=True) for step in rollout.trail[-MOST_TRAIL:]
    ]
    return Group(*parts)


def _state_style(rollout: Rollout) -> str:
    if isinstance(rollout.phase, RollingBack) or rollout.latched is not None:
        return "bold red"
    return "yellow" if isinstance(rollout.phase, Holding) else "bold"


def _bars(rollout: Rollout, stages: Sequence[PlannedStage], now: dt.datetime) -> Table:
    """One line a stage: its instances, how much of its soak is over, and the time."""
    grid = Table.grid(padding=(0, 1))
    phase = rollout.phase
    at = phase.stage if isinstance(phase, (Advancing, Analyzing, Holding)) else None
    reached = sum(stage.count <= rollout.exposed_most for stage in stages)
    promoted = rollout.latched is None and rollout.decided is not None and rollout.restored is None
    for number, stage in enumerate(stages):
        soaked = now - phase.since if isinstance(phase, Analyzing) and number == at else dt.timedelta(0)
        done = promoted or (number < at if at is not None else False)
        share = 1.0 if done else min(1.0, soaked / stage.soak) if stage.soak else 0.0
        words = "done" if done else f"{running(soaked)} of {running(stage.soak)}" if number == at else f"soak {running(stage.soak)}"
        if at is None and not done and number < reached:
            words = "stopped" if number == reached - 1 else "done"
        mark = ">" if number == at else " "
        bar = ProgressBar(total=1.0, completed=share, width=24)
        grid.add_row(f"{mark} stage {number + 1}/{len(stages)}", f"{stage.count} of {rollout.wanted}", bar, words)
    return grid


def _exposure(rollout: Rollout) -> str:
    text = f"exposure: at most {rollout.exposed_most} of {rollout.wanted} instances so far"
    mine = rollout.served.get(rollout.candidate.digest)
    before = rollout.served_before.get(rollout.candidate.digest)
    if mine is None:
        return text
    requests, failed = mine.requests - (before.requests if before else 0), mine.failed - (before.failed if before else 0)
    return f"{text}; {requests:,} requests, {failed:,} failed"


def _checks(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("check", "candidate", "stable", "evidence", "verdict"):
        table.add_column(column, overflow="fold")
    for f in findings:
        evidence = f"{f.value:.3g} of {f.needed:.3g}" if f.value is not None and f.needed is not None else "-"
        verdict = Text(verdict_words(f.verdict), style=_STYLES[f.verdict])
        table.add_row(f.check, _arm(f, "candidate"), _arm(f, "stable"), evidence, verdict)
    return table


def _arm(finding: Finding, arm: str) -> str:
    counted = finding.counts.get(arm)
    if counted is None or not counted.total:
        return "-"
    return f"{percent(counted.bad, counted.total)} ({count(counted.bad)}/{count(counted.total)})"


class LiveView:
    """A view that stays on the terminal and changes in place, from entering the `with` block until leaving it."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(stderr=True), auto_refresh=False, transient=False)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def update(self, document: Document, stages: Sequence[PlannedStage], now: dt.datetime) -> None:
        """The terminal shows `document` as it stands at `now`."""
        self._live.update(render(document, stages, now), refresh=True)

    def say(self, line: str) -> None:
        """The line stands above the view and stays there."""
        self._live.console.print(plain(line), markup=False, highlight=False)
