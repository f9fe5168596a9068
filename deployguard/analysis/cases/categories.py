"""A check on latency or on classes before the judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployguard.analysis import categories, enough
from deployguard.analysis.cases import words
from deployguard.analysis.cases.base import Case
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.dispersion import UNFIT
from deployguard.model.evidence import CategoriesEvidence, Finding, VerdictWord
from deployguard.model.reading import Counter
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

    def most(self) -> float:
        """The largest evidence that was ever reached."""
        return math.log(self.rules.weight) + (self.learnt.worse.best if self.learnt.worse else 0.0)

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
        """How many requests of each arm are slower than where the candidate's have grown most, the ratio, and the evidence."""
        mark = categories.telling(self.learnt)
        mine, theirs = (categories.counted_beyond(self.learnt, arm, mark or 0) for arm in (CANDIDATE, STABLE))
        phi = categories.dispersions(self.learnt, self.rules)[0][-1]
        ratio = words.compared_ratio(words.compared(self.learnt))
        low, high = words.bounds(self.learnt, self.rules.alpha, phi) if interval else (None, None)
        return Finding(
            check=self.name,
            verdict=verdict,
            reason=reason,
            text=f"{self.name}: {self._shares(mark, mine, theirs)}{words.ratio_words(ratio, low, high)}",
            counts={CANDIDATE: mine, STABLE: theirs} if mark is not None else {},
            ratio=ratio,
            low=low,
            high=high,
            value=words.shown(categories.worse_evidence(self.learnt, self.rules)),
            needed=1 / (self.rules.alpha * self.rules.weight),
            limit=self._against(),
            phi=phi,
        )

    def _shares(self, mark: int | None, mine: Counter, theirs: Counter) -> str:
        if mark is None:
            return f"candidate {mine.total:.0f} requests, stable {theirs.total:.0f}, nothing compared yet"
        edges, count = self.learnt.edges, len(self.learnt.segments[0].mine)
        what = f"slower than {edges[mark - 1]:.3g} s" if edges else f"in class {mark + 1} of {count} or worse"
        return f"{what}: candidate {words.share(mine)}, stable {words.share(theirs)}"

    def _against(self) -> str:
        rules = self.rules
        return f"{rules.ratio:g} x stable + {format_share(rules.margin)} in any tail" if rules.tolerant else "not slower than stable"
