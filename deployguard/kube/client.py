"""One API server, asked with raw JSON: the only way in which the rest of deployguard reaches a cluster."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from deployguard import clock
from deployguard.errors import Bug
from deployguard.kube import config
from deployguard.kube.errors import Gone, KubeError, Throttled, Unauthorized, Unreachable, is_status, refusal, what
from deployguard.kube.patches import MANAGER
from deployguard.kube.transport import Fetched, Transport

__all__ = ["Fetched", "Kube", "connect"]

if TYPE_CHECKING:
    import builtins

PAGE = 500
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_READ = "application/json"
_JSON = "application/json"
_PATCH = "application/json-patch+json"
_MERGE = "application/merge-patch+json"

Params = Mapping[str, str] | None


class Kube:
    """One API server. Safe for threads; every request ends within its timeout.

    Reads are repeated, within the timeout, when the server is busy (429, with the pause it asks for), in trouble (5xx) or
    not to be reached. Replacements and patches are repeated when the server was busy, and only then; creations and
    deletions never. Everything that is refused is a `KubeError`.
    """

    def __init__(self, transport: Transport, *, context: str, namespace: str, in_cluster: bool, timeout: float) -> None:
        self.server = transport.server
        self.context = context
        self.namespace = namespace
        self.in_cluster = in_cluster
        self.timeout = timeout
        self._transport = transport

    def get(self, path: str, params: Params = None, *, timeout: float | None = None) -> dict[str, Any]:
        """The object, or the list as one page. Raises `KubeError`."""
        return _decoded("GET", path, self._ask("GET", path, params, timeout=timeout))

    def list(self, path: str, params: Params = None) -> builtins.list[dict[str, Any]]:
        """All items of a collection, page by page; read anew from the start, once, when the server has forgotten the rest."""
        try:
            return [item for page in self._pages(path, params) for item in page]
        except Gone:
            return [item for page in self._pages(path, params) for item in page]

    def create(self, path: str, body: dict[str, Any], params: Params = None) -> dict[str, Any]:
        """The object is there, made by this call. Raises `AlreadyExists` when one of its name was there before."""
        return _decoded("POST", path, self._ask("POST", path, _managed(params), body=body))

    def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object is `body`, if it still has the resourceVersion that `body` names. Raises `Conflict` when it has not."""
        if body.get("metadata", {}).get("resourceVersion") in (None, "", "0"):
            # The server would take it for "whatever is there".
            raise Bug(f"a replacement of {path} was to be sent without the resourceVersion it was read at")
        return _decoded("PUT", path, self._ask("PUT", path, _managed(None), body=body))

    def patch(self, path: str, operations: Sequence[dict[str, Any]], params: Params = None) -> dict[str, Any]:
        """The JSON Patch was applied, whole. Raises `FailedPrecondition` when a `test` in it did not hold."""
        return _decoded("PATCH", path, self._ask("PATCH", path, _managed(params), body=list(operations), kind=_PATCH))

    def merge(self, path: str, body: dict[str, Any], params: Params = None) -> dict[str, Any]:
        """The fields that `body` names are as it says, whatever they were; null takes a field away."""
        return _decoded("PATCH", path, self._ask("PATCH", path, _managed(params), body=body, kind=_MERGE))

    def delete(
        self,
        path: str,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: str = "Background",
        grace: int | None = None,
        params: Params = None,
    ) -> None:
        """The object with this uid is marked for deletion, with what it owns. Raises `Conflict` when another one has its name now."""
        if not uid or propagation == "Orphan":
            # What loses its owner is taken over by whoever selects it.
            raise Bug(f"{path} was to be deleted without a uid, or to leave orphans")
        conditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": conditions,
            "propagationPolicy": propagation,
        }
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        self._ask("DELETE", path, params, body=body)

    def fetch(
        self,
        path: str,
        params: Params = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        limit: int | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Fetched:
        """What came back, whatever its status and form, asked once: pages of pods through the proxy, logs, texts.

        Raises `KubeError` when it is the API server itself that says no (also when it cannot reach the pod).
        """
        found = self._transport.send(
            method, _full(path, params), headers=headers or {}, body=body, timeout=timeout or self.timeout, limit=limit
        )
        if found.status >= 400 and is_status(found.body):
            raise self._refused(method, path, found)
        return found

    def close(self) -> None:
        """No connection is kept open."""
        self._transport.close()

    def _pages(self, path: str, params: Params) -> Iterator[builtins.list[dict[str, Any]]]:
        more = ""
        while True:
            page = self.get(path, dict(params or {}) | {"limit": str(PAGE)} | ({"continue": more} if more else {}))
            yield page.get("items") or []
            more = page.get("metadata", {}).get("continue", "")
            if not more:
                return

    def _ask(self, method: str, path: str, params: Params, *, body: Any = None, kind: str = _JSON, timeout: float | None = None) -> bytes:
        headers = {"Accept": _READ, "Accept-Encoding": "gzip"} if method == "GET" else {"Accept": _READ, "Content-Type": kind}
        data = None if body is None else msgspec.json.encode(body)
        seconds = timeout or self.timeout
        deadline = clock.monotonic() + seconds
        pause = _FIRST_PAUSE
        while True:
            left = max(1.0, deadline - clock.monotonic())
            try:
                found = self._transport.send(method, _full(path, params), headers=headers, body=data, timeout=min(seconds, left))
                if found.status < 400:
                    return found.body
                raise self._refused(method, path, found)
            except KubeError as error:
                wait = _wait(method, error, pause)
                if wait is None or clock.monotonic() + wait >= deadline:
                    raise
            clock.sleep(wait)
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def _refused(self, method: str, path: str, found: Fetched) -> KubeError:
        error = refusal(method, path, found.status, found.body, retry_after=_seconds(found.headers.get("Retry-After")))
        if isinstance(error, Unauthorized):
            error.hint = (
                f"the credentials of {self.context} come from {self._transport.credentials.source}; they expired or belong elsewhere"
            )
        return error


def _wait(method: str, error: KubeError, pause: float) -> float | None:
    """Seconds until the same request may be sent again; None when it may not."""
    jittered = pause * random.uniform(0.5, 1.5)  # noqa: S311 - so that clients that failed together do not come back together
    if isinstance(error, Throttled) and method in ("GET", "PUT", "PATCH"):
        return max(error.retry_after, jittered)
    if method == "GET" and (isinstance(error, Unreachable) or error.status in (500, 502, 503, 504)):
        return jittered
    return None


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def _full(path: str, params: Params) -> str:
    return f"{path}?{urlencode(params)}" if params else path


def _managed(params: Params) -> dict[str, str]:
    return {"fieldManager": MANAGER} | dict(params or {})


def _decoded(method: str, path: str, body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreachable(
            f"could not {what(method, path)}: the answer is not JSON", hint="is it an API server that answers there?"
        ) from error
    if not isinstance(found, dict):
        raise Unreachable(f"could not {what(method, path)}: the answer is not an object", hint="is it an API server that answers there?")
    return found


def connect(
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    as_user: str | None = None,
    as_groups: Sequence[str] = (),
    timeout: float = 5.0,
) -> Kube:
    """A way to the API server of a context, or of the pod we run in. Nothing has been asked yet.

    Raises `UserError` when no cluster is configured, or not the one that was asked for.
    """
    from deployguard.kube.connecting import way

    chosen = config.find(kubeconfig, context)
    return Kube(
        way(chosen, as_user, as_groups),
        context=chosen.name if chosen.in_cluster else f"context {chosen.name}",
        namespace=namespace or chosen.namespace or "default",
        in_cluster=chosen.in_cluster,
        timeout=timeout,
    )
