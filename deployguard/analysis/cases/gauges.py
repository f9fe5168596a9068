"""A check on a gauge before the judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployguard.analysis import enough, gauges
from deployguard.analysis.cases import words
from deployguard.analysis.cases.base import Case
from deployguard.analysis.gauges import GaugeRules
from deployguard.model.evidence import Finding, GaugeEvidence, VerdictWord
from deployguard.model.target import CANDIDATE, STABLE


@dataclass(frozen=True, slots=True)
class GaugeCase(Case):
    """A gauge, compared with stable's, with a bound, or with both."""

    learnt: GaugeEvidence
    rules: GaugeRules

    @property
    def evidence(self) -> GaugeEvidence:
        """What has been learnt so far."""
        return self.learnt

    def signals(self) -> tuple[float, ...]:
        """The comparison and the bound, each with its share of the weight; a bound that stable is beyond too counts for nothing."""
        log_weight = math.log(self.rules.weight / self.rules.parts)
        found = []
        if self.rules.compare:
            found.append(log_weight + gauges.worse_evidence(self.learnt))
        if self.rules.limit is not None:
            value = gauges.limit_evidence(self.learnt, CANDIDATE)
            found.append(log_weight + (min(value, 0.0) if self._beyond(STABLE) else value))
        return tuple(found)

    def _beyond(self, arm: str) -> bool:
        return gauges.limit_evidence(self.learnt, arm) >= math.log(1 / self.rules.alpha)

    def bad_everywhere(self) -> bool:
        """Both arms are beyond the bound."""
        return self.rules.limit is not None and self._beyond(CANDIDATE) and self._beyond(STABLE)

    def passes(self) -> bool:
        """By proof or by soak, as the policy has it."""
        return enough.gauges_enough(self.learnt, self.rules)

    def lack(self) -> str:
        """The blocks that are missing."""
        seconds = gauges.BLOCK.total_seconds()
        if self.rules.proof and self.rules.compare:
            return f"{self.name} cannot yet exclude a ratio of {self.rules.claims:g} after {self.learnt.blocks} blocks of {seconds:g} s"
        return f"{self.name} has {self.learnt.blocks} of {gauges.LEAST_BLOCKS} blocks of {seconds:g} s needed"

    def finding(self, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:  # noqa: ARG002
        """The means of the last block, how often the candidate was worse, and the evidence."""
        rules, learnt = self.rules, self.learnt
        mine, theirs = learnt.means.get(CANDIDATE), learnt.means.get(STABLE)
        compared, limit = gauges.worse_evidence(learnt), gauges.limit_evidence(learnt, CANDIDATE)
        side = "below" if rules.lower else "above"
        if rules.limit is None or (rules.compare and compared >= limit):
            value, against = compared, f"{rules.ratio:g} x stable in most blocks"
        else:
            value, against = limit, f"{side} {rules.limit:g} in most blocks"
        return Finding(
            check=self.name,
            verdict=verdict,
            reason=reason,
            text=f"{self.name}: candidate {_mean(mine)}, stable {_mean(theirs)}"
            + (f", worse than tolerated in {learnt.above} of {learnt.blocks} blocks" if rules.compare else ""),
            ratio=mine / theirs if mine is not None and theirs else None,
            value=words.shown(value),
            needed=rules.parts / (rules.alpha * rules.weight),
            limit=against,
        )


def _mean(value: float | None) -> str:
    if value is None:
        return "not known yet"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
