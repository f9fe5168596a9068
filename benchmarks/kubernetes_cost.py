"""What guarding costs on a cluster: requests to the API server, starts of the command, and pages of many pods."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.kubernetes import ERRORS, RATE, shop
from benchmarks.rows import Row, row
from deployguard import clock
from deployguard.kube.client import connect
from deployguard.model.check import ScrapeCheck
from deployguard.model.reading import Counters
from deployguard.model.target import STABLE, Instance
from deployguard.signals.scrape import ScrapePool, ScrapeSource
from deployguard.targets.kubernetes.marks import WorkloadRef
from deployguard.targets.kubernetes.workload import workload_target
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster
from tests.cluster.load import Load
from tests.cluster.world import POD_ERRORS, ClusterWorld
from tests.e2e.kube.measured import Doorkeeper, doorkeeper

PODS = 50
STARTS = 7
SCRAPES = 20
TIMER = """
import os, sys, time
began = time.perf_counter()
nowhere = os.open(os.devnull, os.O_WRONLY)
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, n) for n in (1, 2)])
_, status, used = os.wait4(pid, 0)
sys.stderr.write(f"{time.perf_counter() - began} {used.ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A process is said to be at least as large as the one that started it, so a small one starts it."""
CHECK = ScrapeCheck(name="errors", bad='http_requests_total{code=~"5.."}', total="http_requests_total")


def costs(cluster: Cluster, api: Api, *, quick: bool) -> list[Row]:
    """The rows: requests of a rollout that is rolled back, the command's start beside kubectl's, a scrape of many pods."""
    with shop(cluster, api, mounted=False) as (service, world):
        rows = [*_requests(world, service.address, 1 if quick else 3), *_starts(cluster, world)]
        return [*rows, *_scrapes(cluster, api, service.path, service.namespace)]


def _requests(world: ClusterWorld, address: str, runs: int) -> list[Row]:
    """What one rollout asks the API server, from the command's first request to its last."""
    writes, reads, seconds = [], [], []
    for number in range(runs):
        with _behind_a_door(world) as door, Load(address, RATE):
            began = time.time()
            done = world.run(world.guard(POD_ERRORS, policy="fast"), "--set", f"env.ERROR_RATE={ERRORS}", "--set", f"env.TRY={number}")
            if done.code != 10:
                raise RuntimeError(f"`deployguard run` ended with {done.code} and not with 10 (rolled back): {done.err.strip()[-500:]}")
            seconds.append(time.time() - began)
            writes.append(float(len(door.writes)))
            reads.append(float(len(door.reads)))
    return [
        row("requests of a rollout that is rolled back: writes, events and ledger included", "requests", writes),
        row("  reads, the pages of the pods through the API server included", "requests", reads),
        row("  the command from start to end", "s", seconds),
    ]


@contextmanager
def _behind_a_door(world: ClusterWorld) -> Iterator[Doorkeeper]:
    with doorkeeper(world.kubeconfig, world.folder) as door:
        before = world.env["KUBECONFIG"]
        world.env["KUBECONFIG"] = str(door.kubeconfig)
        try:
            yield door
        finally:
            world.env["KUBECONFIG"] = before


def _starts(cluster: Cluster, world: ClusterWorld) -> list[Row]:
    """Fresh processes: `status` on the cluster, `--version`, and kubectl for comparison."""
    me = [sys.executable, "-m", "deployguard"]
    commands = {
        "start of `deployguard status` on the cluster": [*me, "status", "-n", world.namespace],
        "start of `deployguard --version`": [*me, "--version"],
        "start of `kubectl get deployment`": [*_kubectl(cluster), "-n", world.namespace, "get", "deployment", "web"],
    }
    rows = []
    for what, command in commands.items():
        spent = [_run(command, world.env) for _ in range(STARTS)]
        rows.append(row(what, "ms", [1000 * seconds for seconds, _ in spent]))
        rows.append(row("  most memory", "MiB", [memory for _, memory in spent]))
    return rows


def _kubectl(cluster: Cluster) -> list[str]:
    from tests.cluster import build
    from tests.cluster.rig import main_version

    return [str(build.binary(main_version(), "kubectl")), "--kubeconfig", str(cluster.kubeconfig)]


def _run(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds, and MiB of the largest resident set."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", TIMER, *command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command[-3:])}` ended with {done.returncode}")
    seconds, kilobytes = done.stderr.split()[-2:]
    return float(seconds), float(kilobytes) / 1024


def _scrapes(cluster: Cluster, api: Api, path: str, namespace: str) -> list[Row]:
    """One look at the pages of many pods, through the API server and straight."""
    api.merge(path, {"spec": {"replicas": PODS}})
    until("fifty pods", lambda: api.get(path)["status"].get("readyReplicas") == PODS, 240)
    kube = connect(kubeconfig=str(cluster.kubeconfig))
    rows = []
    for words, direct in (("through the API server", False), ("straight", True)):
        target = workload_target(kube, WorkloadRef("Deployment", namespace, "web"), direct=direct)
        rows.append(row(f"a look at a Deployment of {PODS} pods, {words} to their pages", "ms", _milliseconds(target.observe)))
        instances = target.observe().instances
        pool = ScrapePool(timeout=5.0, proxy=kube)
        source = ScrapeSource(CHECK, pool)
        rows.append(row(f"  a scrape of the {PODS} pages", "ms", _milliseconds(functools.partial(_scraped, source, instances))))
        pool.close()
        target.close()
    kube.close()
    return rows


def _scraped(source: ScrapeSource, instances: tuple[Instance, ...]) -> None:
    answer = source.read(STABLE, instances, None, clock.now())
    if not isinstance(answer, Counters) or len(answer.by_instance) < PODS:
        raise RuntimeError(f"a scrape of {PODS} pods gave {answer}"[:300])


def _milliseconds(work: Callable[[], object]) -> list[float]:
    work()
    found = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - began))
    return found
