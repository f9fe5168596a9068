"""What an API server says no with, as errors that a person can act on and a program can tell apart.

KubeError(WorldError)    .status .reason .api_message .uncertain
├── NotFound             404
├── AlreadyExists        409 on a create
├── Conflict             409: the object is no longer what it was read as
├── FailedPrecondition   422 without causes: a `test` of a JSON Patch failed, or the patch does not fit the object
├── Invalid              422 with causes: the server does not take such an object
├── Unauthorized         401
├── Forbidden            403: no rule allows it, or admission refused it
├── Gone                 410: the resourceVersion or the list token is too old
├── Throttled            429 .retry_after
└── Unreachable          no answer at all
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from deployguard.errors import WorldError
from deployguard.kube.paths import Place, place

_VERBS = {"GET": "read", "POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}
_MISSING = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_SHORT = 600


class KubeError(WorldError):
    """The API server, or the way to it, said no. `uncertain`: the request may have been carried out all the same."""

    def __init__(
        self, message: str, *, hint: str = "", status: int = 0, reason: str = "", api_message: str = "", uncertain: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason
        self.api_message = api_message
        self.uncertain = uncertain


class NotFound(KubeError):
    """There is no such object, or the server serves no such kind."""


class AlreadyExists(KubeError):
    """Something of that name is there already."""


class Conflict(KubeError):
    """The object has changed, or is another one, since it was read."""


class FailedPrecondition(KubeError):
    """A `test` of a JSON Patch did not hold; a patch that does not fit the object answers just the same."""


class Invalid(KubeError):
    """The server does not take such an object; `api_message` names the fields."""


class Unauthorized(KubeError):
    """The server does not know who we are."""


class Forbidden(KubeError):
    """No rule allows it, or a quota or an admission policy refused it."""


class Gone(KubeError):
    """The version asked for, or the rest of a list, is no longer kept: list anew."""


class Throttled(KubeError):
    """The server has too much to do. `retry_after`: the seconds it asks to wait; 0 when it does not say."""

    retry_after: float = 0.0


class Unreachable(KubeError):
    """No answer, or none that is HTTP."""


_CLASSES: dict[int, type[KubeError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 410: Gone, 429: Throttled}


def what(method: str, path: str) -> str:
    """The attempt in words: `patch deployments/web in shop`."""
    where = place(path)
    collection = where.resource and not where.name and not where.resource.startswith("/")
    verb = "list" if method == "GET" and collection else _VERBS.get(method, method)
    if where.sub == "proxy":
        verb = "reach"
    return f"{verb} {where.words}"


def refusal(method: str, path: str, status: int, body: bytes, *, retry_after: float = 0.0) -> KubeError:
    """The error for an answer with an HTTP status of 400 or more."""
    found = _status_object(body)
    reason = str(found.get("reason") or "")
    said = str(found.get("message") or body[:_SHORT].decode("utf-8", "replace")).strip()
    kind = _kind(method, status, reason, found)
    error = kind(
        f"could not {what(method, path)}: {_fact(kind, status, said)}",
        hint=_hint(kind, status, said, place(path)),
        status=status,
        reason=reason,
        api_message=said,
        # A gateway that gave up, or a server that did, may have passed the request on.
        uncertain=status in (500, 502, 503, 504) and method != "GET",
    )
    if isinstance(error, Throttled):
        error.retry_after = retry_after
    return error


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def is_status(body: bytes) -> bool:
    """Whether the answer is the API server's own, not that of something behind its proxy."""
    return body.startswith(b"{") and _status_object(body).get("status") == "Failure"


def _kind(method: str, status: int, reason: str, found: dict[str, Any]) -> type[KubeError]:
    if status == 409:
        return AlreadyExists if reason == "AlreadyExists" else Conflict
    if status == 422:
        details = found.get("details") or {}
        return FailedPrecondition if method == "PATCH" and not details.get("causes") else Invalid
    return _CLASSES.get(status, KubeError)


def _fact(kind: type[KubeError], status: int, said: str) -> str:
    if kind is Forbidden:
        return f"forbidden ({_without_prefix(said)})"
    if kind is Unauthorized:
        return "the API server does not accept these credentials (401)"
    if kind is FailedPrecondition:
        return "it is no longer what it was read as (a test of the patch failed)"
    if kind is Throttled:
        return "the API server has too much to do (429)"
    return f"{said or 'no reason given'} ({status})"


def _without_prefix(said: str) -> str:
    """`deployments.apps "web" is forbidden: ` says nothing that the message has not said already."""
    return said.partition(" is forbidden: ")[2] or said


def _hint(kind: type[KubeError], status: int, said: str, where: Place) -> str:
    if kind is Forbidden:
        return _forbidden(said)
    if kind is NotFound and not where.name:
        return "this API server does not serve that kind, or the namespace does not exist"
    if kind is NotFound:
        return f"look with `kubectl get {where.resource}" + (f" -n {where.namespace}`" if where.namespace else "`")
    if kind is Throttled:
        return "wait a little; if it goes on, other clients of this cluster ask too much"
    if kind in (Conflict, FailedPrecondition):
        return "somebody else wrote to it: read it again and decide anew"
    if status >= 500:
        return "the API server, or what stands before it, has trouble; trying again may help"
    return ""


def _forbidden(said: str) -> str:
    missing = _MISSING.search(said)
    if not missing:
        return "not a missing right: a quota or an admission policy of the cluster refused it; its message says which"
    if missing["user"] == "system:anonymous":
        return "no credentials reached the API server: the user of this context has none, or has a token or certificate of another cluster"
    scope = f"in namespace {missing['namespace']}" if missing["namespace"] else "in the whole cluster"
    return (
        f'the missing rule: apiGroups: ["{missing["group"]}"], resources: ["{missing["resource"]}"], verbs: ["{missing["verb"]}"] '
        f"for {missing['user']} {scope}; `deployguard install --ci` prints every rule that is needed"
    )
