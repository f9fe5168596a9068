"""Announcements as Kubernetes Events on the guarded workload, so that `kubectl describe` tells the story of a rollout.

Events are a courtesy of the cluster: it forgets them, after an hour as a rule. The ledger is the record.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
from collections.abc import Mapping
from typing import Any

from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import AlreadyExists, Forbidden
from deployguard.model.rollout import Entry

log = logging.getLogger(__name__)
MOST_MESSAGE = 1024
"""Bytes of a message that an API server takes."""
_FIRST_STAGE = re.compile(r"stage 1/\d")

# By phase, of a transition: reason and action. What is not good news is a warning.
_TRANSITIONS: dict[str, tuple[str, str, bool]] = {
    "waiting": ("RolloutWaiting", "Wait", False),
    "advancing": ("StageAdvanced", "Advance", False),
    "analyzing": ("StageInPlace", "Analyze", False),
    "holding": ("Held", "Hold", True),
    "watching": ("Promoted", "Promote", False),
    "promoted": ("PromotionSettled", "Settle", False),
    "rolling_back": ("RollingBack", "RollBack", True),
    "verifying": ("StableRestored", "Verify", False),
    "rolled_back": ("RolledBack", "Settle", True),
    "failed": ("RolloutFailed", "Settle", True),
    "refused": ("RolloutRefused", "Refuse", True),
    "superseded": ("RolloutSuperseded", "Settle", False),
}
_OTHERS: dict[str, tuple[str, str, bool]] = {
    "claim": ("DriverChanged", "Claim", False),
    "request": ("Requested", "Request", False),
    "overdue": ("RollbackOverdue", "RollBack", True),
    "blind": ("SignalsChanged", "Watch", True),
}


class ToEvents:
    """Announces by Events on one workload, given as `apiVersion`, `kind`, `name` and `uid`."""

    name = "events of the workload"

    def __init__(self, kube: Kube, namespace: str, workload: Mapping[str, str]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._about = {key: workload[key] for key in ("apiVersion", "kind", "name", "uid")} | {"namespace": namespace}
        self._refused = False

    def announce(self, entry: Entry) -> None:
        """The event is in the cluster, once however often it is announced. Without the right to create events it is left out."""
        if self._refused:
            return
        try:
            self._kube.create(paths.events(self._namespace), event(entry, self._about))
        except AlreadyExists:
            return
        except Forbidden as error:
            # Trying again would help nobody, and an entry that is never delivered would be kept for ever.
            self._refused = True
            log.warning("%s; the rollout goes on without events (%s)", error.message, error.hint)


def event(entry: Entry, about: Mapping[str, str]) -> dict[str, Any]:
    """The Event that tells of an entry. Its name follows from the entry's id, so that a repetition is refused by the server."""
    reason, action, warns = _kind(entry)
    at = entry.at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    mark = hashlib.sha256(entry.id.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about['name'][:200].rstrip('-.')}.dg-{mark}", "namespace": about["namespace"]},
        "involvedObject": dict(about),
        "type": "Warning" if warns else "Normal",
        "reason": reason,
        "action": action,
        "message": _cut(f"{entry.text} (guard {entry.guard}, {entry.id})", entry.text),
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": "deployguard"},
        "reportingComponent": "deployguard",
        "reportingInstance": entry.guard[:128],
    }


def _kind(entry: Entry) -> tuple[str, str, bool]:
    if entry.event != "transition":
        return _OTHERS.get(entry.event, ("Noted", "Note", False))
    if entry.phase == "advancing" and _FIRST_STAGE.match(entry.text):
        return "CanaryExposed", "Advance", False
    return _TRANSITIONS.get(entry.phase, ("Noted", "Note", False))


def _cut(whole: str, text: str) -> str:
    if len(whole.encode()) <= MOST_MESSAGE:
        return whole
    return text.encode()[: MOST_MESSAGE - 3].decode("utf-8", "ignore") + "…"
