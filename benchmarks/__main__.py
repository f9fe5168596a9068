"""`python -m benchmarks [NAME...] [--quick] [--json FILE]`: measure, print a table for each subject, and go on when one fails."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.rows import Result, table

SUBJECTS = {
    "fold": "benchmarks.fold",
    "step": "benchmarks.step",
    "poll": "benchmarks.poll",
    "memory": "benchmarks.memory",
    "startup": "benchmarks.startup",
    "restore": "benchmarks.restore",
    "balancer": "benchmarks.throughput",
    "power": "benchmarks.power",
}


def measured(name: str, *, quick: bool) -> dict[str, Any]:
    """The result of one subject, printed; or why there is none."""
    begin = time.perf_counter()
    try:
        result: Result = importlib.import_module(SUBJECTS[name]).measure(quick=quick)
    except Exception as error:  # noqa: BLE001 - the other subjects go on, and the exit code says so
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
        print(f"{name}: FAILED: {why}\n", flush=True)
        return {"subject": name, "failed": why}
    seconds = time.perf_counter() - begin
    print(f"{table(result)}\n({seconds:.0f} s)\n", flush=True)
    return {**result.data(), "seconds": seconds}


def machine() -> dict[str, Any]:
    """Where the numbers come from, and how busy it was meanwhile."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def main() -> int:
    """1 when a subject failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what deployguard costs and how fast it is.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(SUBJECTS)}; all when none is given")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rows here")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in SUBJECTS]
    if unknown:
        parser.error(f"no subject `{unknown[0]}`; there are {', '.join(SUBJECTS)}")
    if args.json and not args.json.absolute().parent.is_dir():
        parser.error(f"there is no directory {args.json.absolute().parent}")
    before = machine()
    print("{system}, Python {python}, {cores} cores, load {load}\n".format(**before), flush=True)
    names = args.names or list(SUBJECTS)
    results = [measured(name, quick=args.quick) for name in names]
    after = machine()
    print(f"load at the end: {after['load']}")
    if args.json:
        command = " ".join(["python -m benchmarks", *args.names, *(["--quick"] if args.quick else [])])
        data = {"command": command, "machine": before, "load_after": after["load"], "results": results}
        args.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return int(any("failed" in result for result in results))


if __name__ == "__main__":
    sys.exit(main())
