"""What is measured of a guarded Deployment: when things happened, and what was written to the API server."""

from __future__ import annotations

import datetime as dt
import json
import re
import statistics
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import urllib3

from tests.e2e.kube.shop import CANARY, Shop
from tests.e2e.world import instant

LOGGED = re.compile(r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}) ERROR told to crash")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
KEPT_HEADERS = ("Accept", "Content-Type", "Authorization", "User-Agent")


@dataclass(frozen=True)
class Written:
    """One write: when it was asked for and answered (epoch seconds), and what it was about."""

    asked: float
    answered: float
    verb: str
    path: str
    status: int

    @property
    def words(self) -> str:
        """As `PATCH deployments/web`."""
        return f"{self.verb} {'/'.join(self.path.partition('?')[0].split('/')[-2:])}"

    @property
    def counts(self) -> bool:
        """Events and the ledger's entries are a record of the way back, not a part of it."""
        return "/events" not in self.path and "-ledger-" not in self.path


@dataclass
class Doorkeeper:
    """An API server behind a door where writes are noted; everybody is the one whose kubeconfig was given."""

    kubeconfig: Path
    writes: list[Written] = field(default_factory=list)
    reads: list[Written] = field(default_factory=list)

    def between(self, since: float, until: float) -> list[Written]:
        """The writes that count, asked for in a stretch of time."""
        return [one for one in sorted(self.writes, key=lambda one: one.asked) if since <= one.asked <= until and one.counts]


@contextmanager
def doorkeeper(kubeconfig: Path, folder: Path) -> Iterator[Doorkeeper]:
    """A door before the API server of a kubeconfig, with a kubeconfig of its own."""
    from tests.cluster.api import Api

    api = Api(kubeconfig)
    keeper = Doorkeeper(folder / "door.kubeconfig")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api, keeper))
    server.daemon_threads = True
    keeper.kubeconfig.write_text(_config(f"http://127.0.0.1:{server.server_port}"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield keeper
    finally:
        server.shutdown()
        server.server_close()


def _config(address: str) -> str:
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "door", "cluster": {"server": address}}],
        "users": [{"name": "door", "user": {}}],
        "contexts": [{"name": "door", "context": {"cluster": "door", "user": "door"}}],
        "current-context": "door",
    }
    return json.dumps(whole)


def _handler(api: Any, keeper: Doorkeeper) -> type[BaseHTTPRequestHandler]:
    pool: urllib3.PoolManager = api._pool

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536

        def do_GET(self) -> None:
            asked = time.time()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: self.headers[name] for name in KEPT_HEADERS if self.headers.get(name)}
            said = pool.request(self.command, api.server + self.path, body=body or None, headers=headers)
            kept = keeper.writes if self.command in WRITES else keeper.reads
            kept.append(Written(asked, time.time(), self.command, self.path, said.status))
            self.send_response(said.status)
            for name in ("Content-Type", "Retry-After"):
                if said.headers.get(name):
                    self.send_header(name, said.headers[name])
            self.send_header("Content-Length", str(len(said.data)))
            self.end_headers()
            self.wfile.write(said.data)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """It keeps quiet."""

    return Door


@dataclass(frozen=True)
class WayBack:
    """One bad release: seconds, counted from the first bad sign (None where nothing says when it was), and the writes on the way back."""

    decided: float | None
    last_bad: float | None
    stopped: float | None
    failed: int
    writes: tuple[str, ...]
    """Until the canary's deletion is answered: what follows is the cluster's work."""


def crash_at_start(shop: Shop, keeper: Doorkeeper, number: int) -> WayBack:
    """A release that ends at once: from its first exit, by the clock of its own log."""
    with _told_to_stop(shop) as told:
        done = shop.run("--set", "env.CRASH_AT_START=1", "--set", f"env.TRY={number}")
    assert done.code == 10, done.err
    decided = instant(done.data["decided"]).timestamp()
    writes = _writes(keeper, decided)
    logged = LOGGED.search(done.data["reason"])  # a node may have lost the log of a container that was started again meanwhile
    if logged is None:
        return WayBack(None, None, None, 0, writes)
    exited = dt.datetime.strptime(logged[1], "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=dt.UTC).timestamp()
    return WayBack(decided - exited, None, told[0] - exited, 0, writes)


def errors(shop: Shop, keeper: Doorkeeper, number: int) -> WayBack:
    """A release that fails a fifth of the requests: from the first bad response that a user got to the last one."""
    began = time.time()
    with _told_to_stop(shop) as told:
        done = shop.run("--set", "env.ERROR_RATE=0.2", "--set", f"env.TRY={number}")
    assert done.code == 10, done.err
    bad = [answer.at + answer.seconds for answer in shop.users.bad(began)]
    first, decided = min(bad), instant(done.data["decided"]).timestamp()
    return WayBack(decided - first, max(bad) - first, told[0] - first, len(bad), _writes(keeper, decided))


def _writes(keeper: Doorkeeper, since: float) -> tuple[str, ...]:
    deleted = max(one.answered for one in keeper.writes if one.verb == "DELETE" and "/deployments/" in one.path)
    return tuple(one.words for one in keeper.between(since, deleted))


@contextmanager
def _told_to_stop(shop: Shop) -> Iterator[list[float]]:
    """When the last pod of a canary was told to stop; known once nothing of it is left."""
    ended, seen, at = threading.Event(), set[str](), [0.0]

    def look() -> None:
        while not ended.wait(0.05):
            for pod in shop.api.items(f"{shop.core}/pods?labelSelector={CANARY}"):
                meta = pod["metadata"]
                if meta.get("deletionTimestamp") and meta["uid"] not in seen:
                    seen.add(meta["uid"])
                    at[0] = time.time()

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield at
        shop.nothing_left()
    finally:
        ended.set()
        watcher.join(10)
    assert at[0], "no pod of the canary was told to stop"


def median(values: Iterable[float | None]) -> str:
    """The median, the smallest and the largest of the seconds that are known."""
    known = [value for value in values if value is not None]
    if not known:
        return "not known of any run"
    return f"{statistics.median(known):.2f} s ({min(known):.2f} to {max(known):.2f}, {len(known)} runs)"
