"""Bad weather between the command and the API server: a proxy that refuses, delays, drops and loses what it is told to."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from tests.contracts.kube.kubeconfigs import kubeconfig

Fate = Literal["", "throttle", "refuse", "drop", "lose", "hold"]
"""Nothing; 429; 503; closed before it is sent on; sent on, and closed without an answer; sent on only when the proxy lets it go."""
HOPS = ("connection", "transfer-encoding", "content-length", "keep-alive")


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    body: bytes

    @property
    def place(self) -> str:
        """Its path without what follows the question mark."""
        return self.path.partition("?")[0]

    @property
    def writes(self) -> bool:
        return self.method != "GET"


@dataclass
class Weather:
    """What happens to requests: `fate` decides about each. `done` counts what happened to how many, `held` waits for `release`."""

    fate: Callable[[Asked], Fate] = lambda _asked: ""
    done: Counter[str] = field(default_factory=Counter)
    held: list[Asked] = field(default_factory=list)
    landed: list[int] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    weather: Weather
    upstream: Any
    server_url: str
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked, weather = Asked(self.command, self.path, body), self.weather
        fate = weather.fate(asked)
        weather.done[fate] += 1
        match fate:
            case "throttle":
                self._say(429, "TooManyRequests", {"Retry-After": "1"})
            case "refuse":
                self._say(503, "ServiceUnavailable", {})
            case "drop":
                self.close_connection = True
            case "lose":
                self._forward(asked)
                self.close_connection = True
            case "hold":
                weather.held.append(asked)
                weather.release.wait(600)
                weather.landed.append(self._forward(asked).status)
                self.close_connection = True
            case _:
                found = self._forward(asked)
                self._answer(found.status, {k: v for k, v in found.headers.items() if k.lower() not in HOPS}, found.data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def _forward(self, asked: Asked) -> Any:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in (*HOPS, "host")}
        return self.upstream.request(
            asked.method, self.server_url + asked.path, body=asked.body or None, headers=headers, decode_content=False
        )

    def _say(self, code: int, reason: str, headers: dict[str, str]) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "bad weather", "reason": reason, "code": code}
        self._answer(code, {"Content-Type": "application/json", **headers}, json.dumps(status).encode())

    def _answer(self, code: int, headers: dict[str, str], body: bytes) -> None:
        try:
            self.send_response_only(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # whoever asked has given up, or is no more

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


@contextmanager
def proxied(behind: Path, place: Path) -> Iterator[tuple[Weather, Path]]:
    """A proxy before the API server of the kubeconfig `behind`; its weather, and a kubeconfig of it at `place`."""
    import urllib3
    from kubernetes import config
    from kubernetes.client.configuration import Configuration

    settings: Any = Configuration()
    load: Any = config.load_kube_config
    load(config_file=str(behind), client_configuration=settings)
    weather = Weather()

    class Handler(_Handler):
        pass

    Handler.weather, Handler.server_url = weather, settings.host
    Handler.upstream = urllib3.PoolManager(
        maxsize=32, ca_certs=settings.ssl_ca_cert, cert_file=settings.cert_file, key_file=settings.key_file, retries=False, timeout=30.0
    )
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    try:
        kubeconfig(place, {"server": f"http://127.0.0.1:{web.server_port}"}, {})
        yield weather, place
    finally:
        weather.release.set()
        web.shutdown()
        web.server_close()


def storm(seed: int) -> Callable[[Asked], Fate]:
    """One request in six meets something, reads and writes alike."""
    dice, lock = random.Random(seed), threading.Lock()

    def fate(_asked: Asked) -> Fate:
        with lock:
            luck = dice.random()
        for share, found in ((0.08, "throttle"), (0.11, "refuse"), (0.14, "drop"), (0.17, "lose")):
            if luck < share:
                return found  # type: ignore[return-value]
        return ""

    return fate
