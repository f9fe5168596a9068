"""Where things are on an API server: pure functions from names to paths, and from a path to words a person knows."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

WORKLOADS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
_CONTENT = {"ConfigMap": "configmaps", "Secret": "secrets"}

_PLACE = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/?]+))?"
    r"(?:/(?P<resource>[^/?]+)(?:/(?P<name>[^/?]+)(?:/(?P<sub>[^/?]+).*)?)?)?"
)


class Place(NamedTuple):
    """What a path names; empty where it names nothing of the kind. `group` is empty for the core group."""

    group: str
    namespace: str
    resource: str
    name: str
    sub: str

    @property
    def words(self) -> str:
        """`deployments/web in shop`, `pods in shop`, `nodes`."""
        thing = "/".join(part for part in (self.resource, self.name, self.sub) if part)
        return f"{thing} in {self.namespace}" if self.namespace else thing


def place(path: str) -> Place:
    """The parts of a path; a path that names no resource comes out as a resource of that name."""
    found = _PLACE.match(path)
    if not found:
        return Place("", "", path, "", "")
    parts = {key: value or "" for key, value in found.groupdict().items()}
    # A namespace by itself is an object like any other.
    if not parts["resource"] and parts["namespace"]:
        return Place("", "", "namespaces", parts["namespace"], "")
    if not parts["resource"]:
        return Place("", "", path, "", "")
    return Place(**parts)


def _named(collection: str, name: str) -> str:
    return f"{collection}/{quote(name, safe='')}"


def core(namespace: str, resource: str) -> str:
    """The collection of a namespaced resource of the core group."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/{resource}"


def grouped(group: str, namespace: str, resource: str) -> str:
    """The collection of a namespaced resource of `group`, which has the version with it: `apps/v1`. All namespaces when empty."""
    inside = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"/apis/{group}{inside}/{resource}"


def namespace(name: str) -> str:
    """The namespace itself."""
    return _named("/api/v1/namespaces", name)


def workloads(kind: str, namespace: str) -> str:
    """The workloads of a kind (`Deployment`, `StatefulSet`, `DaemonSet`) in a namespace; everywhere when it is empty."""
    return grouped("apps/v1", namespace, WORKLOADS[kind])


def workload(kind: str, namespace: str, name: str) -> str:
    """One workload."""
    return _named(workloads(kind, namespace), name)


def replicasets(namespace: str) -> str:
    """The ReplicaSets of a namespace."""
    return grouped("apps/v1", namespace, "replicasets")


def replicaset(namespace: str, name: str) -> str:
    """One ReplicaSet."""
    return _named(replicasets(namespace), name)


def revisions(namespace: str) -> str:
    """The ControllerRevisions of a namespace."""
    return grouped("apps/v1", namespace, "controllerrevisions")


def revision(namespace: str, name: str) -> str:
    """One ControllerRevision."""
    return _named(revisions(namespace), name)


def pods(namespace: str) -> str:
    """The pods of a namespace."""
    return core(namespace, "pods")


def pod(namespace: str, name: str) -> str:
    """One pod."""
    return _named(pods(namespace), name)


def pod_log(namespace: str, name: str) -> str:
    """The log of a pod; the container and the range go into the parameters."""
    return pod(namespace, name) + "/log"


def pod_proxy(namespace: str, name: str, port: int | str, path: str = "/") -> str:
    """A path of a pod's own server, reached through the API server."""
    return f"{pods(namespace)}/{quote(name, safe='')}:{port}/proxy/{path.lstrip('/')}"


def service_proxy(namespace: str, name: str, port: int | str, path: str = "/") -> str:
    """A path of a service, reached through the API server."""
    return f"{services(namespace)}/{quote(name, safe='')}:{port}/proxy/{path.lstrip('/')}"


def services(namespace: str) -> str:
    """The services of a namespace."""
    return core(namespace, "services")


def events(namespace: str) -> str:
    """The events of a namespace, as the core group serves them."""
    return core(namespace, "events")


def contents(kind: str, namespace: str) -> str:
    """The `ConfigMap`s or `Secret`s of a namespace."""
    return core(namespace, _CONTENT[kind])


def content(kind: str, namespace: str, name: str) -> str:
    """One `ConfigMap` or `Secret`."""
    return _named(contents(kind, namespace), name)


def configmaps(namespace: str) -> str:
    """The ConfigMaps of a namespace; of all namespaces when it is empty."""
    return core(namespace, "configmaps") if namespace else "/api/v1/configmaps"


def configmap(namespace: str, name: str) -> str:
    """One ConfigMap."""
    return _named(configmaps(namespace), name)


def secrets(namespace: str) -> str:
    """The Secrets of a namespace."""
    return core(namespace, "secrets")


def secret(namespace: str, name: str) -> str:
    """One Secret."""
    return _named(secrets(namespace), name)


def autoscalers(namespace: str) -> str:
    """The HorizontalPodAutoscalers of a namespace."""
    return grouped("autoscaling/v2", namespace, "horizontalpodautoscalers")
