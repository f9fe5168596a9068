"""The verdict of a tick: one table of precedence over everything that is known.

From high to low: a red probe with a veto, a doomed instance, evidence past 1/alpha, both arms bad, blind, too few samples, pass. The
absence of a FAIL promotes nothing: PASS is a positive act of every required check.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from deployguard.analysis.cases.base import Case
from deployguard.analysis.eprocess import log_sum
from deployguard.model.evidence import Finding, Verdict, VerdictWord


@dataclass(frozen=True, slots=True)
class Bench:
    """What the judge must know beside the cases.

    `since` is when the candidate was first to be judged, `patience` how long a required signal may be silent, `soaked` whether the
    stage has been watched for its whole soak. `doomed` is the finding of the workload's own health, if it condemns. `telling`: findings
    are wanted even when nothing is decided; they cost more than the judgement.
    """

    now: dt.datetime
    since: dt.datetime
    patience: dt.timedelta
    soaked: bool
    alpha: float
    doomed: Finding | None = None
    telling: bool = True


def judge(cases: Sequence[Case], bench: Bench) -> Verdict:
    """The verdict, its reason in one word and one sentence, and what each check says."""
    return (
        _vetoed(cases)  # what users see outranks every number from inside
        or _doomed(cases, bench)  # an instance that cannot live is a fact, not a test
        or _condemned(cases, bench)  # the test, valid at every look
        or _both_bad(cases)  # the cause is elsewhere: hold, blame nobody
        or _blind(cases, bench)  # no data is never health
        or _undecided(cases, bench)
    )


def _say(cases: Sequence[Case], word: VerdictWord, reason: str, guilty: Sequence[Case], *, interval: bool = False) -> tuple[Finding, ...]:
    """The findings of all cases, the guilty ones first."""
    first = [case.finding(word, reason, interval=interval) for case in guilty]
    rest = [case.finding("undecided", "", interval=interval) for case in cases if case not in guilty]
    return (*first, *rest)


def _vetoed(cases: Sequence[Case]) -> Verdict | None:
    red = [case for case in cases if case.vetoes()]
    if not red:
        return None
    found = _say(cases, "fail", "veto", red, interval=True)
    return Verdict("fail", "veto", found[0].text, found)


def _doomed(cases: Sequence[Case], bench: Bench) -> Verdict | None:
    if bench.doomed is None:
        return None
    return Verdict("fail", bench.doomed.reason, bench.doomed.text, (bench.doomed, *_say(cases, "undecided", "", (), interval=True)))


def _condemned(cases: Sequence[Case], bench: Bench) -> Verdict | None:
    """The weighted average of the evidence of all signals: the only admissible way to combine them (Vovk, Wang 2021, theorem 3.2)."""
    needed = math.log(1 / bench.alpha)
    if log_sum([case.most() for case in cases]) < needed or log_sum([v for case in cases for v in case.signals()]) < needed:
        return None
    strength = {case.name: log_sum(case.signals()) for case in cases}
    order = sorted((case for case in cases if strength[case.name] > -math.inf), key=lambda case: -strength[case.name])
    guilty = [case for case in order if strength[case.name] >= strength[order[0].name] - math.log(2)]
    found = _say(cases, "fail", "evidence", guilty, interval=True)
    top = found[0]
    return Verdict("fail", "evidence", f"{top.text}; evidence {top.value:.3g} (needed {top.needed:.3g}) against {top.limit}", found)


def _both_bad(cases: Sequence[Case]) -> Verdict | None:
    bad = [case for case in cases if case.bad_everywhere()]
    if not bad:
        return None
    found = _say(cases, "blind", "both_bad", bad)
    return Verdict("blind", "both_bad", f"both arms are bad, so the change is not to blame: {found[0].text}", found)


def _blind(cases: Sequence[Case], bench: Bench) -> Verdict | None:
    required = [case for case in cases if case.required]
    why = {case.name: words for case in required if (words := case.silent(bench.since, bench.now, bench.patience))}
    if why:
        text = "; ".join(f"{name} is silent ({words})" for name, words in why.items())
        return Verdict("blind", "missing", text, _say(cases, "blind", "missing", [c for c in cases if c.name in why]))
    why = {case.name: words for case in required if (words := case.unfit())}
    if why:
        text = "; ".join(f"{name} cannot judge: {words}" for name, words in why.items())
        return Verdict("blind", "unfit", text, _say(cases, "blind", "unfit", [c for c in cases if c.name in why]))
    return None


def _undecided(cases: Sequence[Case], bench: Bench) -> Verdict:
    """PASS when the soak is over and every required check passes; otherwise what is still lacking."""
    if not bench.soaked or any(case.required and case.evidence.gaps for case in cases):
        return Verdict("undecided", "soaking", "watching", _say(cases, "undecided", "", ()) if bench.telling else ())
    lacking = [case for case in cases if case.required and not case.passes()]
    if lacking:
        found = _say(cases, "blind", "too_few_samples", lacking)
        return Verdict("blind", "too_few_samples", "; ".join(case.lack() for case in lacking), found)
    return Verdict("pass", "soaked", "every required check passes", tuple(case.finding("pass", "soaked") for case in cases))
