"""A probe's journey before the judge."""

from __future__ import annotations

from dataclasses import dataclass

from deployguard.analysis import journeys
from deployguard.analysis.cases.base import Case
from deployguard.model.evidence import Finding, JourneyEvidence, VerdictWord
from deployguard.model.reading import Counter
from deployguard.model.target import CANDIDATE, STABLE


@dataclass(frozen=True, slots=True)
class JourneyCase(Case):
    """A user's journey, walked from outside."""

    veto: bool
    learnt: JourneyEvidence

    @property
    def evidence(self) -> JourneyEvidence:
        """What has been learnt so far."""
        return self.learnt

    def vetoes(self) -> bool:
        """Red on the candidate's path and green on stable's, for a check that may veto."""
        return self.veto and journeys.vetoes(self.learnt)

    def bad_everywhere(self) -> bool:
        """Red on both paths."""
        return journeys.red(self.learnt, CANDIDATE) and journeys.red(self.learnt, STABLE)

    def passes(self) -> bool:
        """The last walk on the candidate's path was green."""
        return journeys.green(self.learnt, CANDIDATE)

    def lack(self) -> str:
        """That no walk was green."""
        return f"{self.name} has no green walk on the candidate's path yet"

    def finding(self, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:  # noqa: ARG002
        """The walks on both paths, and where the last red one broke."""
        parts = []
        for path in (CANDIDATE, STABLE):
            streak = self.learnt.walks.get(path)
            if streak is None or not streak.walks:
                parts.append(f"{path} not walked")
            elif streak.red:
                parts.append(f"{path} red {streak.red} times in a row at `{streak.step}`: {streak.detail}")
            else:
                parts.append(f"{path} green ({streak.walks} walks, {streak.failed} red)")
        walked = {path: Counter(float(s.failed), float(s.walks)) for path, s in self.learnt.walks.items()}
        limit = f"{journeys.RED_WALKS} red walks in a row"
        return Finding(self.name, verdict, reason, f"{self.name}: {'; '.join(parts)}", counts=walked, limit=limit)
