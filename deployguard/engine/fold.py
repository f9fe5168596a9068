"""Taking in what a tick saw: readings into evidence, exposure, requests served, what the ledger and the sinks have."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from deployguard.engine import health
from deployguard.engine.needs import JUDGED, needs
from deployguard.engine.restarts import restarts
from deployguard.engine.rules import RESTARTS, folded_check
from deployguard.model.action import Observation
from deployguard.model.evidence import EventsEvidence
from deployguard.model.rollout import Rollout
from deployguard.model.target import TargetView

if TYPE_CHECKING:
    from deployguard.model.policy import Policy


def delivered(rollout: Rollout, seen: Observation) -> Rollout:
    """The rollout without the entries that are in the ledger and have been announced."""
    announced = max(rollout.announced, seen.announced)
    through = min(seen.ledgered, announced)
    outbox = tuple(e for e in rollout.outbox if e.n > through)
    return msgspec.structs.replace(rollout, outbox=outbox, announced=announced)


def folded(policy: Policy, rollout: Rollout, seen: Observation, view: TargetView, now: dt.datetime) -> Rollout:
    """The rollout after the readings of this tick, each counted once, and after what the view shows."""
    evidence, wanted = dict(rollout.evidence), needs(policy, rollout, view)
    given = _given(view, rollout)
    for check in policy.checks:
        paths = wanted.get(check.name)
        if paths:
            evidence[check.name] = folded_check(policy, rollout, check, seen.answers.get(check.name, {}), paths, given, now)
    exposed = len(view.running(rollout.candidate)) if rollout.kind == "candidate" else 0
    judged = isinstance(rollout.phase, JUDGED)
    if judged and rollout.exposed_since is not None:
        before = evidence.get(RESTARTS)
        before = before if isinstance(before, EventsEvidence) else EventsEvidence()
        evidence[RESTARTS] = restarts(before, view, rollout.candidate, now, late_onset=policy.protect.late_onset)
    doomed = health.stable_doomed(view, rollout.candidate, rollout.exposed_since, policy.warmup) if judged else {}
    return msgspec.structs.replace(
        rollout,
        evidence=evidence,
        updated=now,
        # Canaries beside a workload that has all of the candidate itself are no more exposure than the whole of it.
        exposed_most=max(rollout.exposed_most, min(exposed, max(view.wanted, 1)) if rollout.surge else exposed),
        exposed_since=rollout.exposed_since or (now if exposed and judged else None),
        fence_seen=max(rollout.fence_seen, view.fence),
        stable_doomed={**rollout.stable_doomed, **doomed},
        served_before=rollout.served_before or view.served,
        served=view.served,
    )


def _given(view: TargetView, rollout: Rollout) -> float:
    """The candidate's share of the ready instances: the share of the traffic that it was given."""
    ready = [i for i in view.instances if i.ready]
    return sum(i.loaded == rollout.candidate for i in ready) / len(ready) if ready else 0.0
