"""The stop switch of a namespace: while the ConfigMap `deployguard-stop` is there, no guard in it promotes; the way back stays open.

An operator can also make it with `kubectl create configmap deployguard-stop` when nothing else works, so any of that name counts.
"""

from __future__ import annotations

from deployguard import clock
from deployguard.errors import ForeignState, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import AlreadyExists, NotFound
from deployguard.model.base import decode, encode
from deployguard.stores.kube_objects import STOP, Object, get, new
from deployguard.stores.stop import Stop

_KEY = "stop"


def stop(kube: Kube, namespace: str, who: str, reason: str) -> None:
    """Every promotion in the namespace is frozen, for whoever guards there."""
    data = {_KEY: encode(Stop(who=who, at=clock.now(), reason=reason)).decode()}
    try:
        kube.create(paths.configmaps(namespace), new(STOP, "", "stop") | {"data": data})
    except AlreadyExists:
        kube.merge(paths.configmap(namespace, STOP), {"metadata": {"labels": new(STOP, "", "stop")["metadata"]["labels"]}, "data": data})


def clear(kube: Kube, namespace: str) -> None:
    """Promotions may go on; harmless when nothing was stopped."""
    found = get(kube, namespace, STOP)
    if found is not None:
        try:
            kube.delete(paths.configmap(namespace, STOP), uid=found["metadata"]["uid"])
        except NotFound:
            return


def stopped(kube: Kube, namespace: str) -> str:
    """Why everything is stopped, in one sentence; empty when it is not. A switch that cannot be read is a switch that is set."""
    try:
        return told(get(kube, namespace, STOP), namespace)
    except WorldError as error:
        return f"treated as stopped: {error.message}"


def told(found: Object | None, namespace: str) -> str:
    """The sentence for a switch as it was read; empty for none."""
    if found is None:
        return ""
    try:
        said = decode(str((found.get("data") or {}).get(_KEY, "")).encode(), Stop)
    except ForeignState:
        return f"stopped by the ConfigMap {STOP} in {namespace}, which does not say by whom"
    return f"stopped by {said.who} at {said.at:%Y-%m-%d %H:%M:%S} UTC" + (f": {said.reason}" if said.reason else "")
