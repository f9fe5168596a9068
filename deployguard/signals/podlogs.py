"""The logs of pods, through the API server: one request for each pod and poll, and every line once.

The API gives lines from a whole second on. So each answer begins with lines that were read before, the last of which is found again: when
it is not there, the log was rotated meanwhile, and nobody knows what was lost with it.
"""

from __future__ import annotations

import concurrent.futures as cf
import datetime as dt
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from deployguard.kube.errors import Forbidden, KubeError
from deployguard.kube.paths import pod_log
from deployguard.model.target import Instance
from deployguard.signals.fetch import Failure
from deployguard.signals.logs import Piece
from deployguard.signals.places import Proxy

THREADS = 8
FIRST_LIMIT = 4 * 1024 * 1024
LAST_LIMIT = 64 * 1024 * 1024
"""Bytes of one answer: more only where a single second of a log is longer than the first limit."""
_SECOND = dt.timedelta(seconds=1)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")
Key = tuple[dt.datetime, int]
"""A second, and the nanoseconds in it."""


@dataclass(slots=True)
class Place:
    """How far the log of one container has been read: through the first `seen` lines of the instant `at`."""

    pod: str
    at: Key
    seen: int = 0
    limit: int = FIRST_LIMIT


class PodLogs:
    """The logs of the pods of one namespace; of `container`, where pods have several."""

    def __init__(self, proxy: Proxy, namespace: str, container: str | None = None, timeout: float = 4.0) -> None:
        self._proxy, self._namespace, self._container, self._timeout = proxy, namespace, container, timeout
        self._pool: cf.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def follow(self, instance: Instance, since: dt.datetime) -> Place:
        whole = since.replace(microsecond=0)
        return Place(instance.id, (whole, since.microsecond * 1000))

    def pieces(self, places: Mapping[str, Place]) -> dict[str, Piece | Failure]:
        if not places:
            return {}
        with self._lock:
            if self._pool is None:
                self._pool = cf.ThreadPoolExecutor(THREADS, thread_name_prefix="podlogs")
            jobs = {uid: self._pool.submit(self._ask, place.pod, place.at[0], place.limit) for uid, place in places.items()}
        done, late = cf.wait(jobs.values(), timeout=self._timeout)
        for job in late:
            job.cancel()
        silent = Failure("timeout", f"no whole answer of the API server within {self._timeout:g} s")
        answers = {uid: job.result() if job in done else silent for uid, job in jobs.items()}
        # Places move on here alone, so that nothing of an answer that came too late is taken for read.
        return {uid: said if isinstance(said, Failure) else advance(places[uid], said) for uid, said in answers.items()}

    def close(self) -> None:
        """End the threads; those that still wait end by their timeouts."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, pod: str, since: dt.datetime, limit: int) -> bytes | Failure:
        params = {"timestamps": "true", "sinceTime": f"{since:%Y-%m-%dT%H:%M:%SZ}", "limitBytes": str(limit)}
        if self._container is not None:
            params["container"] = self._container
        try:
            found = self._proxy.fetch(pod_log(self._namespace, pod), params, timeout=self._timeout)
        except KubeError as error:
            return _failure(error)
        if found.status != 200:
            return Failure("error", f"the API server answered {found.status} instead of the log of {pod}")
        return found.body


def advance(place: Place, body: bytes) -> Piece | Failure:
    """What is new in an answer, and the place behind it."""
    cut = len(body) >= place.limit
    if cut:
        body = body[: body.rfind(b"\n") + 1]
    lines = []
    for line in body.decode(errors="replace").split("\n"):
        if not line:
            continue
        key = _key(line)
        if key is None:
            # The kubelet puts its own troubles where the log should be.
            return Failure("error", f"the log of {place.pod} cannot be read: {line[:200]}")
        lines.append((key, line))
    here = sum(key == place.at for key, _ in lines)
    short = cut and (not lines or lines[-1][0] <= place.at)
    lost = f"the log of {place.pod} was rotated before it was read to its end" if here < place.seen and not short else ""
    new = [(key, line) for key, line in lines if key > place.at] if here <= place.seen else _beyond(lines, place)
    if new:
        last = new[-1][0]
        place.seen = sum(key == last for key, _ in lines)
        place.at, place.limit = last, FIRST_LIMIT
    elif lost:
        place.seen = 0  # what was seen last is gone, and will not be found again
    elif short and place.limit < LAST_LIMIT:
        place.limit = min(4 * place.limit, LAST_LIMIT)
    elif short:
        place.at, place.seen, place.limit = (place.at[0] + _SECOND, 0), 0, FIRST_LIMIT
        lost = f"{place.pod} logs more in a second than can be read"
    return Piece(tuple(_text(line) for _, line in new), lost)


def _beyond(lines: list[tuple[Key, str]], place: Place) -> list[tuple[Key, str]]:
    """The lines after the first `seen` ones of the place's own instant."""
    passed, found = 0, []
    for key, line in lines:
        if key == place.at:
            passed += 1
        if key > place.at or (key == place.at and passed > place.seen):
            found.append((key, line))
    return found


def _key(line: str) -> Key | None:
    stamp = _STAMP.match(line)
    if not stamp:
        return None
    second = dt.datetime.fromisoformat(stamp[1] + ("+00:00" if stamp[3] == "Z" else stamp[3])).astimezone(dt.UTC)
    return second, int((stamp[2] or "").ljust(9, "0"))


def _text(line: str) -> str:
    stamp = _STAMP.match(line)
    return line[stamp.end() :] if stamp else line


def _failure(error: KubeError) -> Failure:
    if isinstance(error, Forbidden):
        return Failure("error", f"{error.message}; {error.hint}" if error.hint else error.message)
    if "container name must be specified" in error.api_message:
        return Failure("error", f"{error.api_message}; name it with `container`")
    return Failure("timeout" if "timed out" in error.message else "error", error.message)
