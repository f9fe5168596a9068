"""The rules of other tools and of the literature, each written anew from its published description.

Every rule has a `name` and `decide`, which takes a batch of runs and gives for each the poll at which it would roll back, or NEVER. Rules
of tools look once a minute, as they do by default; those of the literature at every poll.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from benchmarks.decisions.streams import NEVER, Bools, Counts, Floats, Ints

POLLS_PER_MINUTE = 6


class Rule(Protocol):
    """A rule on counts."""

    name: str

    def decide(self, counts: Counts) -> Ints:
        """For each run the poll at which the candidate is rolled back, or NEVER."""


def first(found: Bools) -> Ints:
    """For each row the first column that holds, or NEVER."""
    return np.where(found.any(axis=1), found.argmax(axis=1), NEVER)


def per_minute(values: Ints) -> Ints:
    """Sums over whole minutes of six polls, (runs, minutes)."""
    runs, polls = values.shape
    minutes = polls // POLLS_PER_MINUTE
    return values[:, : minutes * POLLS_PER_MINUTE].reshape(runs, minutes, POLLS_PER_MINUTE).sum(axis=2)


def end_of_minute(minutes: Ints) -> Ints:
    """The poll at which a minute is complete."""
    return np.where(minutes == NEVER, NEVER, (minutes + 1) * POLLS_PER_MINUTE - 1)


def rates(errors: Ints, requests: Ints) -> Floats:
    """errors/requests, NaN where there was no request."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return errors / requests


def least_success(p0: float) -> float:
    """The success rate that a user would demand of a service with this rate of errors: 99 % up to 0.5 %, 95 % above."""
    return 0.99 if p0 <= 0.005 else 0.95
