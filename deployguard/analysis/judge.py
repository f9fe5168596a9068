"""The verdict of a tick: one table of precedence over everything that is known.

From high to low: a red probe with a veto, a doomed instance, evidence past 1/alpha, both arms bad, blind, too few samples, pass. The
absence of a FAIL promotes nothing: PASS is a positive act of every required check.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from deployguard.analysis import counts, journeys
from deployguard.analysis.eprocess import log_sum
from deployguard.analysis.findings import Case, CountsCase, JourneyCase, finding, silent
from deployguard.model.evidence import Finding, Verdict
from deployguard.model.target import CANDIDATE, STABLE


@dataclass(frozen=True, slots=True)
class Bench:
    """What the judge must know beside the cases.

    `since` is when the candidate was first to be judged, `patience` how long a required signal may be silent, `soaked` whether the
    stage has been watched for its whole soak. `doomed` is the finding of the workload's own health, if it condemns.
    """

    now: dt.datetime
    since: dt.datetime
    patience: dt.timedelta
    soaked: bool
    alpha: float
    doomed: Finding | None = None


def judge(cases: Sequence[Case], bench: Bench) -> Verdict:
    """The verdict, its reason in one word and one sentence, and what each check says."""
    return (
        _vetoed(cases)  # what users see outranks every number from inside
        or _doomed(cases, bench)  # an instance that cannot live is a fact, not a test
        or _condemned(cases, bench)  # the test, valid at every look
        or _both_bad(cases, bench)  # the cause is elsewhere: hold, blame nobody
        or _blind(cases, bench)  # no data is never health
        or _undecided(cases, bench)
    )


def _say(cases: Sequence[Case], word: str, reason: str, guilty: Sequence[Case], *, interval: bool = False) -> tuple[Finding, ...]:
    """The findings of all cases, the guilty ones first."""
    first = [finding(case, word, reason, interval=interval) for case in guilty]  # type: ignore[arg-type]
    rest = [finding(case, "undecided", "", interval=interval) for case in cases if case not in guilty]
    return (*first, *rest)


def _vetoed(cases: Sequence[Case]) -> Verdict | None:
    red = [c for c in cases if isinstance(c, JourneyCase) and c.veto and journeys.vetoes(c.evidence)]
    if not red:
        return None
    found = _say(cases, "fail", "veto", red, interval=True)
    return Verdict("fail", "veto", found[0].text, found)


def _doomed(cases: Sequence[Case], bench: Bench) -> Verdict | None:
    if bench.doomed is None:
        return None
    return Verdict("fail", bench.doomed.reason, bench.doomed.text, (bench.doomed, *_say(cases, "undecided", "", (), interval=True)))


def _signals(case: CountsCase, alpha: float) -> list[float]:
    """Weighted log evidence of each signal of a check; a limit that stable exceeds too counts for nothing."""
    rules = case.rules
    log_weight = math.log(rules.weight / rules.parts)
    signals = []
    if rules.compare:
        signals.append(log_weight + counts.worse_evidence(case.evidence, rules))
    if rules.limit is not None:
        value = counts.limit_evidence(case.evidence, CANDIDATE)
        if counts.limit_evidence(case.evidence, STABLE) >= math.log(1 / alpha):
            value = min(value, 0.0)
        signals.append(log_weight + value)
    return signals


def _condemned(cases: Sequence[Case], bench: Bench) -> Verdict | None:
    counted = [c for c in cases if isinstance(c, CountsCase)]
    signals = {c.name: log_sum(_signals(c, bench.alpha)) for c in counted}
    if log_sum(list(signals.values())) < math.log(1 / bench.alpha):
        return None
    order = sorted(counted, key=lambda c: -signals[c.name])
    share = signals[order[0].name] - math.log(2)
    guilty = [c for c in order if signals[c.name] >= share]
    found = _say(cases, "fail", "evidence", guilty, interval=True)
    top = found[0]
    return Verdict("fail", "evidence", f"{top.text}; evidence {top.value:.3g} (needed {top.needed:.3g}) against {top.limit}", found)


def _both_bad(cases: Sequence[Case], bench: Bench) -> Verdict | None:
    bad = [c for c in cases if _bad_everywhere(c, bench.alpha)]
    if not bad:
        return None
    found = _say(cases, "blind", "both_bad", bad)
    return Verdict("blind", "both_bad", f"both arms are bad, so the change is not to blame: {found[0].text}", found)


def _bad_everywhere(case: Case, alpha: float) -> bool:
    if isinstance(case, JourneyCase):
        return journeys.red(case.evidence, CANDIDATE) and journeys.red(case.evidence, STABLE)
    return case.rules.limit is not None and all(
        counts.limit_evidence(case.evidence, arm) >= math.log(1 / alpha) for arm in (CANDIDATE, STABLE)
    )


def _blind(cases: Sequence[Case], bench: Bench) -> Verdict | None:
    why = {c.name: silent(c, bench.since, bench.now, bench.patience) for c in cases if c.required}
    dark = [c for c in cases if why.get(c.name)]
    if not dark:
        return None
    text = "; ".join(f"{c.name} is silent ({why[c.name]})" for c in dark)
    return Verdict("blind", "missing", text, _say(cases, "blind", "missing", dark))


def _undecided(cases: Sequence[Case], bench: Bench) -> Verdict:
    """PASS when the soak is over and every required check passes; otherwise what is still lacking."""
    lacking = [c for c in cases if c.required and not _passes(c)]
    reading = [c for c in cases if c.required and c.evidence.gaps]
    if not bench.soaked or reading:
        return Verdict("undecided", "soaking", "watching", _say(cases, "undecided", "", ()))
    if lacking:
        found = _say(cases, "blind", "too_few_samples", lacking)
        return Verdict("blind", "too_few_samples", "; ".join(_lack(c) for c in lacking), found)
    return Verdict("pass", "soaked", "every required check passes", tuple(finding(c, "pass", "soaked") for c in cases))


def _passes(case: Case) -> bool:
    if isinstance(case, JourneyCase):
        return journeys.green(case.evidence, CANDIDATE)
    return counts.enough(case.evidence, case.rules)


def _lack(case: Case) -> str:
    if isinstance(case, JourneyCase):
        return f"{case.name} has no green walk on the candidate's path yet"
    if case.rules.proof and case.rules.compare:
        return f"{case.name} cannot yet exclude a ratio of {case.rules.claims:g}"
    seen = case.evidence.counted.get(CANDIDATE)
    return f"{case.name} has {seen.total if seen else 0:.0f} of {counts.needed(case.evidence, case.rules):.0f} candidate requests needed"
