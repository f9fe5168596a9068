"""`python -m tests.cluster`: bring the cluster up and down, look at it, and use its kubectl."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.cluster import build, images, tools
from tests.cluster.places import OLDEST, ClusterError, Place, home
from tests.cluster.processes import PARTS
from tests.cluster.rig import Rig, main_version


def main(arguments: list[str]) -> int:
    """The exit code: 0 when done, 1 when the cluster cannot be had, 2 for a wrong command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "build", "restart", "load", "images", "tools", "kubectl"])
    parser.add_argument("rest", nargs="*", help="restart: parts; load: image archives; kubectl: its own arguments")
    parser.add_argument("--old", action="store_true", help=f"the control plane of {OLDEST}, without a node")
    parser.add_argument("--no-node", action="store_true", help="a control plane alone: no root, no containers")
    parser.add_argument("--require-node", action="store_true", help="fail where there can be no node")
    at = next((at for at, word in enumerate(arguments) if word == "kubectl"), len(arguments))
    options, rest = arguments[: at + 1], arguments[at + 1 :]
    known = parser.parse_args(options)
    try:
        return _do(known, Rig(Place(OLDEST if known.old else main_version())), rest or known.rest)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _do(known: argparse.Namespace, rig: Rig, rest: list[str]) -> int:
    match known.command:
        case "up":
            return _up(rig, wants_node=not (known.old or known.no_node), requires_node=known.require_node)
        case "down":
            for each in [rig] if known.old else _all():
                each.down()
                print(f"nothing is left of the cluster {each.place.version}")
        case "status":
            return _status()
        case "build":
            build.build(rig.place.version, build.wanted(rig.place.version, node=not known.old))
        case "restart":
            rig.restart(rest)
        case "load":
            for archive in rest:
                rig.import_image(Path(archive))
        case "images":
            print("\n".join(f"{image.archive} {' '.join(image.names)}" for image in images.make()))
        case "tools":
            print("\n".join(str(program) for program in tools.fetch()))
        case "kubectl":
            program = build.binary(main_version(), "kubectl")
            os.execv(program, ["kubectl", "--kubeconfig", str(rig.place.kubeconfig), *rest])
    return 0


def _up(rig: Rig, *, wants_node: bool, requires_node: bool) -> int:
    why_not = rig.up(wants_node=wants_node)
    if why_not and wants_node:
        print(f"NO NODE, a control plane alone: {why_not}", file=sys.stderr)
        return 1 if requires_node else 0
    return 0


def _all() -> list[Rig]:
    """The clusters that came up and were not taken down."""
    return [Rig(Place(path.parent.name)) for path in sorted(home().glob("*/cluster.json"))]


def _status() -> int:
    """Say what runs; the exit code is 0 if a cluster is healthy."""
    code = 1
    for rig in _all():
        healthy = rig.healthy()
        code = 0 if healthy else code
        kind = "with a node" if rig.has_node else "a control plane alone"
        print(f"{rig.place.version}: {'ready' if healthy else 'not ready'}, {kind}, KUBECONFIG={rig.place.kubeconfig}")
        for name in PARTS:
            process = rig.processes.find(name)
            if process is not None:
                used = process.cpu_times()
                busy, memory = used.user + used.system, process.memory_info().rss >> 20
                print(f"  {name:<11} pid {process.pid:<7} {memory:>5} MiB {busy:>7.1f} s of processor")
    if code:
        print("no cluster is up: run `make cluster`")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
