"""Users of the shop, as a process of its own: `load.py --url http://127.0.0.1:8080 --rate 50 --seconds 30 --journeys --out FILE`.

Arrivals are open-loop: they come at their own times and do not wait for answers, as users do. A request failed when its user would say
so: 5xx, no answer in time, refused, reset, or a page without its expected text. Nothing is tried again.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import ipaddress
import json
import math
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TextIO
from urllib.parse import urlencode, urlsplit

TIMEOUT_S = 2.0
IDLE_S = 5.0
JOURNEY_STEPS = 3
GROWTH = math.log(1.01)


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Broken(Exception):
    """No usable answer; the argument is the word for it in `by_code`."""


def instant(seconds: float) -> str:
    """UTC, ISO, with milliseconds."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Tally:
    """What happened, in memory that does not grow with the number of requests."""

    def __init__(self) -> None:
        self.requests = self.failed = 0
        self.second: tuple[int, int, Counter[str]] = (0, 0, Counter())
        self.times: Counter[int] = Counter()
        self.first_failed: float | None = None
        self.last_failed: float | None = None
        self.outage_from: float | None = None
        self.longest = 0.0

    def count(self, outcome: str, failed: bool, seconds: float) -> None:
        """One request more, which ended now."""
        now = time.time()
        requests, failures, codes = self.second
        codes[outcome] += 1
        self.second = (requests + 1, failures + failed, codes)
        self.requests, self.failed = self.requests + 1, self.failed + failed
        self.times[math.ceil(math.log(max(seconds, 1e-5) * 1000) / GROWTH)] += 1
        if failed:
            self.first_failed = self.first_failed or now
            self.last_failed = now
            self.outage_from = self.outage_from or time.monotonic()
        else:
            self.end_outage()

    def end_outage(self) -> None:
        """The time without any success, if there was one, is over."""
        if self.outage_from is not None:
            self.longest, self.outage_from = max(self.longest, time.monotonic() - self.outage_from), None

    def line(self, begin: float) -> str:
        """The second that began at `begin`, as JSON; the next one starts empty."""
        requests, failed, codes = self.second
        self.second = (0, 0, Counter())
        return json.dumps({"t": instant(begin), "requests": requests, "failed": failed, "by_code": dict(sorted(codes.items()))})

    def percentile(self, share: float) -> float | None:
        """Milliseconds, right to 1 %."""
        left = share * self.requests
        for bucket, count in sorted(self.times.items()):
            left -= count
            if left <= 0:
                return round(math.exp(bucket * GROWTH), 3)
        return None

    def summary(self) -> str:
        """Everything, as JSON."""
        self.end_outage()
        return json.dumps(
            {
                "requests": self.requests,
                "failed": self.failed,
                "failed_share": round(self.failed / self.requests, 6) if self.requests else 0.0,
                "first_failed_at": instant(self.first_failed) if self.first_failed else None,
                "last_failed_at": instant(self.last_failed) if self.last_failed else None,
                "longest_outage_s": round(self.longest, 3),
                "p50_ms": self.percentile(0.5),
                "p99_ms": self.percentile(0.99),
            }
        )


class Client:
    """Keep-alive connections to one address, at most `limit` at a time."""

    def __init__(self, address: str, port: int, authority: str, limit: int) -> None:
        self.address, self.port, self.authority = address, port, authority
        self.room = asyncio.Semaphore(limit)
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def ask(self, method: str, path: str, body: str | None, cookie: str, until: float) -> Answer:
        """The answer, if it came before `until` on the loop's clock. Raises Broken with the reason."""
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.authority}", "Accept: */*"]
        head += [f"Cookie: {cookie}"] if cookie else []
        head += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"] if body is not None else []
        data = "\r\n".join([*head, "", body or ""]).encode()
        try:
            async with asyncio.timeout_at(until), self.room:
                return await self.exchange(data)
        except TimeoutError:
            raise Broken("timeout") from None
        except ConnectionRefusedError:
            raise Broken("refused") from None
        except (ConnectionError, asyncio.IncompleteReadError):
            raise Broken("reset") from None
        except OSError as error:
            raise Broken(f"os-error-{error.errno}") from None
        except (ValueError, asyncio.LimitOverrunError):
            raise Broken("not-http") from None

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle:
            reader, writer, since = self.idle.pop()
            # A connection that has rested may be closed by the server at any moment; that would not be its fault.
            if not reader.at_eof() and time.monotonic() - since < IDLE_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.address, self.port)

    async def exchange(self, data: bytes) -> Answer:
        reader, writer = await self.connection()
        kept = False
        try:
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            status = int(first.split(" ", 2)[1])
            if "chunked" in headers.get("transfer-encoding", ""):
                body = b""
                while size := int(await reader.readline(), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readuntil(b"\r\n")
            elif "content-length" in headers:
                body = await reader.readexactly(int(headers["content-length"]))
            else:
                body = b"" if status in (204, 304) else await reader.read()
            kept = "close" not in headers.get("connection", "").lower() and ("content-length" in headers or "chunked" in str(headers))
            return Answer(status, headers, body)
        finally:
            if kept:
                self.idle.append((reader, writer, time.monotonic()))
            else:
                writer.close()


class Users:
    """What users do, in the shares that were asked for."""

    def __init__(self, client: Client, args: argparse.Namespace, tally: Tally, stop: asyncio.Event) -> None:
        self.client, self.tally, self.stop, self.password = client, tally, stop, args.password
        self.random = random.Random(args.seed)
        actions: list[tuple[Callable[[float], Awaitable[object]], float, int]] = [(self.catalogue, 0.70, 1), (self.login_page, 0.15, 1)]
        if args.journeys:
            # The share is of requests, and a journey is several of them.
            actions.append((self.journey, 0.15 / JOURNEY_STEPS, JOURNEY_STEPS))
        self.actions, self.weights = [a for a, _, _ in actions], [w for _, w, _ in actions]
        self.arrivals_per_s = args.rate * sum(self.weights) / sum(w * steps for _, w, steps in actions)
        self.poisson = args.arrivals == "poisson"

    async def request(
        self, due: float, path: str, text: bytes, method: str = "GET", body: str | None = None, cookie: str = "", status: int = 200
    ) -> Answer | None:
        """The answer if it is what the user expects, else None; counted either way, from the moment it was due."""
        loop = asyncio.get_running_loop()
        answer: Answer | None = None
        try:
            answer = await self.client.ask(method, path, body, cookie, due + TIMEOUT_S)
            good = answer.status == status and text in answer.body and (status != 303 or "set-cookie" in answer.headers)
            outcome = str(answer.status) if good or answer.status >= 400 else f"{answer.status}-wrong-page"
        except Broken as broken:
            good, outcome = False, str(broken)
        self.tally.count(outcome, not good, loop.time() - due)
        return answer if good else None

    async def catalogue(self, due: float) -> None:
        await self.request(due, self.random.choice(("/", "/catalogue")), b'"name"')

    async def login_page(self, due: float) -> None:
        await self.request(due, "/login", b"Sign in")

    async def journey(self, due: float) -> None:
        """A user signs in and buys; the first step that fails ends the visit."""
        now = asyncio.get_running_loop().time
        user = f"user-{self.random.randrange(1000)}"
        answer = await self.request(due, "/login", b"", "POST", urlencode({"user": user, "password": self.password}), status=303)
        cookie = answer.headers["set-cookie"].partition(";")[0] if answer else ""
        if answer and not self.stop.is_set():
            answer = await self.request(now(), "/account", f"Hello {user}<".encode(), cookie=cookie)
        if answer and not self.stop.is_set():
            await self.request(now(), "/checkout", b'"order"', "POST", "", cookie)

    async def arrive(self, seconds: float) -> None:
        """Users have come for `seconds`, or until told to stop; those who came have been answered or have given up."""
        loop, visits = asyncio.get_running_loop(), set[asyncio.Future[object]]()
        due, end = loop.time(), loop.time() + seconds
        while not self.stop.is_set():
            due += self.random.expovariate(self.arrivals_per_s) if self.poisson else 1 / self.arrivals_per_s
            if due >= end:
                await until(self.stop, end)
                break
            await until(self.stop, due)
            if not self.stop.is_set():
                visit = asyncio.ensure_future(self.random.choices(self.actions, self.weights)[0](due))
                visits.add(visit)
                visit.add_done_callback(visits.discard)
        if visits:
            await asyncio.gather(*visits)


async def until(stop: asyncio.Event, when: float) -> None:
    """It is `when` on the loop's clock, or `stop` is set."""
    wait = when - asyncio.get_running_loop().time()
    if wait <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(wait):
            await stop.wait()
    except TimeoutError:
        pass


async def report(tally: Tally, out: TextIO, done: asyncio.Event) -> None:
    """One line for each second has been written, the last one perhaps for less than a second."""
    loop = asyncio.get_running_loop()
    tick, begin = loop.time(), time.time()
    while not done.is_set():
        tick += 1
        await until(done, tick)
        if tally.second[0] or not done.is_set():
            print(tally.line(begin), file=out, flush=True)
        begin += 1


def resolve(url: str, remote: bool) -> tuple[str, int, str]:
    """Address, port and authority of `url`. Raises ValueError when it is not an allowed HTTP address, OSError when it has none."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ValueError(f"`{url}` is not of the form http://HOST:PORT")
    port = parts.port or 80
    found = sorted(socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM), key=lambda entry: entry[0] != socket.AF_INET)
    addresses = [str(entry[4][0]) for entry in found]
    if not remote and not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise ValueError(f"`{parts.hostname}` is not this machine; load on other machines needs --allow-remote")
    return addresses[0], port, parts.netloc


async def generate(args: argparse.Namespace, place: tuple[str, int, str], out: TextIO | None) -> Tally:
    """The load has been given; SIGTERM and SIGINT end it early."""
    tally, stop, done = Tally(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = Client(*place, args.connections)
    reporter = asyncio.ensure_future(report(tally, out, done)) if out else None
    await Users(client, args, tally, stop).arrive(args.seconds)
    done.set()
    if reporter:
        await reporter
    for _, writer, _ in client.idle:
        writer.close()
    return tally


def bounded(low: float, high: float) -> Callable[[str], float]:
    """A reader of numbers between `low` and `high`."""

    def number(text: str) -> float:
        if not low <= float(text) <= high:
            raise argparse.ArgumentTypeError(f"must be between {low:g} and {high:g}")
        return float(text)

    return number


def main() -> int:
    """The summary is written; 2 when nothing could be started."""
    parser = argparse.ArgumentParser(description="Users of the shop, at a rate that does not depend on its answers.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--rate", type=bounded(0.01, 5000), default=50.0, help="requests a second, on average")
    parser.add_argument("--seconds", type=bounded(0.1, 86400), default=30.0)
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson")
    parser.add_argument("--seed", type=int, default=None, help="repeats the same arrivals")
    parser.add_argument("--journeys", action="store_true", help="15 %% of the requests belong to users who sign in and buy")
    parser.add_argument("--connections", type=lambda text: int(bounded(1, 900)(text)), default=256, help="open at a time, at most")
    parser.add_argument("--password", default="open-sesame")
    parser.add_argument("--out", default="-", help="a line of JSON for each second, then the summary; - writes the summary only")
    parser.add_argument("--allow-remote", action="store_true", help="accept a URL on another machine")
    args = parser.parse_args()
    try:
        place = resolve(args.url, args.allow_remote)
        out = None if args.out == "-" else Path(args.out).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    except (OSError, ValueError) as error:
        print(f"load: cannot start: {error}", file=sys.stderr)
        return 2
    tally = asyncio.run(generate(args, place, out))
    print(tally.summary(), file=out or sys.stdout, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
