"""Doors on this machine to pods and services behind the API server, so that the prober stays an ordinary user with an ordinary client.

Each `kube://` or `kube-service://` address has a port of its own on the loopback. What the API server's proxy changes on the way is
changed back: its prefix in redirects and in the links of pages. Trouble with the API server itself is marked, as it says nothing about
the service: such a walk is neither red nor green.
"""

from __future__ import annotations

import concurrent.futures as cf
import logging
import os
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployguard.kube.errors import KubeError, Unreachable
from deployguard.signals.places import Proxy, behind

if TYPE_CHECKING:
    from deployguard.kube.transport import Fetched

LIMIT = 16 * 1024 * 1024
_HOPS = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"}
_OURS = {"authorization", "accept-encoding", "content-length"}
"""What is not passed on to the API server: with an Authorization of the journey's it would take us for somebody else."""
_LOOKS_AFTER = 0.75
_LOOKS_FOR = 0.2
_log = logging.getLogger(__name__)


class Forwarder:
    """The doors that are open. Safe for threads."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.patience = 5.0
        """Seconds that a user waits for one answer."""
        self.askers = cf.ThreadPoolExecutor(32, thread_name_prefix="forward")
        self._doors: dict[str, _Door] = {}
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def open(self, addresses: Iterable[str]) -> dict[str, str]:
        """From now on exactly these addresses have doors; the URL of each."""
        wanted = set(addresses)
        with self._lock:
            closed = [self._doors.pop(address) for address in self._doors.keys() - wanted]
            for address in wanted - self._doors.keys():
                self._doors[address] = _Door(self, address)
            found = {address: door.url for address, door in self._doors.items()}
        for door in closed:  # which takes a moment that nobody should wait for
            threading.Thread(target=door.close, name="close door", daemon=True).start()
        return found

    def close(self) -> None:
        """No door is open."""
        self.open(())
        self.askers.shutdown(wait=False, cancel_futures=True)

    def tell(self, trouble: str) -> None:
        """Each trouble with the API server is logged once."""
        with self._lock:
            known = trouble in self._told
            self._told.add(trouble)
        if not known:
            _log.warning("probes cannot be walked: %s", trouble)

    def alive(self) -> bool:
        """Whether the API server answers at all, asked when something behind it is silent."""
        try:
            self.proxy.fetch("/version", timeout=_LOOKS_FOR * self.patience)
        except Unreachable:
            return False
        except KubeError:
            return True
        return True


class _Door:
    """One address on a port of the loopback."""

    def __init__(self, forwarder: Forwarder, address: str) -> None:
        self.forwarder = forwarder
        self.prefix = behind(address).rstrip("/")
        self._server = _Server(self)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.5,), name=f"door {address}", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Fetched | KubeError | None:
        """What came of a request; None when the API server itself says nothing."""
        forwarder = self.forwarder
        job = forwarder.askers.submit(self._fetch, method, path, headers, body, forwarder.patience)
        done, _ = cf.wait([job], timeout=_LOOKS_AFTER * forwarder.patience)
        if not done and not forwarder.alive():
            return None
        return job.result()

    def _fetch(self, method: str, path: str, headers: dict[str, str], body: bytes, timeout: float) -> Fetched | KubeError:
        try:
            return self.forwarder.proxy.fetch(
                self.prefix + path, method=method, headers=headers, body=body or None, timeout=timeout, limit=LIMIT
            )
        except KubeError as error:
            return error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, door: _Door) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.door = door

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002
        """Only this user comes in: the doors are opened with his rights."""
        return _same_user(client_address, self.server_port)

    def handle_error(self, request: object, client_address: object) -> None:
        """A prober that gave up leaves a broken connection: nothing to report."""


def _same_user(peer: object, port: int) -> bool:
    """Whether the other end of a connection belongs to our own user; where the system does not say, it is believed."""
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return True
    there = peer[1] if isinstance(peer, tuple) else 0
    rows = (line.split() for line in lines)
    owners = {int(row[7]) for row in rows if int(row[1].rpartition(":")[2], 16) == there and int(row[2].rpartition(":")[2], 16) == port}
    return owners <= {os.getuid()}


class _Handler(BaseHTTPRequestHandler):
    """A request of the prober's, on its way to the API server."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "Authorization" in self.headers:
            return self._nothing("an API server's proxy does not pass on the header Authorization")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOPS | _OURS}
        found = self.server.door.ask(self.command, self.path, {**headers, "Accept-Encoding": "identity"}, body)
        if found is None:
            return self._nothing("the API server does not answer")
        if isinstance(found, KubeError):
            return self._trouble(found)
        return self._answer(found)

    do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self, found: Fetched) -> None:
        body, html = found.body, found.headers.get("Content-Type", "").partition(";")[0].strip() == "text/html"
        if html:
            body = body.replace(self.server.door.prefix.encode(), b"")
        self.send_response(found.status)
        for name, value in found.headers.items():
            if name.lower() not in _HOPS | _OURS:
                self.send_header(name, _unprefixed(value, self.server.door.prefix) if name.lower() == "location" else value)
        self._end(body)

    def _trouble(self, error: KubeError) -> None:
        """A pod that does not take the connection or stays silent is the service's trouble; all else is the API server's."""
        if "error trying to reach service" in error.api_message:
            self.send_response(502)
            return self._end(error.api_message.encode())
        if isinstance(error, Unreachable) and "timed out" in error.message:
            self.send_response(504)
            return self._end(b"")
        return self._nothing(error.message)

    def _nothing(self, why: str) -> None:
        self.server.door.forwarder.tell(why)
        self.send_response(503)
        self.send_header("X-Deployguard", "no-instance")
        self._end(why.encode())

    def _end(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_response(self, code: int, message: str | None = None) -> None:
        self.send_response_only(code, message)  # Server and Date are those of whom is behind the door

    def log_message(self, *args: object) -> None:
        """Nothing is logged for each request."""


def _unprefixed(location: str, prefix: str) -> str:
    """A redirect as the service wrote it: the API server puts its own path before it."""
    parts = urlsplit(location)
    if parts.path != prefix and not parts.path.startswith(f"{prefix}/"):
        return location
    return parts._replace(scheme="", netloc="", path=parts.path[len(prefix) :] or "/").geturl()
