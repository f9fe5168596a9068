"""How long a command takes to start and answer, as a whole process.

Beside it an interpreter that does nothing, and one that imports the Kubernetes client, which no local command loads.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Result, Row, row
from deployguard.stores.file import FileStore
from tests.properties.world import Sim

RUNS, QUICK = 10, 4


def saved(state: Path) -> None:
    """A guard with a rollout behind it, for `status` to read."""
    sim = Sim(bad=0.2)
    sim.begin()
    FileStore(state, "web").save(sim.run(), "")


def once(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Milliseconds on the wall and of processor time from the start of the process to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return wall * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def measure(*, quick: bool) -> Result:
    """Whole processes, all commands in turns."""
    program = str(Path(sys.executable).with_name("deployguard"))
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "deployguard --version": [program, "--version"],
        "deployguard --help": [program, "--help"],
        "deployguard status -o json": [program, "status", "-o", "json"],
        "python -c 'import kubernetes'": [sys.executable, "-c", "import kubernetes"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        saved(Path(folder))
        env = {**os.environ, "DEPLOYGUARD_STATE": folder, "NO_COLOR": "1"}
        for command in commands.values():
            once(command, env)
        for _ in range(QUICK if quick else RUNS):
            for name, command in commands.items():
                times[name].append(once(command, env))
    rows: list[Row] = [row(name, "ms", [wall for wall, _ in found]) for name, found in times.items()]
    rows += [row(f"{name}, processor time", "ms", [cpu for _, cpu in found]) for name, found in times.items()]
    return Result(
        subject="startup",
        compared="whole processes from start to end in turns, after one start of each that is not counted; "
        "beside a bare interpreter and one that imports the Kubernetes client",
        rows=tuple(rows),
    )
