"""Sign betting: is one thing larger than another more often than not?

Gauges are not counts: their samples hang together, so only whole blocks are compared. X = 1 when the candidate's block was worse than
tolerated; H0: P(X = 1 | past) <= 1/2; E = mean over q in {.8, .95, .995} of prod (q/.5)^X ((1-q)/.5)^(1-X). Eight ones in a row make
153 (docs/statistics.md, section 9).
"""

from __future__ import annotations

import math

from deployguard.analysis.eprocess import play, start
from deployguard.model.evidence import Process

_Q = (0.8, 0.95, 0.995)
WEIGHTS = (1 / 3, 1 / 3, 1 / 3)
_ONE = tuple(math.log(2 * q) for q in _Q)
_NONE = tuple(math.log(2 * (1 - q)) for q in _Q)


def signed(process: Process | None, *, worse: bool) -> Process:
    """The process after one more block that was `worse`, or was not."""
    return play(process or start(len(_Q), late_onset=False), _ONE if worse else _NONE, WEIGHTS, 0.0)


def in_a_row(blocks: int) -> float:
    """log E after so many blocks that were all worse."""
    return math.log(sum(weight * math.exp(blocks * one) for weight, one in zip(WEIGHTS, _ONE, strict=True)))
