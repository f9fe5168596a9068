"""A check on bad and total requests before the judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployguard.analysis import counts, enough, share
from deployguard.analysis.cases import words
from deployguard.analysis.cases.base import Case
from deployguard.analysis.counters import ZERO
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.dispersion import UNFIT, in_use
from deployguard.model.evidence import CountsEvidence, Finding, VerdictWord
from deployguard.model.target import CANDIDATE, STABLE
from deployguard.model.units import format_share


@dataclass(frozen=True, slots=True)
class CountsCase(Case):
    """Bad and total requests, compared with stable, with a fixed limit, or with both."""

    learnt: CountsEvidence
    rules: CountsRules

    @property
    def evidence(self) -> CountsEvidence:
        """What has been learnt so far."""
        return self.learnt

    @property
    def phi(self) -> float:
        """The dispersion in use."""
        return in_use(self.learnt.learnt, self.learnt.spread, self.rules.dispersion)[0]

    def signals(self) -> tuple[float, ...]:
        """The comparison and the limit, each with its share of the check's weight; a limit that stable exceeds too counts for nothing."""
        rules = self.rules
        log_weight = math.log(rules.weight / rules.parts)
        found = []
        if rules.compare:
            found.append(log_weight + counts.worse_evidence(self.learnt, rules))
        if rules.limit is not None:
            value = counts.limit_evidence(self.learnt, CANDIDATE)
            found.append(log_weight + (min(value, 0.0) if self._beyond(STABLE) else value))
        return tuple(found)

    def most(self) -> float:
        """The sum of the largest evidence that each signal ever reached."""
        worse, limit = self.learnt.worse, self.learnt.limit.get(CANDIDATE)
        best = max(worse.best if worse else 0.0, limit.process.best if limit else 0.0)
        return math.log(self.rules.weight) + best

    def _beyond(self, arm: str) -> bool:
        limit, needed = self.learnt.limit.get(arm), math.log(1 / self.rules.alpha)
        return limit is not None and limit.process.best >= needed and counts.limit_evidence(self.learnt, arm) >= needed

    def bad_everywhere(self) -> bool:
        """Both arms exceed the limit beyond doubt."""
        return self.rules.limit is not None and self._beyond(CANDIDATE) and self._beyond(STABLE)

    def unfit(self) -> str:
        """Errors come in clumps too large to count, or the candidate does not get the traffic it was given."""
        if (phi := self.phi) > UNFIT:
            return f"errors come in clumps of {phi:.0f}, too large to be counted (at most {UNFIT:g})"
        tolerance, split = self.rules.traffic_share, self.learnt.split
        if tolerance is not None and share.value_of(split, tolerance) >= math.log(1 / self.rules.alpha):
            got = split.mine / max(split.mine + split.theirs, 1.0)
            return f"the candidate got {format_share(round(got, 4))} of the requests and was given {format_share(round(split.share, 4))}"
        return ""

    def passes(self) -> bool:
        """By proof or by soak, as the policy has it."""
        return enough.counts_enough(self.learnt, self.rules)

    def lack(self) -> str:
        """The ratio that cannot be excluded yet, or the requests that are missing."""
        mine = self.learnt.counted.get(CANDIDATE, ZERO)
        if self.rules.proof and self.rules.compare:
            return f"{self.name} cannot yet exclude a ratio of {self.rules.claims:g} after {mine.total:.0f} candidate requests"
        return f"{self.name} has {mine.total:.0f} of {enough.counts_needed(self.learnt, self.rules):.0f} candidate requests needed"

    def finding(self, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:
        """The counts, the ratio with its interval, and the stronger evidence of the comparison and the limit."""
        mine, theirs = self.learnt.counted.get(CANDIDATE, ZERO), self.learnt.counted.get(STABLE, ZERO)
        ratio, phi = words.compared_ratio(words.compared(self.learnt)), self.phi
        low, high = words.bounds(self.learnt, self.rules.alpha, phi) if interval else (None, None)
        value, against = self._strongest()
        text = f"{self.name}: candidate {words.share(mine)}, stable {words.share(theirs)}{words.ratio_words(ratio, low, high)}"
        if (strata := len(self.learnt.strata)) > 1:
            text += f", compared within {strata} strata"
        return Finding(
            check=self.name,
            verdict=verdict,
            reason=reason,
            text=text if phi == 1.0 else f"{text}, errors in clumps of {phi:.2g}",
            counts={CANDIDATE: mine, STABLE: theirs},
            ratio=ratio,
            low=low,
            high=high,
            value=words.shown(value),
            needed=self.rules.parts / (self.rules.alpha * self.rules.weight),
            limit=against,
            phi=phi,
        )

    def _strongest(self) -> tuple[float, str]:
        """The larger log evidence of the comparison and the limit, and the words for what it is against."""
        rules = self.rules
        worse = f"{rules.ratio:g} x stable + {format_share(rules.margin)}"
        if rules.floor:
            worse += f", floor {format_share(rules.floor)}"
        compared = counts.worse_evidence(self.learnt, rules)
        if rules.limit is None:
            return compared, worse
        limit = counts.limit_evidence(self.learnt, CANDIDATE)
        return (compared, worse) if rules.compare and compared >= limit else (limit, f"limit {format_share(rules.limit)}")
