"""Traffic share: does the candidate get the traffic it was given? (docs/statistics.md, section 8)

H0: the candidate's share of the requests lies in [s/tau, s tau], s the share it was given. E is the mean of two truncated mixtures,
one above the upper end and one below the lower. It never rolls back: a share that is off makes the numbers doubtful, not the candidate.
The share that was given changes from stage to stage, so each stage has a mixture of its own, and what the stages before showed is a
factor.
"""

from __future__ import annotations

import math

from deployguard.analysis.beta import log_share
from deployguard.analysis.eprocess import log_sum
from deployguard.model.evidence import Split

STRENGTH = 4.0


def log_evidence(mine: float, theirs: float, share: float, tolerance: float) -> tuple[float, float]:
    """log E that the share is above, and that it is below what is tolerated, for so many requests of the candidate and of stable.

    A share that the tolerance carries to one cannot be exceeded: the first is then 0.
    """
    high, low = share * tolerance, share / tolerance
    up = log_share(mine, theirs, share, STRENGTH, high, above=True) if high < 1 else 0.0
    return up, log_share(mine, theirs, share, STRENGTH, low, above=False)


def split_after(split: Split, mine: float, theirs: float, share: float, tolerance: float) -> Split:
    """The split after a poll in which the candidate was given `share` of the requests."""
    if split.share != share:
        carried = split.carried if split.share <= 0 else min(value_of(split, tolerance), 0.0)
        split = Split(share, 0.0, 0.0, carried)
    return Split(share, split.mine + mine, split.theirs + theirs, split.carried)


def value_of(split: Split, tolerance: float) -> float:
    """log E that the candidate's share of the requests is not what it was given; 0 before anything was served."""
    if split.share <= 0 or split.mine + split.theirs <= 0:
        return split.carried
    up, down = log_evidence(split.mine, split.theirs, split.share, tolerance)
    return split.carried + log_sum((up, down)) - math.log(2)
