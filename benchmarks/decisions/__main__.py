"""`python -m benchmarks.decisions [--quick] [--data DIR] [--only NAME...] [--json FILE]`: play all streams, write rows and tables."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "results"
SEED = 20261121


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description="Does deployguard decide better than its peers?")
    parser.add_argument("--quick", action="store_true", help="few runs and the cells that tell most: two minutes")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder with the recorded data; without it simulated streams alone")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="families, or words that the names of the streams must hold")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=RESULTS / "decisions.json", help="where the rows go (default %(default)s)"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="so many times the runs of a full or a quick benchmark")
    parser.add_argument("--cores", type=int, metavar="N", help="processes to use; all cores when not given")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed gives other runs")
    return parser


def main() -> int:
    """The rows and tables are written."""
    parser = arguments()
    args = parser.parse_args()
    if importlib.util.find_spec("scipy") is None:
        parser.error("numpy and scipy are needed, which belong to the `dev` extra: pip install --editable '.[dev]'")
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data: there is no directory {args.data}")
    if not args.json.absolute().parent.is_dir() and args.json.parent != RESULTS:
        parser.error(f"--json: there is no directory {args.json.absolute().parent}")
    from benchmarks.decisions import cells, engine, play, real, table

    if args.data is None:
        print("NO RECORDED DATA: --data DIR was not given, so simulated streams alone are played\n", file=sys.stderr)
    found = [cell for maker in cells.MAKERS.values() for cell in maker(args.quick)]
    found = [cells.scaled(cell, args.scale) for cell in found if wanted(args.only, cell.family, cell.stream.name)]
    begin, rows, whole = time.time(), [], False
    try:
        # Recorded data first: they take a minute, and tell most.
        if args.data is not None and (args.only is None or cells.FAMILIES[-1] in args.only):
            rows += real.rows(args.data, quick=args.quick, seed=args.seed)
        for _, some in play.results(found, args.seed, args.cores or play.cores()):
            rows += some
        whole = True
    except KeyboardInterrupt:
        print("\ninterrupted: the rows of the streams that are finished are written, the others are left out", file=sys.stderr)
    if not rows and whole:
        parser.error(f"--only: no family and no stream is called {' or '.join(args.only)}; families are {', '.join(cells.FAMILIES)}")
    places = {(cell.family, cell.stream.name): number for number, cell in enumerate(found)}
    rows.sort(key=lambda row: places.get((row.family, row.stream), len(found)))
    about = meta(args, engine.digest(), time.time() - begin) | {"whole": whole}
    write(args.json, [row.data() for row in rows], about, table.document(rows, about))
    print(table.summary(rows))
    return 0 if whole else 130


def wanted(only: list[str] | None, family: str, stream: str) -> bool:
    """Whether `--only` names the family, or a part of the stream's name."""
    from benchmarks.decisions.cells import FAMILIES

    return only is None or any(name == family if name in FAMILIES else name in stream for name in only)


def meta(args: Any, digest: str, seconds: float) -> dict[str, Any]:
    """What the rows were made with, said once."""
    from deployguard import __version__

    return {
        "command": " ".join(["python -m benchmarks.decisions", *_shown(args)]),
        "version": __version__,
        "settings": digest,
        "seed": args.seed,
        "quick": args.quick,
        "recorded_data": args.data is not None,
        "seconds": round(seconds),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _shown(args: Any) -> list[str]:
    """The options that change the rows; not where the data lie."""
    shown = ["--quick"] if args.quick else []
    shown += [f"--scale {args.scale:g}"] if args.scale != 1 else []
    shown += ["--data DIR"] if args.data is not None else []
    return [*shown, *(["--only", *args.only] if args.only else [])]


def write(path: Path, rows: list[dict[str, Any]], about: dict[str, Any], document: str) -> None:
    """The rows, their tables beside them, and what they were made with."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    path.with_suffix(".meta.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(document, encoding="utf-8")
    print(f"\nwrote {len(rows)} rows to {path} and their tables to {path.with_suffix('.md')}")


if __name__ == "__main__":
    sys.exit(main())
