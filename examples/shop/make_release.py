"""Builds a release of the shop: `make_release.py --name v2 --flaw errors=0.2 OUT`, or a config with `--config`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

FIRST = Path(__file__).resolve().parent / "releases" / "v1"


def flaw(text: str) -> tuple[str, Any]:
    """Name and value of `name=value`; `name` alone switches it on."""
    name, equals, value = text.partition("=")
    if not equals:
        return name, True
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> int:
    """A directory (or a file, with `--config`) that the shop can run; 2 when it would refuse the flaws."""
    parser = argparse.ArgumentParser(description="Build a release or a config of the shop, with flaws if wanted.")
    parser.add_argument("--name", required=True, help="what /version says, as in v2")
    parser.add_argument("--flaw", action="append", type=flaw, default=[], metavar="NAME=VALUE", help="may be given several times")
    parser.add_argument("--config", action="store_true", help="write a config file instead of a release directory")
    parser.add_argument("out", type=Path, help="where; a release directory must not exist yet")
    args = parser.parse_args()
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(FIRST))
    from pages import check_flaws

    about = {"name": args.name, "flaws": dict(args.flaw)}
    try:
        check_flaws(about["flaws"])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if args.config:
            args.out.write_text(json.dumps(about, indent=2) + "\n")
            return 0
        args.out.mkdir()
        for name in ("shop.py", "pages.py"):
            shutil.copyfile(FIRST / name, args.out / name)
        (args.out / "release.json").write_text(json.dumps(about) + "\n")
    except (OSError, ValueError) as error:
        print(f"make_release: {args.out} was not built: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
