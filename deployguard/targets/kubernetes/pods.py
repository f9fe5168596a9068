"""From a pod as the API server shows it to an `Instance` of the engine. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from deployguard.model.target import Exit, Instance
from deployguard.model.version import NOTHING, Version
from deployguard.targets.kubernetes.doom import Json, concerns, condition, never_started, refused_creation, short, statuses, trouble
from deployguard.targets.kubernetes.references import containers

UNKNOWN = Version("sha256:unknown", NOTHING)
"""The version of a pod whose template nobody can tell any more: it equals no other."""
_PORTS = ("metrics", "http", "web")
_PORT_ANNOTATION = "prometheus.io/port"
_LOST = ("ContainerStatusUnknown", "Unknown")
_KILLED = (0, 137, 143)
_TAIL = 20
_SETTLE = dt.timedelta(seconds=1)
_CAUSES = (
    ("Killing", "failed liveness probe", "its liveness probe failed"),
    ("Killing", "failed startup probe", "its startup probe failed"),
    ("FailedPostStartHook", "", "its postStart hook failed"),
)


def leaving(pod: Json) -> bool:
    """Whether a pod is on its way out or over: no instance any more, whatever its containers say."""
    return bool((pod.get("metadata") or {}).get("deletionTimestamp")) or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def instance(
    pod: Json,
    version: Version | None,
    *,
    events: Sequence[Json] = (),
    address: str,
    seen_ready: bool,
    now: dt.datetime,
    tail: Sequence[str] = (),
) -> Instance:
    """What `pod` is to the engine. `version` is what it really runs, None when nobody can tell.

    `events` are the pod's, needed only while it does not run well: a missing volume source and a probe's kill stand nowhere else.
    `seen_ready`: it was seen ready earlier. `tail`: the last lines that its previous container logged, where they were fetched.
    """
    meta, ready = pod.get("metadata") or {}, condition(pod, "Ready")
    found, exits = trouble(pod, events), list(_exits(pod))
    was_ready = seen_ready or _has_been_ready(pod)
    last = max(exits, key=lambda one: one[2].get("finishedAt") or "", default=None)
    restarts = sum(one.get("restartCount") or 0 for one in statuses(pod))
    return Instance(
        id=meta.get("name", ""),
        uid=f"{meta.get('uid', '')}/{restarts}",
        assigned=version or UNKNOWN,
        loaded=version if _runs(pod) else None,
        ready=ready.get("status") == "True" and not leaving(pod),
        started=_started(pod),
        ready_since=_instant(ready.get("lastTransitionTime")) if ready.get("status") == "True" else None,
        address=address,
        exits=sum(count for _status, count, _ended in exits),
        exit=_exit(last[2], _cause(pod, last[0], last[2], events), was_ready=was_ready, now=now, tail=tail) if last is not None else None,
        refused=found.refused,
        waiting=found.waiting,
    )


def unborn(
    workload_conditions: Sequence[Json],
    replicaset_conditions: Sequence[Json],
    wanted: int,
    names: Sequence[str],
    *,
    place: str,
    version: Version,
    events: Sequence[Json] = (),
) -> tuple[Instance, ...]:
    """The instances that should be there beside the pods `names` and cannot be created, as `<place>-?1` and on; none without a reason.

    The reason is the condition ReplicaFailure of the workload or its ReplicaSet, or the event FailedCreate of one that has no such
    condition. What the template asks for and may not have is refused; quota and trouble of the server are the environment's.
    """
    message = next((c.get("message") or "" for c in (*replicaset_conditions, *workload_conditions) if _fails(c)), "")
    if not message:
        message = next((e.get("message") or "" for e in reversed(events) if e.get("reason") == "FailedCreate"), "")
    if not message:
        return ()
    said = short(f"its pods cannot be created: {message}")
    refused = refused_creation(message)
    return tuple(
        Instance(
            f"{place}-?{n + 1}",
            f"{place}-?{n + 1}",
            version,
            None,
            ready=False,
            refused=said if refused else "",
            waiting="" if refused else said,
        )
        for n in range(wanted - len(names))
    )


def port_of(template_or_pod: Json, wanted: int | str | None) -> int | None:
    """The port for metrics and probes: the one asked for, by number or name, else the annotation's, else the one that looks like it.

    That is a port named metrics, http or web, else the only TCP port. None when there is none, or several and nothing tells.
    """
    if isinstance(wanted, int):
        return wanted
    ports = list(_declared(template_or_pod))
    if wanted is not None:
        return next((number for name, number in ports if name == wanted), None)
    annotated = ((template_or_pod.get("metadata") or {}).get("annotations") or {}).get(_PORT_ANNOTATION)
    if isinstance(annotated, str) and annotated.isdigit():
        return int(annotated)
    named = next((number for want in _PORTS for name, number in ports if name == want), None)
    return named if named is not None else (ports[0][1] if len(ports) == 1 else None)


def address_of(pod: Json, port: int | None, *, direct: bool) -> str:
    """Where signals reach `pod`: by its own address, or through the API server; empty without a port, or without an address yet."""
    meta, ip = pod.get("metadata") or {}, (pod.get("status") or {}).get("podIP") or ""
    if port is None or not ip:
        return ""
    if direct:
        return f"http://[{ip}]:{port}" if ":" in ip else f"http://{ip}:{port}"
    return f"kube://{meta.get('namespace', '')}/{meta.get('name', '')}:{port}"


def _fails(found: Json) -> bool:
    return found.get("type") == "ReplicaFailure" and found.get("status") == "True"


def _declared(template_or_pod: Json) -> Iterator[tuple[str, int]]:
    spec = template_or_pod.get("spec") or {}
    sidecars = [one for one in spec.get("initContainers") or [] if one.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or []), *sidecars]:
        for port in container.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP" and port.get("containerPort"):
                yield port.get("name") or "", int(port["containerPort"])


def _runs(pod: Json) -> bool:
    own = (pod.get("status") or {}).get("containerStatuses") or []
    return any("running" in (one.get("state") or {}) for one in own)


def _started(pod: Json) -> dt.datetime | None:
    """When the youngest of the running containers started; None while none runs."""
    running = [(one.get("state") or {}).get("running") or {} for one in statuses(pod)]
    return max((at for at in (_instant(one.get("startedAt")) for one in running) if at is not None), default=None)


def _has_been_ready(pod: Json) -> bool:
    """Whether the pod is or was ready: its condition Ready starts with the pod, and has moved since only if it was true once."""
    ready = condition(pod, "Ready")
    if ready.get("status") == "True":
        return True
    born, moved = _instant((pod.get("status") or {}).get("startTime")), _instant(ready.get("lastTransitionTime"))
    return born is not None and moved is not None and moved - born > _SETTLE


def _exits(pod: Json) -> Iterator[tuple[Json, int, Json]]:
    """Containers that ended by themselves: their status, how often, and the last end.

    An init container that ended well has done its work. A container whose end the node did not see was lost with the node.
    """
    spec = pod.get("spec") or {}
    once = {one.get("name") for one in spec.get("initContainers") or [] if one.get("restartPolicy") != "Always"}
    for status in statuses(pod):
        state = status.get("state") or {}
        now, before = state.get("terminated"), (status.get("lastState") or {}).get("terminated")
        if status.get("name") in once:
            now, before = _bad(now), _bad(before)
        ended = now or before
        if ended is None or never_started(ended):
            continue
        # `restartCount` counts starts after the first: an end that no start has followed yet is not in it.
        unanswered = now is not None or (state.get("waiting") or {}).get("reason") not in (None, "ContainerCreating", "PodInitializing")
        count = (status.get("restartCount") or 0) + unanswered - (ended.get("reason") in _LOST)
        if count > 0:
            yield status, count, ended


def _bad(terminated: Json | None) -> Json | None:
    return terminated if terminated and terminated.get("exitCode") else None


def _exit(ended: Json, cause: str, *, was_ready: bool, now: dt.datetime, tail: Sequence[str]) -> Exit:
    at, began = _instant(ended.get("finishedAt")) or now, _instant(ended.get("startedAt"))
    uptime = max(0.0, (at - began).total_seconds()) if began is not None and began.year > 1970 else 0.0
    logged = tuple(tail) or tuple((ended.get("message") or "").splitlines())
    return Exit(at, int(ended.get("exitCode") or 0), uptime, was_ready, logged[-_TAIL:], cause)


def _cause(pod: Json, status: Json, ended: Json, events: Sequence[Json]) -> str:
    """Why a container ended, where its exit code does not say: a kill by a probe often reads "Completed, exit 0"."""
    if ended.get("reason") == "OOMKilled":
        return "it used more memory than its limit"
    name, began = status.get("name", ""), _instant(ended.get("startedAt"))
    for event in reversed(events):
        seen = _instant(event.get("lastTimestamp") or event.get("eventTime"))
        if concerns(event, name) and (began is None or seen is None or seen >= began):
            message = event.get("message") or ""
            found = next((words for reason, part, words in _CAUSES if event.get("reason") == reason and part in message), "")
            if found:
                return found
    container = next((one for _words, one in containers(pod) if one.get("name") == name), {})
    probed = container.get("livenessProbe") or container.get("startupProbe")
    return "it ended by itself or a probe of it failed" if probed and ended.get("exitCode") in _KILLED else ""


def _instant(text: Any) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text) if isinstance(text, str) and text else None
