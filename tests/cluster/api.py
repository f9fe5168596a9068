"""The API server as the tests ask it: raw answers with their status, whatever deployguard's own client makes of them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PATIENCE = 90.0
T = TypeVar("T")
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    body: dict[str, Any]


class Api:
    """One API server, asked without repetition and without judgement. Safe for threads."""

    def __init__(self, kubeconfig: Path) -> None:
        import urllib3
        from kubernetes import config
        from kubernetes.client.configuration import Configuration

        settings: Any = Configuration()
        load: Any = config.load_kube_config
        load(config_file=str(kubeconfig), client_configuration=settings)
        self.server: str = settings.host
        self._token: str | None = settings.get_api_key_with_prefix("authorization")
        self._pool = urllib3.PoolManager(
            maxsize=8, ca_certs=settings.ssl_ca_cert, cert_file=settings.cert_file, key_file=settings.key_file, retries=False, timeout=30.0
        )

    def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Answer:
        """One request; its answer, refused or not."""
        headers = {"Content-Type": kind, "Accept": "application/json"} | ({"Authorization": self._token} if self._token else {})
        data = None if body is None else json.dumps(body)
        said = self._pool.request(method, self.server + path, body=data, headers=headers)
        try:
            found = json.loads(said.data or b"{}")
        except ValueError:
            found = {"text": said.data.decode(errors="replace")}
        return Answer(said.status, found)

    def get(self, path: str) -> dict[str, Any]:
        """The object. Fails when it is not there."""
        return self._must("GET", path)

    def create(self, path: str, body: object) -> dict[str, Any]:
        """The object as created."""
        return self._must("POST", path, body)

    def merge(self, path: str, body: object) -> dict[str, Any]:
        """The object after a merge patch."""
        return self._must("PATCH", path, body, MERGE_PATCH)

    def patch(self, path: str, operations: object) -> Answer:
        """What the server says to a JSON Patch."""
        return self.ask("PATCH", path, operations, JSON_PATCH)

    def delete(self, path: str, propagation: str = "Background") -> None:
        """The object is deleted, or is not there."""
        said = self.ask("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation})
        assert said.status in (200, 202, 404), said

    def items(self, path: str) -> list[dict[str, Any]]:
        """The items of a collection."""
        found: list[dict[str, Any]] = self.get(path)["items"]
        return found

    def _must(self, method: str, path: str, body: object = None, kind: str = "application/json") -> dict[str, Any]:
        said = self.ask(method, path, body, kind)
        assert said.status < 300, f"{method} {path}: {said.status} {said.body.get('message', said.body)}"
        return said.body


def until(what: str, ready: Callable[[], T], patience: float = PATIENCE) -> T:
    """The first answer of `ready` that is true. Fails when it stays untrue for too long, however busy the machine is."""
    deadline = time.monotonic() + patience
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what} did not come true in {patience:.0f} s"
        time.sleep(0.1)
    return found


@contextmanager
def fresh_namespace(api: Api) -> Iterator[str]:
    """A namespace of one's own, ready for pods; it goes afterwards, unwaited."""
    name = f"dgt-{secrets.token_hex(4)}"
    path = f"/api/v1/namespaces/{name}"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        until("the default service account", lambda: api.ask("GET", f"{path}/serviceaccounts/default").status == 200)
        yield name
    finally:
        api.delete(path)
