"""Metrics pages of pods, read through the API server: many at once, on few threads and kept connections."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Collection

from deployguard import clock
from deployguard.kube.errors import Forbidden, KubeError, NotFound, Unreachable
from deployguard.signals.fetch import ACCEPT, PAGE_LIMIT, Failure, Page, too_large
from deployguard.signals.places import Proxy, behind

THREADS = 32
"""More pages are read one after the other: the API server answers each in a few milliseconds."""
Pending = dict[str, "cf.Future[Page | Failure]"]


class Proxied:
    """A client for pages behind the API server's proxy. Safe for threads."""

    def __init__(self, proxy: Proxy | None, timeout: float, limit: int = PAGE_LIMIT) -> None:
        self._proxy, self._timeout, self._limit = proxy, timeout, limit
        self._pool: cf.ThreadPoolExecutor | None = None

    def begin(self, urls: Collection[str], protobuf: Collection[str] = ()) -> Pending:
        """The pages have been asked for; those in `protobuf` with that format first."""
        if not urls:
            return {}
        if self._pool is None:
            self._pool = cf.ThreadPoolExecutor(THREADS, thread_name_prefix="proxied")
        deadline = clock.monotonic() + self._timeout
        return {url: self._pool.submit(self._page, url, url in protobuf, deadline) for url in urls}

    def end(self, pending: Pending) -> dict[str, Page | Failure]:
        """A page or a failure for each, when all are there or the time is over."""
        done, late = cf.wait(pending.values(), timeout=self._timeout)
        for future in late:
            future.cancel()
        silent = Failure("timeout", f"no whole answer through the API server within {self._timeout:g} s")
        return {url: future.result() if future in done else silent for url, future in pending.items()}

    def close(self) -> None:
        """End the threads; those that still wait end by their timeouts."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _page(self, url: str, protobuf: bool, deadline: float) -> Page | Failure:
        if self._proxy is None:
            return Failure("error", f"`{url}` is behind an API server, and none is at hand")
        left = deadline - clock.monotonic()
        if left <= 0:
            return Failure("timeout", "the API server was too slow for all pods to be asked in time")
        headers = {"Accept": ACCEPT[protobuf], "Accept-Encoding": "gzip"}
        try:
            found = self._proxy.fetch(behind(url), headers=headers, timeout=left, limit=self._limit)
        except KubeError as error:
            return failure_of(error)
        if found.status != 200:
            return Failure("error", f"the metrics page answered {found.status}")
        if not found.complete:
            return too_large(self._limit)
        return Page(found.body, found.headers.get("Content-Type", ""))


def failure_of(error: KubeError) -> Failure:
    """Why nothing came through the API server."""
    said = error.api_message or error.message
    if isinstance(error, Forbidden):
        return Failure("error", f"{error.message}; {error.hint}" if error.hint else error.message)
    if isinstance(error, NotFound):
        return Failure("error", f"the API server knows no such pod ({said})")
    if "timed out" in said or "timeout" in said or "deadline exceeded" in said:
        where = "the API server did not answer in time" if isinstance(error, Unreachable) else "the pod did not answer the API server"
        return Failure("timeout", where)
    if "connection refused" in said and not isinstance(error, Unreachable):
        return Failure("refused", "the pod refused the API server's connection")
    return Failure("error", error.message)
