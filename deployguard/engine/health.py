"""The workload's own health: instances that cannot live, and whether a version is in place."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from deployguard.model.evidence import Finding
from deployguard.model.target import Instance, TargetView
from deployguard.model.version import Version

EXCUSE = dt.timedelta(seconds=60)


def doom(instance: Instance, warmup: dt.timedelta) -> str:
    """Why an instance cannot live, in words; empty when it can, or when the trouble is the environment's.

    It exits by itself, non-zero or for a cause of its own making, before it was first ready or within `warmup` of its start; or exits
    twice; or is refused for a reason that names the version.
    """
    if instance.refused:
        return f"is refused: {instance.refused}"
    last = instance.exit
    if last is None:
        return ""
    cause = f": {last.cause}" if last.cause else ""
    if instance.exits >= 2:
        return f"exited {instance.exits} times by itself, last with {_status(last.code)} after {last.uptime:.1f} s{cause}"
    ended_well = last.code == 0 and not cause
    if not ended_well and not last.was_ready:
        return f"exited with {_status(last.code)} before it was ready{cause}"
    if not ended_well and last.uptime <= warmup.total_seconds():
        return f"exited with {_status(last.code)} {last.uptime:.1f} s after its start{cause}"
    return ""


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"


def way(instance: Instance) -> str:
    """How a doomed instance is doomed, in one word: `refused` or `exit`."""
    return "refused" if instance.refused else "exit"


def stable_doomed(view: TargetView, candidate: Version, since: dt.datetime | None, warmup: dt.timedelta) -> dict[str, dt.datetime]:
    """When instances that are not the candidate's became doomed at or after `since`, the latest by way."""
    found: dict[str, dt.datetime] = {}
    for i in view.instances:
        at = i.exit.at if i.exit is not None else since
        if since is None or at is None or at < since or i.assigned == candidate or not doom(i, warmup):
            continue
        found[way(i)] = max(at, found.get(way(i), at))
    return found


def excused(instance: Instance, stable: Mapping[str, dt.datetime]) -> bool:
    """Whether a stable instance became doomed in the same way at about the same time: then the cause is elsewhere.

    An exit long after that is not excused by it: a fault of the environment strikes both within a minute.
    """
    at = stable.get(way(instance))
    return at is not None and (instance.exit is None or abs(instance.exit.at - at) <= EXCUSE)


def condemned(
    view: TargetView, candidate: Version, stable: Mapping[str, dt.datetime], warmup: dt.timedelta, *, most: bool = False
) -> Finding | None:
    """The finding that condemns the candidate because an instance of it is doomed; None when none is, or each is excused.

    `stable` says when stable instances became doomed too. With `most`, more than half of all instances must be doomed: in the long
    watch a single one is no reason to turn a fleet.
    """
    mine = [(i, doom(i, warmup)) for i in view.instances if i.assigned == candidate]
    doomed = [(i, why) for i, why in mine if why and not excused(i, stable)]
    if not doomed or (most and len(doomed) * 2 <= view.wanted):
        return None
    instance, why = doomed[0]
    tail = instance.exit.tail if instance.exit else ()
    logged = f"; it logged: {tail[-1][:160]}" if tail else ""
    return Finding("health", "fail", "doomed", f"health: instance {instance.id} {why}{logged}", limit="no doomed instance")


def late(view: TargetView, candidate: Version) -> Finding | None:
    """The finding that condemns a candidate whose instances run but never became ready; None when the environment kept them."""
    stuck = [i for i in view.instances if i.assigned == candidate and not (i.ready and i.loaded == candidate)]
    running = [i for i in stuck if i.started is not None and not i.waiting]
    if not running:
        return None
    first = running[0]
    what = "is not ready" if not first.ready and first.loaded in (None, candidate) else "has not loaded the candidate"
    return Finding("health", "fail", "late", f"health: instance {first.id} runs but {what} in time", limit="ready in time")


def settled(view: TargetView, candidate: Version, count: int) -> bool:
    """Whether exactly `count` instances run the candidate, each ready and with the candidate loaded, and no other has it.

    A target that has writes left to make is not settled.
    """
    if view.pending:
        return False
    good = [i for i in view.instances if i.assigned == candidate and i.loaded == candidate and i.ready]
    return len(good) == count == len(view.running(candidate))


def unsettled_words(view: TargetView, candidate: Version) -> str:
    """Which candidate instance is not in place, for the trail."""
    for i in view.instances:
        if i.assigned == candidate and not (i.ready and i.loaded == candidate):
            state = "not ready" if i.loaded in (candidate, None) else "on another version"
            return f"instance {i.id} is {i.waiting or i.refused or state}"
    return "it is still being changed" if view.pending else "the number of instances changed"


def acknowledged(view: TargetView, to: Version) -> tuple[str, ...]:
    """Ids of the instances that say they have loaded `to`."""
    return tuple(i.id for i in view.instances if i.assigned == to and i.loaded == to)


def restored(view: TargetView, to: Version) -> bool:
    """Whether every reachable instance has acknowledged `to`.

    Unreachable is one that the environment keeps from running, and one that cannot live on the stable version itself.
    A target that has writes left to make is not restored.
    """
    if view.pending:
        return False
    done = set(acknowledged(view, to))
    return all(i.id in done or (i.assigned == to and (i.waiting or i.exits >= 2)) for i in view.instances)


def not_restored(view: TargetView, to: Version) -> tuple[str, ...]:
    """Ids of the instances that have not acknowledged `to`."""
    done = set(acknowledged(view, to))
    return tuple(i.id for i in view.instances if i.id not in done)
