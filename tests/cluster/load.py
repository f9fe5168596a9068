"""Users of a Service: they come at a steady rate, each with a connection of its own, whether the last ones were answered or not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass

TIMEOUT = 10.0


@dataclass(frozen=True)
class Served:
    """One request: when it was sent (epoch seconds), how long it took, its status (0: no answer) and the version that answered."""

    at: float
    seconds: float
    status: int
    version: str
    trouble: str = ""

    @property
    def good(self) -> bool:
        return 0 < self.status < 500


class Load:
    """An open loop of requests from a thread of its own; `answers` grows while it runs. Ends with the `with` block or `stop`."""

    def __init__(self, address: str, rate: float, *, path: str = "/", port: int = 80) -> None:
        self.address, self.port, self.path, self.rate = address, port, path, rate
        self.answers: list[Served] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Load:
        """Users come from now on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Nobody comes any more, and all who came have been answered or have given up."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT + 10)

    def bad(self, since: float = 0.0, until: float = float("inf")) -> list[Served]:
        """The failed requests that were sent in a stretch of time."""
        return [answer for answer in list(self.answers) if since <= answer.at < until and not answer.good]

    def of_version(self, version: str, since: float = 0.0) -> list[Served]:
        """The requests that a version answered."""
        return [answer for answer in list(self.answers) if answer.version == version and answer.at >= since]

    def summary(self) -> str:
        """One line: how many answers of which version with which status."""
        seen = Counter(f"{answer.version or '?'}:{answer.status or answer.trouble}" for answer in list(self.answers))
        return f"{sum(seen.values())} requests: " + ", ".join(f"{key} {count}" for key, count in sorted(seen.items()))

    async def _run(self) -> None:
        began, sent = time.monotonic(), 0
        waiting: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            while sent < (time.monotonic() - began) * self.rate:
                task = asyncio.create_task(self._one())
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                sent += 1
            await asyncio.sleep(min(0.05, 1 / self.rate))
        if waiting:
            await asyncio.wait(waiting, timeout=TIMEOUT)

    async def _one(self) -> None:
        at, began, status, version, trouble = time.time(), time.monotonic(), 0, "", ""
        try:
            async with asyncio.timeout(TIMEOUT):
                status, version = await self._ask()
        except (OSError, ValueError, IndexError, TimeoutError) as error:
            trouble = type(error).__name__
        self.answers.append(Served(at, time.monotonic() - began, status, version, trouble))

    async def _ask(self) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(self.address, self.port)
        try:
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
            head, _, _ = (await reader.read()).decode(errors="replace").partition("\r\n\r\n")
            first, *rest = head.split("\r\n")
            named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            return int(first.split()[1]), named.get("x-version", "")
        finally:
            writer.close()
