"""Why a pod does not run, and whose fault that is: the version's own (`refused`) or the environment's (`waiting`).

Refused is only what names the version: its image, its command, a ConfigMap, Secret or key that it asks for, rights it asks for. Quota,
room on nodes, networks, registries that do not answer, eviction and lost nodes are the environment's. Pure: pod and events go in as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
_LONGEST = 400
_UNREACHED = re.compile(
    r"dial tcp|i/o timeout|no such host|connection refused|connection reset|network is unreachable|no route to host|TLS handshake"
    r"|context deadline exceeded|deadline exceeded|x509:|name resolution|server misbehaving|\bEOF\b|too ?many ?requests|\b(429|50[0-4])\b"
    r"|service unavailable|bad gateway|gateway timeout|internal server error|registry is unavailable",
    re.IGNORECASE,
)
_EXHAUSTED = re.compile(
    r"no space left|cannot allocate memory|too many open files|resource temporarily unavailable|context deadline exceeded"
    r"|timed out waiting|ttrpc: closed|is reserved for|context canceled|transport is closing|Unavailable desc|read-only file system",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|denied|unauthorized|authorization failed|insufficient_scope|\b40[134]\b"
    r"|forbidden|no match for platform|no matching manifest",
    re.IGNORECASE,
)
_MOUNT = re.compile(r"(?:configmap|secret) \"[^\"]+\" not found|references non-existent (?:config|secret) key", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"")
_REFUSED_POD = re.compile(r"forbidden|not found|is invalid|denied the request", re.IGNORECASE)
_NO_FAULT_OF_THE_POD = re.compile(r"\bquota\b|being terminated|not yet ready", re.IGNORECASE)
_MOUNT_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
_PAST_THE_MOUNT = ("Pulling", "Pulled", "Created", "Started")
_PULLING = ("ErrImagePull", "ImagePullBackOff")
_AT_ONCE = {
    "InvalidImageName": "its image's name is not valid",
    "ErrImageNeverPull": "its image is not on the node, and must not be pulled",
    "SignatureValidationFailed": "its image's signature does not hold",
}
_STARTING = {
    "CreateContainerConfigError": "it cannot be created",
    "CreateContainerError": "it cannot be created",
    "RunContainerError": "it cannot be started",
    "StartError": "it cannot be started",
    "ContainerCannotRun": "it cannot be started",
}
_BOILERPLATE = (
    "failed to pull and unpack image",
    "failed to resolve",
    "Back-off pulling image",
    "ErrImagePull",
    "Failed to pull image",
    "rpc error",
    "code = ",
    "failed to create containerd task",
    "failed to create shim task",
    "OCI runtime create failed",
    "runc create failed",
    "unable to start container process",
    "unknown",
)
_NEVER_STARTED = ("StartError", "ContainerCannotRun")
_QUIET = ("", "ContainerCreating", "PodInitializing", "CrashLoopBackOff", "PostStartHookError")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run, in words: at most one of the two is set; neither when nothing is known to be wrong."""

    refused: str = ""
    waiting: str = ""


def trouble(pod: Json, events: Sequence[Json] = ()) -> Trouble:
    """What keeps `pod` from running. What condemns the version comes before what the environment does."""
    status = pod.get("status") or {}
    lost = _lost(pod)
    if lost:
        return Trouble(waiting=lost)
    found = [_of_container(one, events) for one in statuses(pod)]
    found += _before_containers(pod, events)
    refused = next((one for one in found if one.refused), None)
    if refused is not None:
        return refused
    waiting = next((one for one in found if one.waiting), None)
    return waiting or Trouble(waiting=_unreachable_node(pod, status))


def statuses(pod: Json) -> Iterator[dict[str, Any]]:
    """The status of every container of `pod`: init containers and sidecars first."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def condition(holder: Json, kind: str) -> dict[str, Any]:
    """The condition of type `kind` in the status of an object; empty when it has none."""
    conditions: list[dict[str, Any]] = (holder.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), {})


def never_started(terminated: Json) -> bool:
    """Whether a container that reads as ended never ran at all, so that this is no exit by itself."""
    return terminated.get("reason") in _NEVER_STARTED


def short(text: str) -> str:
    """One line of at most 400 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def refused_creation(message: str) -> bool:
    """Whether a controller's pods were refused for what the template asks: no quota, no trouble of the server itself."""
    said = _QUOTED.sub("", message)
    return bool(_REFUSED_POD.search(said)) and not _NO_FAULT_OF_THE_POD.search(said)


def _lost(pod: Json) -> str:
    """Why the environment ended the pod or took its node away; empty when it did not."""
    status = pod.get("status") or {}
    message = status.get("message") or ""
    if status.get("phase") in ("Failed", "Unknown") or status.get("reason"):
        return short(f"{status.get('reason') or 'the pod is ' + str(status.get('phase')).lower()}{': ' + message if message else ''}")
    disrupted = condition(pod, "DisruptionTarget")
    if disrupted.get("status") == "True":
        return short(f"{disrupted.get('reason', 'disrupted')}: {disrupted.get('message', '')}")
    return ""


def _unreachable_node(pod: Json, status: Json) -> str:
    """The node controller marks pods of a silent node as not ready, and leaves their containers as they were."""
    gates = (pod.get("spec") or {}).get("readinessGates")
    ready, inside = condition(pod, "Ready").get("status"), condition(pod, "ContainersReady").get("status")
    return "its node does not answer" if not gates and inside == "True" and ready in ("False", "Unknown") and status else ""


def _of_container(status: Json, events: Sequence[Json]) -> Trouble:
    """What one container's status says. A container that runs has no trouble."""
    state = status.get("state") or {}
    name = status.get("name", "")
    if "running" in state:
        return Trouble()
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    reason, message = waiting.get("reason") or "", waiting.get("message") or ""
    if reason in ("", "CrashLoopBackOff") and never_started(ended):
        reason, message = ended["reason"], ended.get("message") or ""
    if reason in _PULLING:
        return _pulling(name, status.get("image", ""), message, events)
    if reason in _AT_ONCE:
        return Trouble(refused=_said(name, _AT_ONCE[reason], message or status.get("image", "")))
    if reason in _STARTING:
        said = _said(name, _STARTING[reason], message or reason)
        return Trouble(waiting=said) if _EXHAUSTED.search(message) else Trouble(refused=said)
    return Trouble(waiting=_said(name, reason, message)) if reason not in _QUIET else Trouble()


def _pulling(name: str, image: str, message: str, events: Sequence[Json]) -> Trouble:
    """An image that does not come: absent at once, a registry that does not answer is waited for, anything else counts from twice."""
    mine = [e for e in events if e.get("reason") == "Failed" and "pull image" in (e.get("message") or "") and concerns(e, name)]
    told = [e.get("message") or "" for e in mine]
    cause = message if len(message) > len(f'Back-off pulling image "{image}"') + 5 else " ".join([message, *told[-1:]])
    said = _said(name, f"its image {image} cannot be had", cause)
    if _UNREACHED.search(_without(cause, image)):
        return Trouble(waiting=said)
    failures = sum(_count(e) for e in mine)
    return Trouble(refused=said) if _ABSENT.search(_without(cause, image)) or failures >= 2 else Trouble(waiting=said)


def _without(text: str, image: str) -> str:
    """`text` without the image's own name, whose parts must not be taken for the registry's words."""
    return text.replace(image, "") if image else text


def _before_containers(pod: Json, events: Sequence[Json]) -> list[Trouble]:
    """What holds a pod whose containers do not even have a state that says so: no node, no volume, no network."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return [Trouble(waiting=short(f"{scheduled.get('reason') or 'not scheduled'}: {scheduled.get('message') or ''}"))]
    reasons = [((one.get("state") or {}).get("waiting") or {}).get("reason") for one in statuses(pod)]
    if not reasons or any(reason not in ("ContainerCreating", "PodInitializing") for reason in reasons):
        return []
    found: list[Trouble] = []
    for event in sorted(events, key=lambda e: (_last(e), e.get("reason") in _PAST_THE_MOUNT)):
        message = event.get("message") or ""
        if event.get("reason") in _PAST_THE_MOUNT:
            found.clear()
        elif event.get("reason") in _MOUNT_EVENTS:
            said = short(f"a volume cannot be mounted: {message}")
            found.insert(0, Trouble(refused=said) if _MOUNT.search(message) else Trouble(waiting=said))
        elif event.get("reason") == "FailedCreatePodSandBox":
            found.insert(0, Trouble(waiting=short(f"its sandbox cannot be made: {message}")))
    return found


def _said(container: str, what: str, message: str) -> str:
    """One line that names the container, without the layers of software that a message came through."""
    told = ": ".join(part for part in message.split(": ") if not part.startswith(_BOILERPLATE))
    return short(f"container {container}: {what}{': ' + told if told else ''}")


def concerns(event: Json, container: str) -> bool:
    """Whether an event of a pod is about its container of that name, or about the pod as a whole."""
    path = (event.get("involvedObject") or {}).get("fieldPath") or ""
    return not path or path.endswith(f"{{{container}}}")


def _count(event: Json) -> int:
    return int(event.get("count") or (event.get("series") or {}).get("count") or 1)


def _last(event: Json) -> str:
    """When an event was last seen, as text that sorts."""
    stamp = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or ""
    return str(stamp)
