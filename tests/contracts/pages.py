"""Metrics pages served by real HTTP servers, and checks that read them."""

from __future__ import annotations

import bisect
import datetime as dt
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from deployguard.model.check import ScrapeCheck
from deployguard.model.reading import Answer, Buckets
from deployguard.model.target import CANDIDATE, STABLE, Instance
from deployguard.model.version import Version
from deployguard.signals.scrape import ScrapePool, ScrapeSource

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
VERSION = Version(release="sha256:aa")
TEXT = "text/plain; version=0.0.4"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


class Servers:
    """Instances, each with a page, which may be one for each format."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.accepted: list[str] = []
        self.binary: list[tuple[str, bool]] = []
        self._servers: list[ThreadingHTTPServer] = []

    def add(self, page: bytes | CollectorRegistry, protobuf: bytes = b"", kind: str = TEXT) -> Instance:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                accept = self.headers["Accept"]
                outer.accepted.append(accept)
                outer.binary.append((self.path, "protobuf" in accept))
                body, said = page, kind
                if isinstance(page, CollectorRegistry):
                    encode, said = choose_encoder(accept)
                    body = encode(page)
                elif protobuf and "google.protobuf" in accept:
                    body, said = protobuf, PROTOBUF
                self.send_response(200)
                self.send_header("Content-Type", said)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer((self._host, 0), Handler)
        server.daemon_threads = True
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        uid = f"u{len(self._servers)}"
        address = f"127.0.0.1:{server.server_port}"
        return Instance(f"id-{uid}", uid, VERSION, VERSION, True, started=NOW, address=address)

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


def check(**fields: Any) -> ScrapeCheck:
    return ScrapeCheck.model_validate({"name": "a", **fields})


def read(pool: ScrapePool, asked: ScrapeCheck, *instances: Instance) -> Answer:
    """What is read of stable for a check on slow requests, as its bounds decide, and of the candidate otherwise."""
    return ScrapeSource(asked, pool).read(STABLE if asked.within else CANDIDATE, instances, None, NOW)


def buckets(pool: ScrapePool, histogram: str, *instances: Instance) -> Buckets:
    answer = read(pool, check(histogram=histogram), *instances)
    assert isinstance(answer, Buckets), answer
    return answer


def counted(values: Sequence[float], edges: Sequence[float]) -> tuple[float, ...]:
    """How many of `values` lie above the edge before and up to each edge, and above the last."""
    counts = [0.0] * (len(edges) + 1)
    for value in values:
        counts[bisect.bisect_left(edges, value)] += 1
    return tuple(counts)
