"""On a real cluster, as users see it: what a bad change of a Deployment costs them, guarded and as Kubernetes alone rolls it out.

`python -m benchmarks.kubernetes` needs the cluster of the tests with its node (`make cluster`). Users come in an open loop through the
Service, each with a connection of its own; every time is taken from their answers, counted from the first bad one.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.document import section
from benchmarks.rows import Result, Row, row, table
from tests.cluster import manifests
from tests.cluster.api import Api, fresh_namespace, until
from tests.cluster.fixtures import Cluster, Service, at_hand, deployed, reachable
from tests.cluster.load import Load, Served
from tests.cluster.world import POD_ERRORS, ClusterWorld
from tests.e2e.world import instant

REPLICAS = 5
RATE = 50
ERRORS = 0.2
POLICY = "fast"
RELOAD_S = 200.0
"""A kubelet may take more than a minute to hand an edited ConfigMap to a pod."""
HISTORY_S = 4.0
"""Users come for this long before the change does."""
RELEASE = {"VERSION": "2", "ERROR_RATE": str(ERRORS)}
CRASHING = {"VERSION": "2", "CRASH_AFTER_S": "1"}
CONFIG = "web-config"
SCENARIOS = {
    "a release that fails a fifth of the requests": (RELEASE, False),
    "a release that crashes after 1 s": (CRASHING, False),
    "a ConfigMap that makes a fifth of the requests fail": (RELEASE, True),
}
"""What is changed, and whether it is changed in the environment of the pods or in a mounted ConfigMap."""


@dataclass(frozen=True, slots=True)
class Told:
    """One run: seconds since the first bad answer (since the change where there was none), and what the users saw."""

    decided: float
    last_bad: float
    last_candidate: float
    failed: int
    requests: int
    processor: float


@contextmanager
def shop(cluster: Cluster, api: Api, *, mounted: bool) -> Iterator[tuple[Service, ClusterWorld]]:
    """A shop of its own namespace, ready and reached by users; nothing is left of it."""
    with fresh_namespace(api) as namespace:
        service = deployed(api, namespace, "web", REPLICAS, config={"VERSION": "1"} if mounted else None, env={"VERSION": "1"})
        until("the Service", lambda: reachable(service.address, 80))
        with tempfile.TemporaryDirectory(prefix="deployguard-bench-") as folder:
            world = ClusterWorld(Path(folder).resolve(), cluster.kubeconfig, namespace)
            try:
                yield service, world
            finally:
                world.close()


def guarded(cluster: Cluster, api: Api, change: dict[str, str], *, mounted: bool) -> Told:
    """One bad change under guard, to its end."""
    with shop(cluster, api, mounted=mounted) as (service, world), Load(service.address, RATE) as users:
        time.sleep(HISTORY_S)
        began, before = time.time(), _processor()
        done = world.run(
            world.guard(POD_ERRORS, policy=POLICY, config=(CONFIG,) if mounted else ()), *_words(world, change, mounted=mounted)
        )
        spent = _processor() - before
        time.sleep(1.0)
        users.stop()
        if done.code != 10:
            raise RuntimeError(f"`deployguard run` ended with {done.code} and not with 10 (rolled back): {done.err.strip()[-500:]}")
        return told(users, began, instant(done.data["decided"]).timestamp(), spent)


def _words(world: ClusterWorld, change: dict[str, str], *, mounted: bool) -> list[str]:
    """How the change is said on the command line."""
    if not mounted:
        return [word for key, value in change.items() for word in ("--set", f"env.{key}={value}")]
    folder = world.folder / "new"
    folder.mkdir()
    (folder / manifests.CONFIG_FILE).write_text(manifests.lines(change))
    return ["--config", f"ConfigMap/{CONFIG}={folder}"]


def unguarded(cluster: Cluster, api: Api, change: dict[str, str], seconds: float, *, mounted: bool) -> Told:
    """The same change as Kubernetes alone takes it, watched for as long after its first bad answer."""
    with shop(cluster, api, mounted=mounted) as (service, _), Load(service.address, RATE) as users:
        time.sleep(HISTORY_S)
        began = time.time()
        if mounted:
            data = {manifests.CONFIG_FILE: manifests.lines(change)}
            api.merge(f"/api/v1/namespaces/{service.namespace}/configmaps/{CONFIG}", {"data": data})
        else:
            container = manifests.shop_container("localhost/deployguard-shop:1", change)
            api.merge(service.path, {"spec": {"template": {"spec": {"containers": [container]}}}})
        first = until("a bad answer", lambda: users.bad(began), RELOAD_S)[0]
        time.sleep(max(0.0, first.at + seconds - time.time()))
        users.stop()
        return told(users, began, math.nan, 0.0, within=seconds)


def told(users: Load, began: float, decided: float, processor: float, *, within: float = float("inf")) -> Told:
    """What the users saw of a change that was made at `began`."""
    bad = users.bad(began)
    zero = bad[0].at if bad else began
    bad = [answer for answer in bad if answer.at <= zero + within]
    last_bad = bad[-1].at if bad else zero
    mine = users.of_version("2")
    last = max((answer.at for answer in mine), default=zero)
    meanwhile: list[Served] = [answer for answer in users.answers if zero <= answer.at <= last_bad]
    return Told(decided - zero, last_bad - zero, last - zero, len(bad), len(meanwhile), processor)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rows(name: str, runs: list[Told], native: list[Told], window: float) -> list[Row]:
    return [
        row(f"{name}: first bad answer to the last of the candidate", "s", [run.last_candidate for run in runs]),
        row("  until it is decided", "s", [run.decided for run in runs]),
        row("  failed answers", "requests", [float(run.failed) for run in runs]),
        row("  processor time of the guard", "s", [run.processor for run in runs]),
        row(f"  Kubernetes alone, in {window:.0f} s: failed answers", "requests", [float(run.failed) for run in native]),
    ]


def measure(*, quick: bool) -> Result:
    """Seconds and failed answers from a bad change to the stable version, and what Kubernetes alone does with the same change."""
    cluster = at_hand()
    if isinstance(cluster, str):
        raise RuntimeError(cluster)
    if not cluster.has_node or cluster.rig is None:
        raise RuntimeError("the cluster has no node of this machine: `make cluster` as root")
    from benchmarks.kubernetes_cost import costs

    api, count, rows = Api(cluster.kubeconfig), 2 if quick else 5, []
    for name, (change, mounted) in SCENARIOS.items():
        runs = [guarded(cluster, api, change, mounted=mounted) for _ in range(count)]
        window = max(30.0, *(run.last_candidate for run in runs))
        native = [unguarded(cluster, api, change, window, mounted=mounted) for _ in range(1 if quick else 3)]
        rows += _rows(name, runs, native, window)
    rows += costs(cluster, api, quick=quick)
    return Result(
        subject="kubernetes",
        compared=f"a Deployment of {REPLICAS} shops on Kubernetes {cluster.version}, {RATE} requests/s through its Service, "
        f"policy `{POLICY}`, one scrape check; beside it what Kubernetes alone does "
        "with the same change: a rolling update with readiness probes, or an edit in place, and no way back",
        rows=tuple(rows),
    )


def page(result: Result, busy: tuple[float, float]) -> str:
    """The result as a page of its own; `busy` is the load average at the start and at the end."""
    where = (
        f"Written by `python -m benchmarks.kubernetes --markdown FILE` on {os.cpu_count()} cores on which the cluster, the users, the "
        f"guard and other programs ran side by side (load average over one minute {busy[0]:.1f} at the start and {busy[1]:.1f} at the end)."
    )
    return f"# Bad changes on a cluster\n\n{where}\n\n{section(result.data())}"


def main() -> int:
    """Print the table; 1 when it cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kubernetes", description="Measure on the cluster of the tests.")
    parser.add_argument("--quick", action="store_true", help="two runs instead of five")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write a page with all rows here")
    known, before = parser.parse_args(), os.getloadavg()[0]
    try:
        result = measure(quick=known.quick)
    except (RuntimeError, AssertionError) as error:
        print(f"kubernetes: cannot be measured: {error}", file=sys.stderr)
        return 1
    print(table(result))
    if known.markdown is not None:
        known.markdown.write_text(page(result, (before, os.getloadavg()[0])), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
