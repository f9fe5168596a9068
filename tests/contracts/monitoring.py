"""A real Prometheus that scrapes pages which a test writes, and a gateway before it that asks for headers."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

WAIT = 60.0
PROMETHEUS = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None,
    reason="SKIPPED LOUDLY: no `prometheus` on the path, so nothing was tried against a real one (Debian: apt install prometheus)",
)


def until(ask: Callable[[], Any]) -> Any:
    """The first true answer; the test fails when none comes."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError("it did not come about in time")


class Pages:
    """Metrics pages by path; a page that is None answers 500."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes | None] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = outer.texts.get(self.path.lstrip("/"))
                self.send_response(500 if text is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(text or b"")

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Prometheus:
    """A Prometheus process that scrapes each second."""

    def __init__(
        self,
        home: Path,
        pages: Pages | None = None,
        targets: Mapping[str, dict[str, str]] | None = None,
        web: dict[str, Any] | None = None,
        **scrape: Any,
    ) -> None:
        """It scrapes `targets` of `pages`, and what a further scrape configuration says."""
        assert PROMETHEUS is not None
        home.mkdir(parents=True, exist_ok=True)
        scraped = [
            {"targets": [pages.address], "labels": {"__metrics_path__": f"/{path}", **labels}}
            for path, labels in (targets or {}).items()
            if pages is not None
        ]
        jobs = [{"job_name": "shop", "static_configs": scraped, **scrape}]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
        (home / "prometheus.yml").write_text(json.dumps(config))
        (home / "web.yml").write_text(json.dumps(web or {}))
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.url = f"{'https' if web and 'tls_server_config' in web else 'http'}://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={home / 'prometheus.yml'}",
                f"--web.config.file={home / 'web.yml'}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=(home / "log").open("wb"),
        )
        until(self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None, "prometheus ended by itself"
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self.process.kill()
        self.process.wait()


class Gateway:
    """Stands before a Prometheus and lets only requests with the right headers through; without POST if so told."""

    def __init__(self, port: int, wanted: Mapping[str, str], *, posts: bool = True) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.command)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command == "POST" and not posts:
                    return self.say(405, b"")
                if any(self.headers.get(name) != value for name, value in wanted.items()):
                    return self.say(401, b"who are you?")
                connection = http.client.HTTPConnection("127.0.0.1", port)
                kind = {"Content-Type": self.headers["Content-Type"]} if body else {}
                connection.request(self.command, self.path, body, kind)
                response = connection.getresponse()
                self.say(response.status, response.read())
                return connection.close()

            do_POST = do_GET

            def say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
