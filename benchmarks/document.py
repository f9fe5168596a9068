"""Writes what was measured into a page: `python -m benchmarks.document FILE.json docs/benchmarks.md`.

The text of the page stays; all below the mark is written anew from the file that `python -m benchmarks --json FILE.json` left.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.rows import number

MARK = "<!-- written by `python -m benchmarks.document`; changes below are lost -->"


def section(result: dict[str, Any]) -> str:
    """One subject as Markdown."""
    head = f"### {result['subject']}"
    if "failed" in result:
        return f"{head}\n\nNot measured: {result['failed']}\n"
    rows = ["| | unit | median | min | max | runs |", "|---|---|--:|--:|--:|--:|"]
    for one in result["rows"]:
        cells = (number(one["median"]), number(one["least"]), number(one["most"]))
        # Leading blanks mean "of the row above" in print; a table in Markdown swallows them.
        what = "… " * ((len(one["what"]) - len(one["what"].lstrip())) // 2) + one["what"].strip()
        rows.append(f"| {what} | {one['unit']} | {' | '.join(cells)} | {one['runs']} |")
    compared, rest = result["compared"][0].upper(), result["compared"][1:]
    notes = "".join(f"\n{note[0].upper()}{note[1:]}.\n" for note in result["notes"])
    return f"{head}\n\n{compared}{rest}.\n\n" + "\n".join(rows) + "\n" + notes


def measured(data: dict[str, Any]) -> str:
    """Everything below the mark."""
    machine = data["machine"]
    where = (
        f"Measured by `{data['command']}` on {machine['cores']} cores that other programs used as well "
        f"({machine['system']}, Python {machine['python']}; load average over one minute {machine['load'][0]:g} at the start and "
        f"{data['load_after'][0]:g} at the end). Times on the wall are therefore longer than on a machine at rest: look at the least ones, "
        "at the processor time, and at the ratio to what stands beside them."
    )
    return "\n".join((where, "", *(section(result) for result in data["results"])))


def main() -> int:
    """The page is written."""
    source, page = (Path(argument) for argument in sys.argv[1:3])
    text, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{page} has no line `{MARK}`")
    page.write_text(f"{text}{MARK}\n\n{measured(json.loads(source.read_text(encoding='utf-8'))).rstrip()}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
