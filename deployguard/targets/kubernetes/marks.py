"""What deployguard writes on objects of a cluster: names, labels, annotations, and the record of what a workload was told.

Names are deterministic, so that whoever comes after a crash finds what was begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployguard.errors import ForeignState
from deployguard.model.base import Frozen, decode, encode
from deployguard.model.target import Desired
from deployguard.model.version import Version
from deployguard.targets.kubernetes.template import PREFIX

FENCE = PREFIX + "fence"
"""Label of workload and canary: the fence of the last word that was followed. A label, because annotations bump the generation."""
CANARY = PREFIX + "canary"
"""Label of canaries and of their pods: the workload that they belong to."""
UNTIL = PREFIX + "driven-until"
"""Label of a canary: until when somebody drives it, in seconds since 1970."""
RETREATED = PREFIX + "retreated"
"""Label of a workload: the fence under which its canary was taken back because nobody drove it any more."""
TOLD = PREFIX + "told"
"""Annotation of a workload: the record `Told`."""
CONTENT = PREFIX + "content"
"""Label of what is kept: `release`, `config` (an index of copies) or `copy`."""
WORKLOAD = PREFIX + "workload"
"""Label of kept releases and indexes: the workload they were kept for."""
KIND = PREFIX + "kind"
"""Label beside `WORKLOAD`: its kind."""
COPY_OF = PREFIX + "copy-of"
"""Label of a copy: the source whose content it holds."""
ADMITTED = PREFIX + "admitted"
"""Label of what is kept: when it was last asked for, in seconds since 1970."""
DIGEST = PREFIX + "digest"
"""Annotation of what is kept: the whole digest, of which the name has the beginning."""

Json = dict[str, Any]
_LABEL = 63
_NAME = 253
_CANARY_NAME = 60


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    """A workload of a cluster: `Deployment`, `StatefulSet` or `DaemonSet`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name} in {self.namespace}"


class Shape(Frozen, frozen=True):
    """A pod template in short: its release, and the config digest it carries (empty when it carries none)."""

    release: str
    config: str = ""


class Foreign(Frozen, frozen=True):
    """A template that somebody else left: whatever digest it still carries, its pods read what the sources held then, which is `config`."""

    shape: Shape
    config: str


class Before(Frozen, frozen=True, omit_defaults=True):
    """What the user had in the fields that pace a rolling update; `put` is the `minReadySeconds` that we put there.

    `strategy` is the user's `updateStrategy`, of workloads whose candidates run in place of stable pods.
    """

    min_ready: int = 0
    paused: bool = False
    put: int = 0
    strategy: dict[str, Any] | None = None


class Swap(Frozen, frozen=True):
    """Instances that make room for candidates: the user had `replicas`, and `left` of them are left."""

    replicas: int
    left: int


class Told(Frozen, frozen=True, omit_defaults=True):
    """What a workload was told last, and what one must know to undo it.

    `base` is the config digest of pods whose template carries none. `template` is the workload's template as this record left it:
    anything else there is somebody else's. `was` is the template before this rollout first changed it; None while it has not.
    `sources` are the digests of the config sources when the rollout began, by `kind/name`, and `put` is the configuration that a
    promotion of this rollout writes into them. `foreign` is the workload's template where somebody else had left it. `before` and
    `swap` hold what the user had until it is given back; `user` is the same when the rollout began, for a record that an undo brings back.
    """

    desired: Desired
    base: str
    template: Shape
    was: Shape | None = None
    sources: dict[str, str] = {}
    put: str = ""
    foreign: Foreign | None = None
    before: Before | None = None
    swap: Swap | None = None
    user: Before | None = None


def labels(obj: Mapping[str, Any]) -> dict[str, str]:
    """The labels of an object."""
    found: dict[str, str] = (obj.get("metadata") or {}).get("labels") or {}
    return found


def notes(obj: Mapping[str, Any]) -> dict[str, str]:
    """The annotations of an object."""
    found: dict[str, str] = (obj.get("metadata") or {}).get("annotations") or {}
    return found


def number(obj: Mapping[str, Any], label: str) -> int | None:
    """The number in a label; None when it is not there, or is none."""
    text = labels(obj).get(label, "")
    return int(text) if text.isascii() and text.isdigit() else None


def fence_of(obj: Mapping[str, Any]) -> int:
    """The fence an object carries; 0 when it carries none."""
    return number(obj, FENCE) or 0


def record(workload: Mapping[str, Any]) -> Told | None:
    """The record on a workload, whether or not it is still valid; None when there is none, or none that can be read."""
    text = notes(workload).get(TOLD)
    if text is None:
        return None
    try:
        return decode(text.encode(), Told)
    except ForeignState:
        return None


def told(workload: Mapping[str, Any]) -> Told | None:
    """The record on a workload if its fence is the workload's own: an old one that came back by an undo says nothing."""
    found = record(workload)
    return found if found is not None and found.desired.fence == fence_of(workload) else None


def written(told: Told) -> str:
    """A record as its annotation's value."""
    return encode(told).decode()


def uid(obj: Mapping[str, Any]) -> str:
    """The uid of an object."""
    found: str = obj["metadata"]["uid"]
    return found


def name(obj: Mapping[str, Any]) -> str:
    """The name of an object."""
    found: str = obj["metadata"]["name"]
    return found


def owner(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The reference to the controller that owns an object; empty when none does."""
    references: list[dict[str, Any]] = (obj.get("metadata") or {}).get("ownerReferences") or []
    return next((one for one in references if one.get("controller")), {})


def short(digest: str) -> str:
    """The ten hex digits of a digest that names carry."""
    return digest.rpartition(":")[2][:10]


def fitted(text: str, limit: int) -> str:
    """`text` within `limit` characters: what is too long is cut, with a hash of the whole."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 11].rstrip('-._')}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def label_value(text: str) -> str:
    """A name as the value of a label."""
    return fitted(text, _LABEL)


def canary_name(workload: str, candidate: Version) -> str:
    """The Deployment that runs `candidate` beside a workload."""
    return f"{fitted(workload, _CANARY_NAME - 14)}-dg-{candidate.short}"


def release_name(workload: str, digest: str) -> str:
    """The ConfigMap that keeps a pod template."""
    return f"{fitted(workload, _NAME - 16)}-dg-r-{short(digest)}"


def index_name(workload: str, digest: str) -> str:
    """The ConfigMap that lists the copies of one configuration."""
    return f"{fitted(workload, _NAME - 16)}-dg-c-{short(digest)}"


def copy_name(source: str, digest: str) -> str:
    """The immutable copy of one content of a source."""
    return f"{fitted(source, _NAME - 14)}-dg-{short(digest)}"
