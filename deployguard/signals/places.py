"""Addresses of instances and listeners: `host:port`, a URL, or something that is reached through the API server.

`kube://namespace/pod:port` is a pod, and `kube-service://namespace/service:port` a service, each behind the API server's proxy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from deployguard.kube.paths import pod_proxy, service_proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployguard.kube.transport import Fetched

_BEHIND = re.compile(r"(?P<kind>kube|kube-service)://(?P<namespace>[^/:]+)/(?P<name>[^/:]+):(?P<port>[^/:?]+)(?P<path>/.*)?")
_PORTED = re.compile(r".*:\d+")


class Proxy(Protocol):
    """An API server, as far as the things behind its proxy are concerned; `deployguard.kube.client.Kube` is one."""

    def fetch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        limit: int | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Fetched:
        """What came back. Raises `KubeError` when it is the API server itself that says no."""
        ...


def page_of(address: str, path: str, port: int | None = None) -> str:
    """The URL of `path` at an address, on `port` where one is given; empty when no port is known."""
    base = (address if "://" in address else f"http://{address}").rstrip("/") if address else ""
    ported = bool(_PORTED.fullmatch(base.partition("://")[2]))
    if port is not None and base:
        return f"{base.rpartition(':')[0] if ported else base}:{port}{path}"
    return base + path if ported else ""


def behind(url: str) -> str:
    """The path on the API server by which a `kube://` or `kube-service://` URL is reached; empty for any other URL."""
    found = _BEHIND.fullmatch(url)
    if not found:
        return ""
    proxied = pod_proxy if found["kind"] == "kube" else service_proxy
    return proxied(found["namespace"], found["name"], found["port"], found["path"] or "/")
