"""A check on latency or on classes before the judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployguard.analysis import categories, enough
from deployguard.analysis.cases import words
from deployguard.analysis.cases.base import Case
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counters import ZERO
from deployguard.analysis.dispersion import UNFIT
from deployguard.model.evidence import CategoriesEvidence, Finding, VerdictWord
from deployguard.model.target import CANDIDATE, STABLE
from deployguard.model.units import format_share


@dataclass(frozen=True, slots=True)
class CategoriesCase(Case):
    """Requests by ordered category, compared with stable."""

    learnt: CategoriesEvidence
    rules: CategoriesRules

    @property
    def evidence(self) -> CategoriesEvidence:
        """What has been learnt so far."""
        return self.learnt

    def signals(self) -> tuple[float, ...]:
        """The comparison, with the check's weight."""
        return (math.log(self.rules.weight) + categories.worse_evidence(self.learnt, self.rules),)

    def unfit(self) -> str:
        """Slow requests come in clumps too large to count."""
        phi = min(categories.dispersions(self.learnt, self.rules)[0])
        return f"slow requests come in clumps of {phi:.0f} or more, too large to be counted (at most {UNFIT:g})" if phi > UNFIT else ""

    def passes(self) -> bool:
        """By proof or by soak, as the policy has it."""
        return enough.categories_enough(self.learnt, self.rules)

    def lack(self) -> str:
        """The growth that cannot be excluded yet, or the requests that are missing."""
        served = sum(self.learnt.counted.get(CANDIDATE, ()))
        if self.rules.proof:
            text = f"cannot yet exclude that stable's slowest 5% and 1% have grown to {self.rules.claims:g} times as many"
            return f"{self.name} {text} after {served:.0f} candidate requests"
        return f"{self.name} has {served:.0f} of {enough.categories_needed(self.learnt, self.rules):.0f} candidate requests needed"

    def finding(self, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:
        """How many requests of each arm are as slow as stable's slowest hundredth, and the evidence."""
        tail = categories.SLOW[-1]
        mine = categories.rate_beyond(self.learnt, CANDIDATE, tail) or ZERO
        theirs = categories.rate_beyond(self.learnt, STABLE, tail) or ZERO
        phi = categories.dispersions(self.learnt, self.rules)[0][-1]
        ratio = words.compared_ratio(self.learnt.segments)
        low, high = words.bounds(self.learnt, self.rules.alpha, phi) if interval else (None, None)
        return Finding(
            check=self.name,
            verdict=verdict,
            reason=reason,
            text=f"{self.name}: {self._what(tail)}: candidate {words.share(mine)}, stable {words.share(theirs)}"
            + words.ratio_words(ratio, low, high),
            counts={CANDIDATE: mine, STABLE: theirs},
            ratio=ratio,
            low=low,
            high=high,
            value=words.shown(categories.worse_evidence(self.learnt, self.rules)),
            needed=1 / (self.rules.alpha * self.rules.weight),
            limit=self._against(),
            phi=phi,
        )

    def _what(self, tail: float) -> str:
        if not self.learnt.edges:
            return "in the worst classes"
        edge = categories.bound(self.learnt, tail)
        return "no latency known yet" if edge is None else f"slower than {edge:g} s"

    def _against(self) -> str:
        rules = self.rules
        return f"{rules.ratio:g} x stable + {format_share(rules.margin)} in any tail" if rules.tolerant else "not slower than stable"
