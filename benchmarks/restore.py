"""From fault to restored, as users see it: a real fleet of shops, real users, a release that fails a fifth of its requests.

Guarded: one of ten instances gets the release; the time runs from the first bad response to the last one, both from the log of the users'
own process. Unguarded: all ten instances run it, for as long as the guarded users saw errors.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import Result, Row, row
from deployguard.files.shipped import shipped_policy
from tests.e2e.world import World, eventually, instant

INSTANCES = 10
RATE = 50
ERRORS = 0.2
POLICY = "fast"
HISTORY_S = 4.0
"""Users come for this long before the release does."""
CHECK = {"name": "errors", "source": "scrape", "bad": 'http_requests_total{code=~"5.."}', "total": "http_requests_total"}
VARIANTS: dict[str, dict[str, Any]] = {
    f"shipped `{POLICY}`": {},
    f"`{POLICY}` without the cap per poll": {"override": {"protect": {"block_cap": None}}},
}


@dataclass(frozen=True, slots=True)
class Told:
    """One guarded run: seconds since the first bad response, and what the users and the guard counted."""

    exposed: float
    decided: float
    last_bad: float
    restored: float
    failed: int
    requests: int
    window: int
    evidence: float


@contextmanager
def shops(**fleet: Any) -> Iterator[World]:
    """A fleet in a folder and on a port of its own; nothing is left of it."""
    world = World(Path(tempfile.mkdtemp(prefix="deployguard-bench-")).resolve(), instances=INSTANCES)
    try:
        release = world.release(**fleet) if fleet else None
        world.up(release=release)
        yield world
    finally:
        world.close()


def guarded(world: World, variant: dict[str, Any]) -> Told:
    """One bad release under guard, to its end."""
    guard, bad = world.guard(CHECK, policy=POLICY, **variant), world.release(errors=ERRORS)
    with world.load(RATE, journeys=False) as users:
        time.sleep(HISTORY_S)
        done = world.run(guard, release=bad)
        time.sleep(1.0)
        summary = users.stop()
    if done.code != 10:
        raise RuntimeError(f"`deployguard run` ended with {done.code} and not with 10 (rolled back): {done.err.strip()[-500:]}")
    report = done.data
    first, last = instant(summary["first_failed_at"]), instant(summary["last_failed_at"])
    seconds = _seconds(users.out, first, last)
    exposed = next(s["at"] for s in report["trail"] if s["phase"] == "advancing")
    return Told(
        exposed=(first - instant(exposed)).total_seconds(),
        decided=(instant(report["decided"]) - first).total_seconds(),
        last_bad=(last - first).total_seconds(),
        restored=(instant(report["restored"]) - first).total_seconds(),
        failed=sum(s["failed"] for s in seconds),
        requests=sum(s["requests"] for s in seconds),
        window=len(seconds),
        evidence=float(report["checks"][0]["evidence"] or 0),
    )


def _seconds(log: Path, first: dt.datetime, last: dt.datetime) -> list[dict[str, Any]]:
    """The users' log lines from the second of the first bad response to that of the last."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[:-1]]
    second = dt.timedelta(seconds=1)
    return [line for line in lines if first - second < instant(line["t"]) <= last]


def unguarded(seconds: list[int]) -> Iterator[tuple[int, int]]:
    """Failed and all requests when every instance runs the release, once for each window."""
    with shops(errors=ERRORS) as world:
        for window in seconds:
            with world.load(RATE, journeys=False, seconds=window) as users:
                eventually(lambda users=users: users.process.poll() is not None)  # type: ignore[misc]
                summary = users.stop()
            yield summary["failed"], summary["requests"]


def floor(alpha: float, share: float, p1: float, p0: float) -> float:
    """Requests of both arms that any test of level alpha needs on average: ln(1/alpha) / I."""

    def divergence(p: float, q: float) -> float:
        good = (1 - p) * math.log((1 - p) / (1 - q))
        return good + (p * math.log(p / q) if p > 0 else 0.0)

    q = share * p1 + (1 - share) * p0
    return math.log(1 / alpha) / (share * divergence(p1, q) + (1 - share) * divergence(p0, q))


def _rows(name: str, runs: list[Told]) -> list[Row]:
    return [
        row(f"{name}: first to last bad response", "s", [t.last_bad for t in runs]),
        row("  until it is decided", "s", [t.decided for t in runs]),
        row("  until all instances are restored", "s", [t.restored for t in runs]),
        row("  bad responses", "requests", [float(t.failed) for t in runs]),
        row("  share of requests that failed meanwhile", "%", [100 * t.failed / t.requests for t in runs]),
    ]


def measure(*, quick: bool) -> Result:
    """Seconds from fault to restored, and the share of failed requests with and without a guard."""
    count = 2 if quick else 5
    told: dict[str, list[Told]] = {name: [] for name in VARIANTS}
    with shops() as world:
        for _ in range(count):
            for name, variant in VARIANTS.items():
                told[name].append(guarded(world, variant))
    shipped = told[next(iter(VARIANTS))]
    free = list(unguarded([max(t.window, 1) for t in shipped]))
    rows = [r for name, runs in told.items() for r in _rows(name, runs)]
    rows.append(row("unguarded, equally long: bad responses", "requests", [float(failed) for failed, _ in free]))
    rows.append(row("  share of requests that failed meanwhile", "%", [100 * failed / total for failed, total in free]))
    alpha = shipped_policy(POLICY).alpha
    least = floor(alpha, 1 / INSTANCES, ERRORS, 0.0)
    rows.append(Row("information floor: the best possible test, from the exposure on", "s", least / RATE, least / RATE, least / RATE, 1))
    late = statistics.median(t.exposed for t in shipped)
    return Result(
        subject="restore",
        compared=f"{INSTANCES} shops, {RATE} requests/s, {ERRORS:.0%} errors on one instance, one scrape check, 1-s polls; "
        "seconds since the first bad response as users saw it, with the shipped policy, without its cap per poll, and unguarded",
        rows=tuple(rows),
        notes=(
            f"the floor is ln(1/{alpha:g})/I with {1 / INSTANCES:.0%} of the requests on the candidate: {least:.0f} requests",
            f"the first bad response came {late:.1f} s (median) after the guard began to move the instance",
        ),
    )
