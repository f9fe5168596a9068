"""Requests per second through the balancer, beside a direct connection to the same backend in the same run.

    python benchmarks/balancer.py

The load and the backend run on the same machine and take their share of it, so the balancer's own processor time per request is shown too:
one core could serve one divided by it.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

RUNS = 5
SECONDS = 1.5
CONNECTIONS = 32
REQUEST = (
    b"GET /item/42?colour=red HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: benchmark/1.0\r\nAccept: */*\r\n"
    b"Accept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n\r\n"
)
BACKEND = """
import asyncio
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nServer: bench\\r\\nContent-Length: 100\\r\\n\\r\\n" + b"x" * 100
class Answer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.rest = b""
    def data_received(self, data):
        self.rest += data
        *heads, self.rest = self.rest.split(b"\\r\\n\\r\\n")
        self.transport.write(ANSWER * len(heads))
async def main():
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _say(process: subprocess.Popen[bytes], message: dict[str, object]) -> dict[str, dict[str, str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    answer: dict[str, dict[str, str]] = json.loads(process.stdout.readline())
    return answer


def _load(port: int, seconds: float, connections: int) -> tuple[float, float]:
    """Requests per second, and the 99th percentile of their time in milliseconds, with `connections` always waiting for an answer."""
    selector = selectors.DefaultSelector()
    begun: dict[socket.socket, float] = {}
    missing: dict[socket.socket, int] = {}
    answer = 0
    for _ in range(connections):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not answer:
            one.sendall(REQUEST)
            answer = len(one.recv(65536))
        selector.register(one, selectors.EVENT_READ)
        begun[one], missing[one] = time.perf_counter(), answer
        one.sendall(REQUEST)
    times: list[float] = []
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        for key, _ in selector.select(1):
            one = key.fileobj  # type: ignore[assignment]
            missing[one] -= len(one.recv(65536))
            if missing[one] == 0:
                now = time.perf_counter()
                times.append(now - begun[one])
                begun[one], missing[one] = now, answer
                one.send(REQUEST)
    took = time.perf_counter() - start
    for one in begun:
        one.close()
    times.sort()
    return len(times) / took, times[int(len(times) * 0.99)] * 1000


def _balanced(backend: int, runs: int, seconds: float) -> dict[str, list[float]]:
    got: dict[str, list[float]] = {"direct": [], "balancer": [], "direct p99 ms": [], "balancer p99 ms": [], "cpu": []}
    with _running([sys.executable, "-m", "deployguard.local.balancer"]) as process:
        listening = _say(process, {"op": "listen", "listeners": {"all": "127.0.0.1:0"}, "limits": {}})
        port = int(listening["listeners"]["all"].rpartition(":")[2])
        instance = {"id": "1", "uid": "1-0", "address": f"127.0.0.1:{backend}", "arm": "stable", "version": "sha256:0"}
        _say(process, {"op": "route", "n": 1, "instances": [instance]})
        watched = psutil.Process(process.pid)
        for _ in range(runs):
            rate, p99 = _load(backend, seconds, CONNECTIONS)
            got["direct"].append(rate)
            got["direct p99 ms"].append(p99)
            before = watched.cpu_times()
            rate, p99 = _load(port, seconds, CONNECTIONS)
            after = watched.cpu_times()
            got["balancer"].append(rate)
            got["balancer p99 ms"].append(p99)
            got["cpu"].append((after.user + after.system - before.user - before.system) / (rate * seconds) * 1e6)
    return got


def measure(runs: int = RUNS, seconds: float = SECONDS) -> dict[str, float]:
    """Median and spread of each number over the runs."""
    with _running([sys.executable, "-c", BACKEND]) as backend:
        assert backend.stdout is not None
        got = _balanced(int(backend.stdout.readline()), runs, seconds)
    result: dict[str, float] = {}
    for name, key in (("direct", "direct_rps"), ("balancer", "balancer_rps"), ("direct p99 ms", "direct_p99_ms")):
        result |= {key: statistics.median(got[name]), f"{key}_min": min(got[name]), f"{key}_max": max(got[name])}
    for name, key in (("balancer p99 ms", "balancer_p99_ms"), ("cpu", "balancer_cpu_us")):
        result |= {key: statistics.median(got[name]), f"{key}_min": min(got[name]), f"{key}_max": max(got[name])}
    result["share"] = result["balancer_rps"] / result["direct_rps"]
    return result


def main() -> None:
    result = measure()
    print(f"{CONNECTIONS} connections, 100-byte answers, {RUNS} runs of {SECONDS:g} s each, interleaved")
    print(f"{'':34}{'median':>10}{'min':>10}{'max':>10}")
    rows = (
        ("direct, requests/s", "direct_rps", "10.0f"),
        ("balancer, requests/s", "balancer_rps", "10.0f"),
        ("direct, 99th percentile ms", "direct_p99_ms", "10.2f"),
        ("balancer, 99th percentile ms", "balancer_p99_ms", "10.2f"),
        ("balancer's processor us/request", "balancer_cpu_us", "10.1f"),
    )
    for label, key, form in rows:
        print(f"{label:34}{result[key]:{form}}{result[f'{key}_min']:{form}}{result[f'{key}_max']:{form}}")
    print(f"through the balancer: {result['share']:.0%} of direct; one core could serve {1e6 / result['balancer_cpu_us']:.0f} requests/s")


if __name__ == "__main__":
    main()
