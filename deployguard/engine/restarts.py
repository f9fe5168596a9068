"""From what a target shows of its instances to exits per instance-second."""

from __future__ import annotations

import datetime as dt

import msgspec

from deployguard.analysis import events
from deployguard.analysis.bets import REFERENCE
from deployguard.model.evidence import EventsEvidence, Happened
from deployguard.model.target import CANDIDATE, STABLE, TargetView
from deployguard.model.version import Version

MOST_GAP = 60.0
"""Seconds between two looks beyond which nobody knows how long instances ran."""


def restarts(evidence: EventsEvidence, view: TargetView, candidate: Version, now: dt.datetime, *, late_onset: bool) -> EventsEvidence:
    """The evidence after one look: exits by themselves since the last one, and the time that each arm's instances ran.

    At the first look nothing has happened yet: what instances had counted before is their past.
    """
    exits = {i.id: (CANDIDATE if i.assigned == candidate else STABLE, i.exits) for i in view.instances if i.exits}
    if evidence.at is None:
        return msgspec.structs.replace(evidence, at=now, exits=exits)
    seconds = (now - evidence.at).total_seconds()
    seconds = seconds if 0 < seconds <= MOST_GAP else 0.0
    moved: dict[str, Happened] = {}
    for i in view.instances:
        arm = CANDIDATE if i.assigned == candidate else STABLE
        was, before = evidence.exits.get(i.id, (arm, 0))
        more = i.exits - before if was == arm and i.exits >= before else i.exits
        so_far = moved.get(arm, Happened())
        moved[arm] = Happened(so_far.events + more, so_far.seconds + (seconds if i.started is not None else 0.0))
    return events.counted(msgspec.structs.replace(evidence, at=now, exits=exits), moved, REFERENCE, late_onset=late_onset)
