"""Checks that walk a user's journey: streaks of red and green walks per path.

A walk is counted once, by the instant at which it ended.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec

from deployguard.model.evidence import Gap, JourneyEvidence, Streak
from deployguard.model.reading import Answer, Missing, Runs
from deployguard.model.target import CANDIDATE, STABLE

RED_WALKS = 3
"""Red walks in a row on the candidate's path that make a veto."""


def fold(evidence: JourneyEvidence, answers: Mapping[str, Answer], paths: tuple[str, ...], now: dt.datetime) -> JourneyEvidence:
    """The evidence after what the prober reported for `paths`."""
    gaps: dict[str, Gap] = {}
    walks = dict(evidence.walks)
    for path in paths:
        answer = answers.get(path) or Missing("not_read")
        if isinstance(answer, Runs):
            walks[path] = _walked(walks.get(path), answer, now)
            continue
        reason, detail = (answer.reason, answer.detail) if isinstance(answer, Missing) else ("error", "not a reading of a journey")
        since = evidence.gaps[path].since if path in evidence.gaps else now
        gaps[path] = Gap(since, reason, detail)
    first = evidence.first_bad
    if first is None and CANDIDATE in walks and walks[CANDIDATE].red:
        first = now
    through = evidence.through if gaps else now
    return msgspec.structs.replace(evidence, gaps=gaps, walks=walks, first_bad=first, through=through)


def _walked(streak: Streak | None, answer: Runs, now: dt.datetime) -> Streak:
    # Walks that ended before the first look belong to what was there before: a path is judged from the first look on.
    streak = streak or Streak(through=min((run.at for run in answer.runs), default=now) - dt.timedelta(microseconds=1))
    for run in answer.runs:
        if run.at <= streak.through:
            continue
        streak = msgspec.structs.replace(
            streak,
            through=run.at,
            red=0 if run.ok else streak.red + 1,
            walks=streak.walks + 1,
            failed=streak.failed + (not run.ok),
            step=streak.step if run.ok else run.step,
            detail=streak.detail if run.ok else run.detail,
        )
    return streak


def red(evidence: JourneyEvidence, path: str) -> bool:
    """Whether the last walks on `path` were red often enough in a row to mean it."""
    streak = evidence.walks.get(path)
    return streak is not None and streak.red >= RED_WALKS


def reddish(evidence: JourneyEvidence, path: str) -> bool:
    """Whether the last walk on `path` was red: enough to wait with a start, not enough to blame."""
    streak = evidence.walks.get(path)
    return streak is not None and streak.red > 0


def green(evidence: JourneyEvidence, path: str) -> bool:
    """Whether the last walk on `path` was green."""
    streak = evidence.walks.get(path)
    return streak is not None and streak.walks > 0 and streak.red == 0


def vetoes(evidence: JourneyEvidence) -> bool:
    """Whether the journey is red on the candidate's path and green on stable's."""
    return red(evidence, CANDIDATE) and green(evidence, STABLE)
