"""Restarts before the judge: asked of every workload, in no policy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployguard.analysis import events
from deployguard.analysis.bets import Grid
from deployguard.analysis.cases import words
from deployguard.analysis.cases.base import Case
from deployguard.model.evidence import EventsEvidence, Finding, Happened, VerdictWord
from deployguard.model.target import CANDIDATE, STABLE


@dataclass(frozen=True, slots=True)
class EventsCase(Case):
    """How often instances exit by themselves, per instance-second. It can stop a rollout, and promotion does not wait for it."""

    learnt: EventsEvidence
    grid: Grid
    alpha: float
    weight: float

    @property
    def evidence(self) -> EventsEvidence:
        """What has been learnt so far."""
        return self.learnt

    def signals(self) -> tuple[float, ...]:
        """The comparison of the two arms."""
        return (math.log(self.weight) + events.worse_evidence(self.learnt, self.grid),)

    def passes(self) -> bool:
        """No evidence is needed to pass."""
        return True

    def lack(self) -> str:
        """Nothing ever is."""
        return ""

    def finding(self, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:  # noqa: ARG002
        """The exits of each arm and the evidence."""
        parts = [
            f"{arm} {h.events:.0f} exits in {h.seconds:.0f} instance-seconds"
            for arm in (CANDIDATE, STABLE)
            for h in (self.learnt.counted.get(arm, Happened()),)
        ]
        return Finding(
            check=self.name,
            verdict=verdict,
            reason=reason,
            text=f"{self.name}: {', '.join(parts)}",
            value=words.shown(events.worse_evidence(self.learnt, self.grid)),
            needed=1 / (self.alpha * self.weight),
            limit=f"{events.RATIO:g} x stable",
        )
