"""What the tests deploy: the shop as a Deployment, StatefulSet or DaemonSet, with a Service before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster.images import SHOP

CONFIG_FILE = "shop.conf"


def shop_container(
    image: str, env: Mapping[str, object], *, config: bool = False, limits: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The shop's container; with `config` it reads the mounted file."""
    named: list[dict[str, Any]] = [{"name": key, "value": str(value)} for key, value in env.items()]
    container: dict[str, Any] = {
        "name": "shop",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5},
        "env": named,
    }
    if config:
        named.append({"name": "CONFIG", "value": f"/etc/shop/{CONFIG_FILE}"})
        container["volumeMounts"] = [{"name": "config", "mountPath": "/etc/shop"}]
    if limits:
        container["resources"] = {"limits": dict(limits)}
    return container


def workload(kind: str, name: str, container: dict[str, Any], *, replicas: int = 1, config: str = "", **spec: Any) -> dict[str, Any]:
    """A workload of one container; `config` names the ConfigMap that is mounted, `spec` holds more fields of the workload's spec."""
    labels = {"app": name}
    pod: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 5}
    if config:
        pod["volumes"] = [{"name": "config", "configMap": {"name": config}}]
    whole = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}, **spec}
    if kind != "DaemonSet":
        whole["replicas"] = replicas
    if kind == "StatefulSet":
        whole["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": whole}


def shop(
    kind: str,
    name: str,
    *,
    replicas: int = 1,
    image: str = f"{SHOP}:1",
    env: Mapping[str, object] | None = None,
    config: str = "",
    limits: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """The shop as a workload."""
    container = shop_container(image, env or {}, config=bool(config), limits=limits)
    return workload(kind, name, container, replicas=replicas, config=config, **spec)


def service(name: str, port: int | str = "http") -> dict[str, Any]:
    """A Service at port 80 before the pods labelled app=name."""
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def configmap(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}


def lines(settings: Mapping[str, object] | Sequence[tuple[str, object]]) -> str:
    """The content of the shop's config file."""
    return "".join(f"{key}={value}\n" for key, value in dict(settings).items())
