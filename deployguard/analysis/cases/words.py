"""Numbers in findings, in words: the same for every kind of check."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deployguard.analysis.categories import beyond, history_beyond, telling
from deployguard.analysis.counters import ZERO, trusted
from deployguard.analysis.interval import ratio_interval
from deployguard.model.evidence import Block, CategoriesEvidence, CountsEvidence, Evidence, Stratum
from deployguard.model.reading import Counter
from deployguard.model.target import STABLE
from deployguard.model.units import format_share

MOST = 690.0
"""Evidence beyond e^690 is shown as that."""


def rate(counter: Counter) -> float | None:
    """Bad over total; None when nothing was counted."""
    return counter.bad / counter.total if counter.total > 0 else None


def share(counter: Counter) -> str:
    """The rate with its counts: `2% (20 of 1000)`."""
    value = rate(counter)
    return "no requests" if value is None else f"{format_share(round(value, 5))} ({counter.bad:.0f} of {counter.total:.0f})"


def number(value: float | None) -> str:
    """A ratio, or that it has no bound."""
    return "unbounded" if value is None else f"{value:.3g}"


def compared(evidence: Evidence | None) -> Sequence[Block]:
    """What was compared, one block for each share of traffic; for latency and classes, by the category that tells most.

    Empty for a kind of check that has no ratio, and where strata are compared: what they make together is no comparison.
    """
    if isinstance(evidence, CategoriesEvidence):
        mark = telling(evidence)
        return beyond(evidence, mark) if mark is not None else ()
    return evidence.segments if isinstance(evidence, CountsEvidence) and len(evidence.strata) < 2 else ()


def compared_ratio(segments: Sequence[Block]) -> float | None:
    """The ratio of the rates over the requests that were compared; None without them, or while stable failed none of its own."""
    n1, e1, n0, e0 = (sum(getattr(s, field) for s in segments) for field in ("n1", "e1", "n0", "e0"))
    return (e1 / n1) / (e0 / n0) if n1 and e0 else None


def bounds(evidence: Evidence | None, alpha: float, phi: float) -> tuple[float | None, float | None]:
    """The interval of the ratio at the policy's confidence, None for an open upper end; clumps of phi count as one each.

    Both are None where there is no ratio, and before anything was compared.
    """
    segments = compared(evidence)
    if not segments:
        return None, None
    assert isinstance(evidence, (CountsEvidence, CategoriesEvidence))
    low, high = ratio_interval(segments, _history(evidence), alpha, phi)
    return low, None if math.isinf(high) else high


def _history(evidence: CountsEvidence | CategoriesEvidence) -> Counter:
    """What is known of stable from before the comparison, for the bets of the interval."""
    if isinstance(evidence, CategoriesEvidence):
        slow = history_beyond(evidence, telling(evidence) or 0)
        return Counter(0.5 + slow.bad, 50.0 + slow.total)
    strata = evidence.strata.values() or (Stratum(),)
    known = Counter(sum(s.history.bad for s in strata), sum(s.history.total for s in strata))
    return trusted(known, evidence.counted.get(STABLE, ZERO))


def ratio_words(ratio: float | None, low: float | None, high: float | None) -> str:
    """`, ratio 2.1 [1.5 to 3]`; empty when nothing is known of it."""
    if ratio is None and not low and high is None:
        return ""
    text = f", ratio {number(ratio)}"
    return text if low is None else f"{text} [{number(low)} to {number(high)}]"


def shown(log_evidence: float) -> float:
    """E itself, from its logarithm."""
    return math.exp(min(log_evidence, MOST))
