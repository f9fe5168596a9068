"""Requests of people to a guard in a cluster: one ConfigMap with a key per request, apart from the document.

Putting and removing are merge patches of single keys, so that asking never meets the driver's save, nor another person's request.
"""

from __future__ import annotations

import hashlib
import logging
import re

from deployguard.errors import ForeignState
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import AlreadyExists, KubeError, NotFound
from deployguard.model.base import decode, encode
from deployguard.model.document import Request
from deployguard.stores.inbox import oldest_first
from deployguard.stores.kube_objects import Looks, Object, new, object_name

log = logging.getLogger(__name__)
_PLAIN = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]{0,200}")
_TRIES = 3


def _key(request: str) -> str:
    """The key of a request; its id where that can be one."""
    return request if _PLAIN.fullmatch(request) else "id-" + hashlib.sha256(request.encode()).hexdigest()[:40]


class KubeInbox:
    """The inbox of one guard. `owner` is the workload with which it goes, as an owner reference."""

    def __init__(self, kube: Kube, namespace: str, guard: str, *, owner: Object | None = None, looks: Looks | None = None) -> None:
        self.guard = guard
        self._kube = kube
        self._namespace = namespace
        self._owner = owner
        self._name = object_name(guard, "inbox")
        self._path = paths.configmap(namespace, self._name)
        self._looks = looks or Looks(kube, namespace, guard)
        self._reported: set[str] = set()

    def put(self, request: Request) -> None:
        """The request is in the cluster; putting the same id twice leaves one."""
        data = {_key(request.id): encode(request).decode()}
        for left in reversed(range(_TRIES)):
            try:
                self._write(data)
                break
            except KubeError as error:
                # The same key and value again: that an answer was lost changes nothing.
                if not left or not (error.uncertain or isinstance(error, (AlreadyExists, NotFound))):
                    raise
        self._looks.forget()

    def _write(self, data: dict[str, str]) -> None:
        try:
            self._kube.merge(self._path, {"data": data})
        except NotFound:
            self._kube.create(paths.configmaps(self._namespace), new(self._name, self.guard, "inbox", self._owner) | {"data": data})

    def pending(self) -> tuple[Request, ...]:
        """Requests not yet removed, oldest first. Keys that hold none are reported once and left where they are."""
        found = self._looks.inbox()
        data = (found or {}).get("data") or {}
        read = (self._read(key, text) for key, text in data.items())
        return tuple(sorted((request for request in read if request is not None), key=oldest_first))

    def remove(self, ids: tuple[str, ...]) -> None:
        """Those requests are gone; unknown ids are harmless."""
        if not ids:
            return
        try:
            self._kube.merge(self._path, {"data": {_key(each): None for each in ids}})
        except NotFound:
            return
        self._looks.forget()

    def _read(self, key: str, text: str) -> Request | None:
        try:
            request = decode(text.encode(), Request)
        except ForeignState as error:
            self._report(key, error.message)
            return None
        if _key(request.id) != key:
            # Consumed by its id, it would never be removed by its key, and would come again at every tick.
            self._report(key, f"it holds request {request.id!r}, which belongs under a key of that name")
            return None
        return request

    def _report(self, key: str, fact: str) -> None:
        if key not in self._reported:
            self._reported.add(key)
            log.warning("left out the request %s of ConfigMap %s in %s: %s", key, self._name, self._namespace, fact)
