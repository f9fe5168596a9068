"""What came and what did not: the part of folding that is the same for every kind of check."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TypeVar

from deployguard.model.evidence import CheckEvidence, Gap
from deployguard.model.reading import Answer, Missing, Reading

R = TypeVar("R", bound=Reading)


def heard(
    evidence: CheckEvidence, answers: Mapping[str, Answer], arms: tuple[str, ...], now: dt.datetime, *kinds: type[R]
) -> tuple[dict[str, Gap], dict[str, R]]:
    """The gaps after this poll, each with the instant since which it has lasted, and the readings of the expected `kinds` by arm."""
    gaps: dict[str, Gap] = {}
    readings: dict[str, R] = {}
    for arm in arms:
        answer = answers.get(arm)
        if isinstance(answer, kinds):
            readings[arm] = answer
            continue
        if answer is None:
            answer = Missing("not_read")
        reason, detail = (answer.reason, answer.detail) if isinstance(answer, Missing) else ("error", "not a reading of this kind of check")
        since = evidence.gaps[arm].since if arm in evidence.gaps else now
        gaps[arm] = Gap(since, reason, detail)
    return gaps, readings


def elapsed(evidence: CheckEvidence, now: dt.datetime, interval: float) -> float:
    """Seconds since an arm was last counted; one poll interval at the first time, and never less than nothing."""
    last = max(evidence.read_at.values(), default=None)
    return interval if last is None else max((now - last).total_seconds(), 0.0)
