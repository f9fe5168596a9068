"""What the judge asks of any check."""

from __future__ import annotations

import abc
import datetime as dt
from dataclasses import dataclass

from deployguard.analysis.eprocess import log_sum
from deployguard.model.evidence import CheckEvidence, Finding, VerdictWord


@dataclass(frozen=True, slots=True)
class Case(abc.ABC):
    """A check with its evidence. What a kind of check does not know stays at these answers.

    `required`: promotion needs the signal.
    """

    name: str
    required: bool

    @property
    @abc.abstractmethod
    def evidence(self) -> CheckEvidence:
        """What has been learnt so far."""

    def signals(self) -> tuple[float, ...]:
        """The weighted log evidence of each signal of the check against the candidate."""
        return ()

    def most(self) -> float:
        """A bound of the sum of `signals`, as a logarithm, that is cheap to have: at most polls it shows that nothing is decided."""
        return log_sum(self.signals())

    def vetoes(self) -> bool:
        """Whether the check condemns by itself, without any statistics."""
        return False

    def bad_everywhere(self) -> bool:
        """Whether both arms are bad beyond doubt: then the cause is elsewhere."""
        return False

    def unfit(self) -> str:
        """Why the check cannot judge although its signal is there; empty when it can."""
        return ""

    @abc.abstractmethod
    def passes(self) -> bool:
        """Whether the check has seen enough to let the candidate pass."""

    @abc.abstractmethod
    def lack(self) -> str:
        """What is still lacking for the check to pass, in words."""

    @abc.abstractmethod
    def finding(self, verdict: VerdictWord, reason: str, *, interval: bool = False) -> Finding:
        """What the check says, as `verdict` for `reason`; with `interval`, the ratio's interval is computed, which costs milliseconds."""

    def silent(self, since: dt.datetime, now: dt.datetime, patience: dt.timedelta) -> str:
        """Why the check cannot see: the words of its gaps when they have lasted for `patience`; empty when it sees."""
        evidence = self.evidence
        if not evidence.gaps:
            return ""
        last = max(since, evidence.through) if evidence.through else since
        if now - last < patience:
            return ""
        return ", ".join(f"{arm}: {gap.reason}{' ' + gap.detail if gap.detail else ''}" for arm, gap in sorted(evidence.gaps.items()))
