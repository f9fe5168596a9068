"""What each check can see in each stage, and what would let it see more: the planner's numbers, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deployguard.analysis import categories, enough, gauges, journeys, sights
from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.gauges import GaugeRules
from deployguard.analysis.planner import POWER, Pace
from deployguard.engine.rules import Rules, rules_of

if TYPE_CHECKING:
    from deployguard.engine.stages import PlannedStage
    from deployguard.model.check import Numbers, ProbeCheck
    from deployguard.model.policy import Policy

ASSUMED_RATE = 0.001
"""Stable's rate of bad requests where nobody says it: one in a thousand."""
HANDFUL = 15.0
"""Bad requests of the candidate up to which the stated power is rough: what decides are a few leaps."""
_LEARNT = 100.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of the traffic before a rollout. `rps` are the requests a second of the whole target, None when unknown.

    `rates` are stable's shares of bad requests by check, `rate` that of all others (None: assumed). `noise` is the dispersion by check
    and whether it has been measured; `power` how certainly a regression must be seen.
    """

    rps: float | None = None
    rate: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, tuple[float, bool]] = field(default_factory=dict)
    power: float = POWER

    def rate_of(self, name: str) -> float:
        """Stable's share of bad requests for one check."""
        return self.rates.get(name, ASSUMED_RATE if self.rate is None else self.rate)


def walked_rps(policy: Policy) -> float:
    """Requests a second that the policy's own journeys make on each arm."""
    return sum(len(check.steps) / check.every.total_seconds() for check in policy.checks if check.source == "probe")


def pace_of(policy: Policy, check: Numbers, count: float, wanted: int, soak: float, expected: Expected) -> Pace:
    """How the requests of a stage with `count` of `wanted` instances on the candidate will come, journeys of the policy included.

    The cap per block is off where stable will have shown enough bad requests in the first half of the soak to measure the dispersion.
    """
    traffic = expected.rps or 0.0
    walked = walked_rps(policy) if traffic else 0.0
    mine, theirs = traffic * count / wanted + walked, traffic * (1 - count / wanted) + (walked if count < wanted else 0.0)
    rate = mine + theirs
    share = mine / rate if rate else count / wanted
    phi, known = expected.noise.get(check.name, (1.0, False))
    bad = theirs * soak / 2 * expected.rate_of(check.name)
    rules = rules_of(policy, check)
    if check.phi is not None or isinstance(rules, GaugeRules):
        return Pace(share, rate, policy.interval.total_seconds(), check.phi or 1.0)
    cap = None if known or bad >= _LEARNT else rules.cap
    return Pace(share, rate, policy.interval.total_seconds(), phi, cap)


def check_sight(policy: Policy, check: Numbers, stage: PlannedStage, wanted: int, expected: Expected) -> dict[str, Any]:
    """What one check can see in one stage. At full exposure nothing of stable is left to compare with: only a limit can be seen there."""
    rules, soak = rules_of(policy, check), stage.soak.total_seconds()
    compares = stage.count < wanted and _compares(rules)
    pace = pace_of(policy, check, stage.count, wanted, soak, expected)
    found: dict[str, Any] = {
        "name": check.name,
        "kind": check.kind,
        "claims": rules.claims if _compares(rules) else None,
        "limit": None if isinstance(rules, CategoriesRules) else rules.limit,
        "compares": compares,
        "from_rate": None,
        "to_rate": None,
        "needed": None,
        "takes_s": None,
        "sees_ratio": None,
        "sees_rate": None,
        "sees_limit": None,
        "tails": [],
        "blocks": None,
        "proof_s": None,
        "rough": False,
        "sees": None,
    }
    more = (
        _of_gauge(rules, pace, soak, compares)
        if isinstance(rules, GaugeRules)
        else _of_requests(rules, check.name, pace, soak, expected, compares)
    )
    found |= more
    return found


def _compares(rules: Rules) -> bool:
    return isinstance(rules, CategoriesRules) or rules.compare


def _whole(value: float) -> int | None:
    return math.ceil(value) if math.isfinite(value) else None


def _seconds(requests: float, rate: float, warm: float = 0.0) -> float | None:
    return round(warm + requests / rate, 3) if rate > 0 and math.isfinite(requests) else None


def _of_gauge(rules: GaugeRules, pace: Pace, soak: float, compares: bool) -> dict[str, Any]:
    """A gauge needs no traffic: so many blocks in a row condemn, and as many the other way prove."""
    blocks = sights.blocks_in_a_row(sights.bar(rules.alpha, rules.weight, rules.parts))
    takes = sights.gauge_seconds(rules, pace.interval, blocks)
    judged = compares or rules.limit is not None
    proof = sights.blocks_in_a_row(sights.PROVEN) if rules.proof else gauges.LEAST_BLOCKS
    return {
        "blocks": blocks,
        "takes_s": takes if judged else None,
        "sees_ratio": rules.ratio if compares and takes <= soak else None,
        "proof_s": sights.gauge_seconds(rules, pace.interval, proof) if compares else None,
        "sees": takes <= soak if judged else None,
    }


def _of_requests(
    rules: CountsRules | CategoriesRules, name: str, pace: Pace, soak: float, expected: Expected, compares: bool
) -> dict[str, Any]:
    mine, rate = pace.rate * pace.share, expected.rate_of(name)
    # What new instances serve while they warm up counts for errors, not for latency.
    warm = rules.warmup.total_seconds() if isinstance(rules, CategoriesRules) else 0.0
    judged = max(soak - warm, 0.0)
    found: dict[str, Any] = {}
    needed = math.inf
    if isinstance(rules, CategoriesRules):
        if compares:
            needed = enough.tail_needed_at(rules, pace, power=expected.power)
            found["tails"] = [_tail(rules, pace, tail, judged, expected.power) for tail in categories.SLOW]
            found["sees_ratio"] = found["tails"][0]["ratio"]
    else:
        if compares or not rules.compare:
            needed = enough.needed_at(rules, pace, rate, expected.power)
        if rules.compare:
            base = sights.from_rate(rules, rate)
            found["from_rate"], found["to_rate"] = round(base, 6), round(sights.to_rate(rules, rate, rules.claims), 6)
        if compares and mine:
            ratio = sights.counts_sight(rules, pace, rate, pace.rate * soak, expected.power)
            found["sees_ratio"] = _digits(ratio)
            found["sees_rate"] = _digits(sights.to_rate(rules, rate, ratio)) if ratio is not None else None
            found["rough"] = mine * soak * (found["sees_rate"] or 1.0) < HANDFUL
        if rules.limit is not None and mine:
            found["sees_limit"] = _digits(sights.limit_sight(rules, pace, mine * soak, expected.power))
    takes = _seconds(needed, mine, warm)
    found |= {"needed": _whole(needed), "takes_s": takes}
    if mine and (compares or not _compares(rules)):
        found["sees"] = takes is not None and takes <= soak
    if rules.proof and compares:
        found["proof_s"] = _seconds(_proof(rules, pace, rate, expected.power), pace.rate, warm)
    return found


def _digits(value: float | None) -> float | None:
    """Rounded up to three digits, so that what is said is seen."""
    if value is None:
        return None
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / step - 1e-9) * step:.6g}")


def _tail(rules: CategoriesRules, pace: Pace, tail: float, soak: float, power: float) -> dict[str, Any]:
    ratio = sights.tail_sight(rules, pace, tail, pace.rate * soak, power) if pace.rate else None
    return {"tail": tail, "ratio": _digits(ratio)}


def _proof(rules: CountsRules | CategoriesRules, pace: Pace, rate: float, power: float) -> float:
    if isinstance(rules, CategoriesRules):
        return max(sights.tail_proof(rules, pace, tail, power) for tail in categories.SLOW)
    return sights.counts_proof(rules, pace, rate, power)


def passes_after(policy: Policy, check: Mapping[str, Any]) -> float | None:
    """Seconds of a stage after which a check can let it pass; None when never, or when that is not known."""
    if check["compares"] and policy.pass_ == "proof":
        proof = check["proof_s"]
        return float(proof) if proof is not None else None
    if check["kind"] == "gauge":
        return float(check["proof_s"] or check["takes_s"] or 0.0)
    if check["compares"] or check["claims"] is None:
        return float(check["takes_s"]) if check["takes_s"] is not None else None
    return 0.0


def journey_sight(check: ProbeCheck) -> dict[str, Any]:
    """How long it takes a journey to veto: red walks in a row, each as long as it may be."""
    every, timeout = check.every.total_seconds(), check.timeout.total_seconds()
    return {
        "name": check.name,
        "veto": check.veto,
        "takes_s": sights.journey_seconds(every, journeys.RED_WALKS),
        "longest_s": sights.journey_seconds(every, journeys.RED_WALKS, timeout),
    }


def advice(
    policy: Policy, check: Numbers, stage: PlannedStage, wanted: int, expected: Expected, seen: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What would let the check see what it claims in this stage: one change each, with what it then sees."""
    rules = rules_of(policy, check)
    if isinstance(rules, GaugeRules):
        return [{"change": "soak", "soak_s": seen["takes_s"]}] if seen["sees"] is False else []
    if not seen["compares"] or not expected.rps or seen["sees"] is not False or seen["needed"] is None:
        return []

    def look(count: float = stage.count, longer: float = 0.0, more: float = 0.0) -> dict[str, Any]:
        soak = stage.soak.total_seconds() + longer
        pace = pace_of(policy, check, count, wanted, soak, expected)
        pace = _busier(pace, more)
        return _of_requests(rules, check.name, pace, soak, expected, compares=True)

    found: list[dict[str, Any]] = []
    wider = next((count for count in range(stage.count + 1, wanted) if look(count)["sees"]), None)
    if wider is not None:
        found.append({"change": "exposure", "instances": wider, "exposure": wider / wanted, "sees_ratio": look(wider)["sees_ratio"]})
    elif stage.count < wanted - 1:
        most = min(2 * stage.count, max(wanted // 2, stage.count + 1))
        ratio = look(most)["sees_ratio"]
        if ratio is not None and ratio < (seen["sees_ratio"] or math.inf):
            found.append({"change": "exposure", "instances": most, "exposure": most / wanted, "sees_ratio": ratio})
    found.append({"change": "soak", "soak_s": seen["takes_s"]})
    more = _least(lambda more: bool(look(more=more)["sees"]), 100_000.0)
    if more is not None:
        found.append({"change": "probe", "rps": more, "every_s": 1 / more})
    if seen["sees_ratio"] is not None:
        found.append({"change": "claims", "claims": seen["sees_ratio"]})
    return found


def _busier(pace: Pace, more: float) -> Pace:
    """The pace when a probe adds so many requests a second to each arm."""
    if not more:
        return pace
    rate = pace.rate + 2 * more
    return replace(pace, rate=rate, share=(pace.rate * pace.share + more) / rate)


def _least(holds: Callable[[float], bool], most: float) -> float | None:
    low, high = 0.0, 0.1
    while not holds(high):
        low, high = high, high * 4
        if high > most:
            return None
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return _digits(high)
