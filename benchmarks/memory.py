"""Whether memory grows: the resident memory of one process that drives one simulated rollout after the other.

One driver, one store and one target live as long as the process, as in a guard that never ends; half of the releases are good and become
stable, half fail and are taken back. What the simulation itself writes down (saves, the ledger, old counters) is thrown away between
rollouts: on a real guard it is on the disk.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil

from benchmarks.rows import Result, Row

MARKS = (0, 100, 500, 1000)
QUICK = (0, 20, 50, 100)
BAD = 0.2


def rss() -> float:
    """Megabytes of memory of this process that are in use now."""
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


def played(marks: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Rollouts in a row on one target; at each mark what memory and the saved document have come to."""
    from deployguard.model.version import Version
    from tests.properties.world import OLD, Sim

    sim = Sim()
    driver = sim.driver()
    outcomes = {"promoted": 0, "rolled_back": 0}
    for n in range(1, max(marks) + 1):
        if n - 1 in marks:
            yield {"rollouts": n - 1, "rss": rss(), "document": len(sim.memory.documents.get("web", b"")), **outcomes}
        version = Version(f"sha256:{n:064x}")
        sim.bad = {OLD.digest: 0.0, **{s.version.digest: 0.0 for s in sim.saves[-1].stable}} if sim.saves else {OLD.digest: 0.0}
        sim.bad[version.digest] = BAD if n % 2 else 0.0
        sim.begin(version, f"r{n}")
        rollout = sim.run(driver).rollout
        assert rollout is not None
        outcomes["promoted" if n % 2 == 0 else "rolled_back"] += type(rollout.phase).__name__ == ("Promoted", "RolledBack")[n % 2]
        # What the world of a real guard keeps on the disk, or does not keep at all.
        del sim.saves[:-1]
        alive = {i.uid for i in sim.target.instances}
        sim.counted = {uid: total for uid, total in sim.counted.items() if uid in alive}
        sim.memory.ledgers.clear()
        sim.memory.numbers = {key: value for key, value in sim.memory.numbers.items() if key[1] == f"r{n}"}
        sim.sinks.got = {f"r{n}": sim.sinks.got.get(f"r{n}", 0)}
    yield {"rollouts": max(marks), "rss": rss(), "document": len(sim.memory.documents["web"]), **outcomes}


def measure(*, quick: bool) -> Result:
    """Resident memory before and after many rollouts, in a process of its own."""
    marks = QUICK if quick else MARKS
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(marks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the process that plays the rollouts ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [Row(f"resident after {s['rollouts']} rollouts", "MB", s["rss"], s["rss"], s["rss"], 1) for s in seen]
    rows += [Row(f"saved document after {s['rollouts']} rollouts", "bytes", s["document"], s["document"], s["document"], 1) for s in seen]
    first, last = seen[1], seen[-1]
    each = (last["rss"] - first["rss"]) * 1024 / (last["rollouts"] - first["rollouts"])
    outcomes = f"{last['promoted']} promoted, {last['rolled_back']} rolled back"
    return Result(
        subject="memory",
        compared="one process before any rollout and after more and more of them, one driver throughout",
        rows=tuple(rows),
        notes=(f"of {last['rollouts']} rollouts {outcomes}; from {first['rollouts']} rollouts on {each:+.2f} KB for each",),
    )


if __name__ == "__main__":
    for found in played(tuple(json.loads(sys.argv[1]))):
        print(json.dumps(found), flush=True)
