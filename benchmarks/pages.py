"""Metrics pages as a real service shows them, served by a helper process: `python -m benchmarks.pages N` prints N ports.

Written for the benchmark of a poll: counters go up with time, and each instance is a port of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time

ROUTES = ("/", "/catalogue", "/login", "/account", "/checkout", "/search", "/cart", "/orders", "/profile", "/help")
CODES = (("200", 0.9), ("302", 0.05), ("404", 0.04), ("500", 0.006), ("503", 0.004))
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
FAMILIES = ("http", "db", "cache", "payment", "search")
"""One counter family for each check on counts, `*_requests_total`, and one histogram, `*_request_duration_seconds`."""
POOLS = 318
"""Gauges that nobody asks for, so that a page has 1,500 lines."""
RATE = 20.0


def page(served: float) -> bytes:
    """The page after `served` requests for each route."""
    lines = []
    for family in FAMILIES:
        name = f"{family}_requests_total"
        lines += [f"# HELP {name} Requests by route, method and status.", f"# TYPE {name} counter"]
        for route in ROUTES:
            for code, share in CODES:
                lines.append(f'{name}{{code="{code}",method="GET",route="{route}"}} {served * share:.1f}')
    for family in FAMILIES:
        name = f"{family}_request_duration_seconds"
        lines += [f"# HELP {name} Time to answer.", f"# TYPE {name} histogram"]
        for route in ROUTES:
            for n, bucket in enumerate((*map(str, BUCKETS), "+Inf"), 1):
                lines.append(f'{name}_bucket{{le="{bucket}",route="{route}"}} {served * n / (len(BUCKETS) + 1):.1f}')
            lines += [f'{name}_sum{{route="{route}"}} {served * 0.08:.6f}', f'{name}_count{{route="{route}"}} {served:.1f}']
    lines += ["# HELP pool_connections Connections to a host.", "# TYPE pool_connections gauge"]
    lines += [f'pool_connections{{host="10.0.{n // 100}.{n % 100}:5432"}} {n % 7}' for n in range(POOLS)]
    for n in range(20):
        lines += [f"# HELP process_gauge_{n} Something about the process.", f"# TYPE process_gauge_{n} gauge", f"process_gauge_{n} {n}e+06"]
    return ("\n".join(lines) + "\n").encode()


class Instance(asyncio.Protocol):
    """Answers every request with the page, and keeps the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.rest = transport, b""

    def data_received(self, data: bytes) -> None:
        """Whole requests are answered."""
        *heads, self.rest = (self.rest + data).split(b"\r\n\r\n")
        body = SERVER.page()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.transport.write((head + body) * len(heads))


class Server:
    """The page, drawn anew at most twenty times a second: the client is measured, not this."""

    def __init__(self) -> None:
        self.born, self.drawn, self.bytes = time.monotonic(), 0.0, b""

    def page(self) -> bytes:
        """The page now."""
        now = time.monotonic()
        if now - self.drawn >= 0.05:
            self.drawn, self.bytes = now, page((now - self.born + 600) * RATE)
        return self.bytes


SERVER = Server()


async def main(instances: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Instance, "127.0.0.1", 0) for _ in range(instances)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
