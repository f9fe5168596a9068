"""One plain line for each step, for CI logs: what a person sees who only has the log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from deployguard.engine.stages import PlannedStage
from deployguard.model.evidence import Finding
from deployguard.model.rollout import Advancing, Analyzing, Holding, Rollout, Step, Watching
from deployguard.report.instants import running, spell
from deployguard.report.numbers import percent
from deployguard.report.table import plain
from deployguard.report.words import Named, phase_words, short


def trail_line(step: Step, started: dt.datetime) -> str:
    """`+12s advancing stage 1/4: 1 of 20 instances`."""
    return plain(f"{since_start(step.at, started)} {step.phase} {step.text}").rstrip()


def since_start(at: dt.datetime, started: dt.datetime) -> str:
    """`+12s`, `+3m05s`, `+1h02m05s`."""
    seconds = max(0, int((at - started).total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"+{hours}h{minutes:02}m{seconds:02}s"
    return f"+{minutes}m{seconds:02}s" if minutes else f"+{seconds}s"


def progress_line(rollout: Rollout, stages: Sequence[PlannedStage], now: dt.datetime, *, name: Named = short) -> str:
    """`+30s stage 1/4 soak 0:18 of 5:00, errors 0.2% vs 0.1%, evidence 1.3 of 100`; outside a stage the words of the phase."""
    head, phase = since_start(now, rollout.started), rollout.phase
    if not isinstance(phase, (Advancing, Analyzing, Holding, Watching)):
        return plain(f"{head} {phase_words(rollout, now, name=name)}")
    numbers = [text for finding in rollout.findings if (text := finding_words(finding))]
    where = phase_words(rollout, now, name=name)
    if isinstance(phase, Analyzing) and phase.stage < len(stages):
        stage = stages[phase.stage]
        where = f"stage {phase.stage + 1}/{len(stages)} soak {running(now - phase.since)} of {running(stage.soak)}"
        if now - phase.since > stage.soak:
            where += f", extended for more samples for at most {spell(stage.longest.total_seconds())}"
    return plain(", ".join([f"{head} {where}", *numbers]))


def finding_words(finding: Finding) -> str:
    """`errors 0.2% vs 0.1%, evidence 1.3 of 100`; empty while nothing was counted."""
    mine, theirs = finding.counts.get("candidate"), finding.counts.get("stable")
    if finding.value is None:
        walks = [f"{arm} {c.total - c.bad:.0f} of {c.total:.0f} green" for arm, c in sorted(finding.counts.items()) if c.total]
        return f"{finding.check} {', '.join(walks)}" if walks else ""
    if mine is None or not mine.total:
        return ""
    other = f" vs {percent(theirs.bad, theirs.total)}" if theirs is not None and theirs.total else ""
    return f"{finding.check} {percent(mine.bad, mine.total)}{other}, evidence {finding.value:.2g} of {finding.needed or 0:.3g}"
