"""What a whole poll costs: `Driver.tick` against real HTTP servers, 20 instances, 5 checks on counts or 9 of every kind, the state on disk.

Beside it the plain way: one page after the other by httpx, each parsed whole by the parser of prometheus_client.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.pages import FAMILIES
from benchmarks.rows import Result, Row, row
from deployguard.clock import SystemClock
from deployguard.driver import tick
from deployguard.driver.tick import Driver
from deployguard.driver.world import World
from deployguard.engine import begin
from deployguard.engine.step import step
from deployguard.model.policy import Policy
from deployguard.model.rollout import Analyzing
from deployguard.model.target import Desired, TargetView
from deployguard.model.version import Version
from deployguard.signals.scrape import ScrapePool, ScrapeSource
from deployguard.stores.file import FileStore
from deployguard.stores.inbox import FileInbox
from deployguard.stores.readings import FileReadings
from deployguard.targets.simulated import Behaviour, SimulatedTarget

INSTANCES, HELPERS = 20, 2
RUNS, QUICK = 100, 25
OLD, NEW = Version("sha256:" + "a" * 64), Version("sha256:" + "b" * 64)
ORDER = (
    "poll",
    "  observe",
    "    of it a look into the ledger",
    "  step",
    "  record what was seen",
    "  save and sync (every 10 s)",
    "poll, processor time",
    "poll, every kind of check",
    "poll, every kind, processor time",
    "plain poll (httpx, prometheus_client)",
    "plain poll, processor time",
)
Timings = dict[str, list[float]]


@contextmanager
def serving() -> Iterator[list[str]]:
    """The addresses of the instances, served by helper processes."""
    command = [sys.executable, "-m", "benchmarks.pages", str(INSTANCES // HELPERS)]
    helpers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(HELPERS)]
    try:
        yield [f"127.0.0.1:{port}" for helper in helpers if helper.stdout for port in helper.stdout.readline().split()]
    finally:
        for helper in helpers:
            helper.kill()
            helper.communicate()


class Addressed:
    """The simulated target, whose instances have real addresses."""

    def __init__(self, target: SimulatedTarget, addresses: list[str]) -> None:
        self.target, self.addresses = target, addresses

    def observe(self) -> TargetView:
        """What runs now, with the addresses of the servers."""
        view = self.target.observe()
        found = zip(view.instances, self.addresses, strict=True)
        return msgspec.structs.replace(view, instances=tuple(msgspec.structs.replace(i, address=a) for i, a in found))

    def shift(self, desired: Desired, basis: str) -> None:
        """As the target."""
        self.target.shift(desired, basis)

    def renew(self, fence: int, lease: float) -> None:
        """As the target."""
        self.target.renew(fence, lease)


class Nobody:
    """Announcements that are not sent anywhere."""

    def offer(self, entries: Any) -> None:
        """Nothing is sent."""

    def delivered(self, rollout: str) -> int:  # noqa: ARG002
        """Everything counts as delivered."""
        return 1_000_000


def counts() -> list[dict[str, Any]]:
    """Five checks on counts, each with a counter family of its own."""
    return [
        {
            "name": name,
            "source": "scrape",
            "dispersion": 1,
            "bad": f'{name}_requests_total{{code=~"5.."}}',
            "total": f"{name}_requests_total",
        }
        for name in FAMILIES
    ]


def others() -> list[dict[str, Any]]:
    """A check of each other kind; the histograms have 15 buckets for each of ten routes."""
    histogram = "http_request_duration_seconds"
    classes = [f'http_requests_total{{code=~"{code}"}}' for code in ("2..|3..", "4..", "5..")]
    found: list[dict[str, Any]] = [
        {"name": "latency", "histogram": histogram},
        {"name": "slow", "histogram": histogram, "within": "250ms"},
        {"name": "classes", "classes": classes},
        {"name": "memory", "gauge": "process_gauge_7"},
    ]
    return [{**one, "source": "scrape"} for one in found]


def policy(checks: list[dict[str, Any]]) -> Policy:
    """A policy with these checks and a stage that does not end."""
    stages = [{"instances": 1, "soak": "1h"}, {"exposure": "100%", "soak": "1h"}]
    return Policy.model_validate({"stages": stages, "checks": checks, "interval": "1s"})


@contextmanager
def driving(addresses: list[str], state: Path, checks: list[dict[str, Any]]) -> Iterator[Driver]:
    """A driver in the first stage of a rollout: one instance of twenty on the candidate."""
    clock, rules, pool = SystemClock(), policy(checks), ScrapePool()
    target = SimulatedTarget(clock, INSTANCES, OLD, {NEW.digest: Behaviour(ready_after=0.1)})
    store = FileStore(state, "web")
    readings = FileReadings(store.directory)
    document, revision = store.load()
    wish = begin.Wish("r1", "web", "web", NEW, rules.model_dump(mode="json", by_alias=True))
    store.save(begin.begun(document, target.observe(), wish, clock.now()), revision)
    sources = {check.name: ScrapeSource(check, pool) for check in rules.checks if check.source == "scrape"}
    world = World(rules, store, FileInbox(store.directory), Addressed(target, addresses), sources, Nobody(), clock, "bench")
    driver = Driver(dataclasses.replace(world, readings=readings))
    try:
        deadline = time.monotonic() + 30
        while not isinstance(getattr(driver.tick().document.rollout, "phase", None), Analyzing):
            if time.monotonic() > deadline:
                raise RuntimeError("the rollout did not reach its first stage")
            time.sleep(0.05)
        yield driver
    finally:
        driver.close()
        readings.close()


def clocked(work: Callable[..., Any], found: list[float]) -> Callable[..., Any]:
    """`work`, which notes the milliseconds of every call."""

    def call(*args: Any, **more: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(*args, **more)
        finally:
            found.append((time.perf_counter() - start) * 1000)

    return call


def polls(driver: Driver, runs: int) -> Timings:
    """Milliseconds of whole ticks and of their parts, one tick every 50 ms at most; every tenth one saves, as in a drive of 1-s polls."""
    times: Timings = defaultdict(list)
    observe = clocked(driver.observer.observe, times["  observe"])
    ledgered = clocked(driver.world.store.ledgered, times["    of it a look into the ledger"])
    assert driver.recording is not None
    record = clocked(driver.recording.tick, times["  record what was seen"])
    save = clocked(driver.world.store.save, times["  save and sync (every 10 s)"])
    with (
        mock.patch.object(driver.observer, "observe", observe),
        mock.patch.object(driver.recording, "tick", record),
        mock.patch.object(tick, "step", clocked(step, times["  step"])),
        mock.patch.object(driver.world.store, "save", save),
        mock.patch.object(driver.world.store, "ledgered", ledgered),
    ):
        for n in range(runs):
            if n % 10 == 0:
                driver._saved = dt.datetime.min.replace(tzinfo=dt.UTC)
            wall, cpu = time.perf_counter(), time.process_time()
            ticked = driver.tick()
            times["poll, processor time"].append((time.process_time() - cpu) * 1000)
            times["poll"].append((time.perf_counter() - wall) * 1000)
            _whole(ticked.document.rollout)
            time.sleep(0.05)
    return times


def _whole(rollout: Any) -> None:
    """A poll that did not read everything would be measured as a fast one."""
    silent = [name for name, evidence in rollout.evidence.items() if evidence.gaps]
    if silent or not isinstance(rollout.phase, Analyzing):
        raise RuntimeError(f"the poll was not a whole one: {rollout.phase}, silent checks: {silent}")


def plain(addresses: list[str], runs: int) -> Timings:
    """The same numbers in the plain way: one after the other, everything parsed."""
    times: Timings = defaultdict(list)
    with httpx.Client(timeout=5) as client:
        for _ in range(runs):
            wall, cpu = time.perf_counter(), time.process_time()
            for address in addresses:
                counted = dict.fromkeys(FAMILIES, (0.0, 0.0))
                for family in text_string_to_metric_families(client.get(f"http://{address}/metrics").text):
                    for sample in family.samples:
                        name = sample.name.removesuffix("_requests_total")
                        if name in counted and name != sample.name:
                            bad, total = counted[name]
                            failed = sample.labels["code"].startswith("5")
                            counted[name] = (bad + sample.value * failed, total + sample.value)
                if not all(total for _, total in counted.values()):
                    raise RuntimeError(f"the page of {address} was not whole: {counted}")
            times["plain poll, processor time"].append((time.process_time() - cpu) * 1000)
            times["plain poll (httpx, prometheus_client)"].append((time.perf_counter() - wall) * 1000)
    return times


def measure(*, quick: bool) -> Result:
    """Milliseconds of a poll and of its parts, beside the plain way."""
    runs = QUICK if quick else RUNS
    with serving() as addresses, tempfile.TemporaryDirectory() as folder:
        size = len(httpx.get(f"http://{addresses[0]}/metrics").content)
        with driving(addresses, Path(folder) / "counts", counts()) as driver:
            times = polls(driver, runs)
        with driving(addresses, Path(folder) / "kinds", [*counts(), *others()]) as driver:
            every = polls(driver, runs)
        times["poll, every kind of check"] = every["poll"]
        times["poll, every kind, processor time"] = every["poll, processor time"]
        times |= plain(addresses, max(runs // 10, 3))
    rows: list[Row] = [row(name, "ms", times[name]) for name in ORDER]
    return Result(
        subject="poll",
        compared=f"one poll of {INSTANCES} instances on {HELPERS} HTTP servers (pages of {size / 1024:.0f} KB) with {len(FAMILIES)} checks "
        f"on counts, whole and in parts, and with {len(others())} of other kinds as well, beside fetching and parsing the pages one by one "
        "(which decides and saves nothing)",
        rows=tuple(rows),
    )
