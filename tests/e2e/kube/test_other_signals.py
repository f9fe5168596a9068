"""Rollouts that are judged by what others collected: a real Prometheus that scrapes the pods, and the pods' own logs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.monitoring import Prometheus, needs_prometheus
from tests.e2e.kube.shop import STAYS, Open, Shop, quick

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
LOGS = {"name": "log-errors", "source": "logs", "bad": "ERROR", "worse_than_stable": None, "limit": "50%"}
"""The shop logs nothing of a request but that it failed."""
PATIENT = {"interval": "1s", "blind": {"hold_after": "60s", "retreat_after": "4m", "hold_limit": "8m"}}


class Targets:
    """Tells a Prometheus which pods there are, as its own discovery would."""

    def __init__(self, shop: Shop) -> None:
        path = f"{shop.core}/pods"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = [
                    {
                        "targets": [f"{pod['status']['podIP']}:8080"],
                        "labels": {"pod": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]},
                    }
                    for pod in shop.api.items(path)
                    if pod["status"].get("podIP")
                ]
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collected(shop: Open, tmp_path: Path) -> Iterator[tuple[Shop, str]]:
    """A shop of two, and the address of a Prometheus that scrapes its pods."""
    made = shop(2, env={"VERSION": "1"})
    targets = Targets(made)
    server = Prometheus(tmp_path / "prometheus", http_sd_configs=[{"url": targets.url, "refresh_interval": "1s"}])
    yield made, server.url
    server.close()
    targets.close()


def errors(url: str, **more: Any) -> dict[str, Any]:
    selectors = {"bad": 'http_requests_total{code=~"5.."}', "total": "http_requests_total"}
    return {"name": "errors", "source": "prometheus", "url": url, "lag": "2s", **selectors, **more}


@needs_prometheus
def test_what_prometheus_knows_takes_a_bad_release_back_and_lets_a_good_one_pass(collected: tuple[Shop, str]) -> None:
    """The counters of the pods, collected by somebody else, condemn the bad release and promote the good one."""
    shop, url = collected
    with shop.unharmed():
        bad = shop.run("--set", "env.ERROR_RATE=0.3", policy=quick(**STAYS, **PATIENT), checks=(errors(url),))
    assert bad.code == 10, bad.err
    assert "errors" in shop.why()
    good = shop.run("--set", "env.VERSION=2", policy=quick(**PATIENT), checks=(errors(url, claims=50),))
    assert good.code == 0, good.err


def test_what_the_logs_say_takes_a_bad_release_back(stable_shop: Shop) -> None:
    """Lines of errors in the candidate's log, and none in stable's, condemn it."""
    with stable_shop.unharmed():
        done = stable_shop.run("--set", "env.ERROR_RATE=0.3", policy=quick(**STAYS), checks=(LOGS,))
    assert done.code == 10, done.err
    assert "log-errors" in stable_shop.why()
