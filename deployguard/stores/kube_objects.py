"""The objects of a guard in a cluster: their names, their labels, and one look at those that every tick needs."""

from __future__ import annotations

import hashlib
import re
import threading
from typing import Any, NamedTuple

from deployguard import clock
from deployguard.errors import UserError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import NotFound

GUARD = "deployguard.dev/guard"
STATE = "deployguard.dev/state"
STOP = "deployguard-stop"
Object = dict[str, Any]

_PREFIX = "deployguard-"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?")
_TAKEN = re.compile(r"stop|.*-inbox|.*-ledger-\d+")
_FRESH_SECONDS = 1.0
_BY_HAND_SECONDS = 10.0


def object_name(guard: str, part: str = "") -> str:
    """`deployguard-<guard>`, or with a part `deployguard-<guard>-<part>`. Raises `UserError` for a guard that cannot have one."""
    if not _NAME.fullmatch(guard):
        raise UserError(
            f"could not keep the state of guard {guard!r} in a cluster: its name cannot name an object there",
            hint="use up to 200 lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
        )
    if _TAKEN.fullmatch(guard):
        raise UserError(f"could not keep the state of guard {guard!r} in a cluster: that name is used by deployguard itself")
    return f"{_PREFIX}{guard}" + (f"-{part}" if part else "")


def guard_of(obj: Object) -> str:
    """The guard whose document this object is; see `object_name`."""
    return str(obj["metadata"]["name"]).removeprefix(_PREFIX)


def label(guard: str) -> str:
    """The guard's name as the value of a label, which holds 63 characters at most."""
    return guard if len(guard) <= 63 else f"{guard[:52]}-{hashlib.sha256(guard.encode()).hexdigest()[:10]}"


def labels(guard: str, state: str) -> dict[str, str]:
    """What marks an object as part of the state of a guard; `guard` is empty for what belongs to all of a namespace."""
    return {GUARD: label(guard), STATE: state, "app.kubernetes.io/managed-by": "deployguard"}


def new(name: str, guard: str, state: str, owner: Object | None = None) -> Object:
    """An empty ConfigMap to be created, which goes with its owner when it has one."""
    metadata: Object = {"name": name, "labels": labels(guard, state)}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


class Glimpse(NamedTuple):
    """The objects of one look that are there."""

    document: Object | None
    inbox: Object | None
    stop: Object | None


class Looks:
    """One list of ConfigMaps per tick: what `load` sees serves the inbox and the stop switch of the same tick too.

    A list by label costs the API server and us as much as one get, in a namespace of five hundred others as well.
    A part of a look is given out once, within a second: whoever asks again asks the server.
    """

    def __init__(self, kube: Kube, namespace: str, guard: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = object_name(guard)
        self._selector = f"{GUARD} in ({label(guard)},),{STATE} in (document,inbox,stop)"
        self._lock = threading.Lock()
        self._kept: dict[str, Object | None] = {}
        self._kept_at = 0.0
        self._by_hand_at: float | None = None

    def look(self) -> Glimpse:
        """What is there now."""
        # In one page: API servers before 1.34 answer a list in pages from their database, and others from memory.
        page = self._kube.get(paths.configmaps(self._namespace), {"labelSelector": self._selector})
        by_name = {item["metadata"]["name"]: item for item in page.get("items") or []}
        seen = Glimpse(by_name.get(self._name), by_name.get(f"{self._name}-inbox"), by_name.get(STOP))
        with self._lock:
            self._kept = {"inbox": seen.inbox, "stop": seen.stop}
            self._kept_at = clock.monotonic()
        return seen

    def inbox(self) -> Object | None:
        """The inbox, as the last look saw it if that was just now and nobody has asked yet."""
        found, kept = self._take("inbox")
        return kept if found else self.look().inbox

    def stop(self) -> Object | None:
        """The stop switch, likewise. One that was made by hand has no label and is found within ten seconds."""
        found, kept = self._take("stop")
        seen = kept if found else self.look().stop
        now = clock.monotonic()
        if seen is None and (self._by_hand_at is None or now - self._by_hand_at >= _BY_HAND_SECONDS):
            seen = get(self._kube, self._namespace, STOP)
            # A switch by hand that was found is looked at again every time, so that clearing it works at once.
            self._by_hand_at = now if seen is None else None
        return seen

    def forget(self) -> None:
        """What was seen is given out no more: we have written since."""
        with self._lock:
            self._kept = {}

    def _take(self, part: str) -> tuple[bool, Object | None]:
        with self._lock:
            if part not in self._kept or clock.monotonic() - self._kept_at > _FRESH_SECONDS:
                return False, None
            return True, self._kept.pop(part)


def get(kube: Kube, namespace: str, name: str) -> Object | None:
    """The ConfigMap of this name, or None when there is none."""
    try:
        return kube.get(paths.configmap(namespace, name))
    except NotFound:
        return None
