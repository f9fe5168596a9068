"""From the decisions of a rule on many runs to one flat row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.decisions.streams import NEVER, Floats, Ints

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Decided:
    """What a rule did with some runs of a stream: seconds, requests of both arms and bad requests of the candidate until the rollback.

    Infinite where it never rolled back.
    """

    seconds: Floats
    requests: Floats
    failed: Floats


def decided(polls: Ints, seconds: float, requests: Ints, failed: Ints) -> Decided:
    """`polls` holds the poll of the rollback of each run; `requests` and `failed` are (runs, polls) of single polls."""
    runs, found = np.arange(len(polls)), polls != NEVER

    def until(values: Ints) -> Floats:
        return np.where(found, np.cumsum(values, axis=1)[runs, polls], np.inf)

    return Decided(np.where(found, (polls + 1) * seconds, np.inf), until(requests), until(failed))


def together(parts: Sequence[Decided]) -> Decided:
    """The runs of all parts, in order."""
    return Decided(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("seconds", "requests", "failed")))


@dataclass(frozen=True)
class Row:
    """A rule on a stream. `rate` is the share of the runs that were rolled back; of a null stream every one of them is a mistake.

    Medians are order statistics over all runs, censored at the horizon as infinite (None). `about` says how the stream was made.
    """

    stream: str
    null: bool
    rule: str
    alpha: float | None
    n: int
    rate: float
    rate_low: float
    rate_high: float
    median_s: float | None = None
    p95_s: float | None = None
    median_requests: float | None = None
    floor_requests: float | None = None
    ratio: float | None = None
    failed_requests: float | None = None
    family: str = ""
    about: dict[str, float | str | None] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Flat, for JSON."""
        found = asdict(self)
        return {**{key: value for key, value in found.items() if key != "about"}, **self.about}


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(stats.beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def order(values: Floats, q: float) -> float | None:
    """The order statistic at or above the quantile; None when that is beyond the horizon."""
    found = float(np.quantile(values, q, method="higher"))
    return found if math.isfinite(found) else None


def row(found: Decided, *, stream: str, null: bool, rule: str, alpha: float | None, floor: float | None, **more: Any) -> Row:
    """The row of `rule` on `stream`; `floor` is the least number of requests that any rule with the same null needs in the mean."""
    n = len(found.seconds)
    hits = int(np.isfinite(found.seconds).sum())
    low, high = clopper_pearson(hits, n)
    counted = Row(stream, null, rule, alpha, n, hits / n, low, high, **more)
    if null:
        return counted
    median = order(found.requests, 0.5)
    finite = floor is not None and math.isfinite(floor)
    return Row(
        **{
            **{name: getattr(counted, name) for name in counted.__dataclass_fields__},
            "median_s": order(found.seconds, 0.5),
            "p95_s": order(found.seconds, 0.95),
            "median_requests": median,
            "floor_requests": floor if finite else None,
            "ratio": median / floor if median is not None and finite and floor else None,
            "failed_requests": order(found.failed, 0.5),
        }
    )
