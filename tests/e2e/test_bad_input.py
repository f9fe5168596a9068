"""Wrong input on the command line: one clear error, exit code 2, and not a byte changed."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployguard.errors import UserError
from tests.e2e.killing import BRISK, CHECK
from tests.e2e.world import SHOP, Done, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HEAD = {"apiVersion": "deployguard.dev/v1alpha1", "kind": "Guard", "metadata": {"name": "shop"}}
TARGET = {"kind": "LocalFleet", "name": "shop"}
BOMB = 'a: &a ["x", "x", "x", "x", "x", "x", "x", "x", "x"]\n' + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
)


def guard(checks: list[dict[str, Any]] | None = None, **policy: Any) -> str:
    """The text of a guard file with these fields of the policy."""
    spec = {"target": TARGET, "policy": {**BRISK, **policy}, "checks": [CHECK] if checks is None else checks}
    return json.dumps({**HEAD, "spec": spec}, indent=1)


def fleet(**changes: Any) -> str:
    """The text of a fleet file with these fields."""
    command = [sys.executable, "{release}/shop.py", "--port", "{port}"]
    spec = {"instances": 1, "command": command, "release": str(SHOP / "releases" / "v1"), "listen": {"all": "127.0.0.1:0"}, **changes}
    return json.dumps({**HEAD, "kind": "LocalFleet", "spec": spec}, indent=1)


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below the folder, with what is in it and who may read it; logs and the counts of requests go on by themselves."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".log" or path.name in ("logs", "served.json") or path.parent.name == "logs":
            continue
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = f"{path.lstat().st_mode:o} {data}"
    return found


def refused(world: World, *arguments: str | Path, says: str, code: int = 2) -> Done:
    """The command ends with `code` and an error that says this; nothing in the state directory has changed."""
    existed, before = world.state.exists(), snapshot(world.state)
    env = {key: value for key, value in world.env.items() if key != "DEPLOYGUARD_DEBUG"}
    command = [sys.executable, "-m", "deployguard", *map(str, arguments)]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, env=env, cwd=world.folder, timeout=120, stdin=subprocess.DEVNULL
    )
    done = Done(ended.returncode, ended.stdout, ended.stderr)
    assert "Traceback" not in done.out + done.err
    assert done.code == code, done.out + done.err
    assert says.lower() in " ".join(done.err.split()).lower(), done.err
    assert done.out == ""
    assert len(done.err) < 4000, "an error should fit on a screen"
    assert (world.state.exists(), snapshot(world.state)) == (existed, before)
    return done


BAD_GUARDS: dict[str, tuple[str | bytes, str]] = {
    "unknown field": (guard().replace('"interval"', '"intervall"'), "did you mean `interval`"),
    "unknown field of a check": (guard([{**CHECK, "limt": "5%"}]), "did you mean `limit`"),
    "wrong type": (guard(interval=["1s"]), "interval"),
    "wrong unit": (guard(interval="300 parsecs"), "300 parsecs"),
    "exposure over 100 %": (guard(stages=[{"exposure": "120%", "soak": "2s"}]), "120%"),
    "stages that shrink": (guard(stages=[{"exposure": "50%", "soak": "2s"}, {"exposure": "20%", "soak": "2s"}]), "stage"),
    "a soak shorter than two polls": (guard(interval="2s"), "soak"),
    "a selector that does not parse": (guard([{**CHECK, "bad": 'http_requests_total{code=~"5.."'}]), "http_requests_total"),
    "a pattern that does not parse": (guard([{**CHECK, "bad": 'http_requests_total{code=~"5..("}'}]), "5..("),
    "two checks of one name": (guard([CHECK, CHECK]), "errors"),
    "binary data": (bytes(range(256)) * 20, "guard.yaml"),
    "nothing": ("", "guard.yaml"),
    "not a mapping": ("- 1\n- 2\n", "guard.yaml"),
    "broken YAML": ("kind: [Guard\n", "line"),
    "10 MB": (guard() + "\n# " + "x" * 10_000_000, "guard.yaml"),
    "10 MB of lists": ("kind: Guard\nspec: [" + "1, " * 3_500_000 + "1]\n", "guard.yaml"),
    "anchors that explode": (BOMB, "guard.yaml"),
    "deep nesting": ("spec: " + "[" * 20_000 + "]" * 20_000, "guard.yaml"),
    "a field twice": ("kind: Guard\nkind: Guard\n", "kind"),
    "two guards of one name": (guard() + "\n---\n" + guard(), "shop"),
    "an unknown kind": (guard().replace('"Guard"', '"Gard"'), "Guard"),
    "no such policy": (json.dumps({**HEAD, "spec": {"target": TARGET, "policy": "prodution"}}), "production"),
}


@pytest.mark.parametrize("name", BAD_GUARDS)
def test_a_bad_guard_file(world: World, name: str) -> None:
    """`run` refuses the file and says what is wrong with it."""
    text, says = BAD_GUARDS[name]
    (world.folder / "guard.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(world, "run", "-f", "guard.yaml", "--release", SHOP / "releases" / "v1", says=says)


BAD_FLEETS: dict[str, tuple[str, str]] = {
    "a command that does not exist": (fleet(command=["no-such-program"]), "no-such-program"),
    "a command as a text": (fleet(command="python3 shop.py"), "command"),
    "a release that does not exist": (fleet(release="nowhere"), "nowhere"),
    "no instances": (fleet(instances=0), "instances"),
    "a port that is none": (fleet(listen={"all": "127.0.0.1:70000"}), "70000"),
    "a guard": (guard(), "LocalFleet"),
}


@pytest.mark.parametrize("name", BAD_FLEETS)
def test_a_bad_fleet_file(world: World, name: str) -> None:
    """`local up` refuses the file and starts nothing."""
    text, says = BAD_FLEETS[name]
    (world.folder / "fleet.yaml").write_text(text)
    refused(world, "local", "up", "-f", "fleet.yaml", says=says)
    assert world.processes() == []


def test_a_port_in_use(world: World) -> None:
    """`local up` on an address that somebody holds says so, and nothing is left behind."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        (world.folder / "fleet.yaml").write_text(fleet(listen={"all": f"127.0.0.1:{port}"}))
        refused(world, "local", "up", "-f", "fleet.yaml", says=str(port))
    assert world.processes() == []


BAD_FLAGS: dict[str, tuple[list[str], str]] = {
    "an unknown flag": (["run", "--relase", "x"], "--relase"),
    "an unknown command": (["rollbak"], "rollbak"),
    "an unknown command of a group": (["local", "start"], "start"),
    "no guard": (["run", "--release", "."], "no guard was given"),
    "no change": (["run", "-f", "good.yaml"], "nothing to roll out"),
    "a missing guard file": (["run", "-f", "missing.yaml", "--release", "."], "missing.yaml"),
    "a directory as guard file": (["run", "-f", ".", "--release", "."], "directory"),
    "a missing fleet file": (["local", "up", "-f", "missing.yaml"], "missing.yaml"),
    "a directory as fleet file": (["local", "up", "-f", "."], "directory"),
    "an unknown output format": (["run", "-f", "good.yaml", "--release", ".", "-o", "xml"], "xml"),
    "an unknown output format of status": (["status", "-o", "markdwn"], "markdwn"),
    "a time that is none": (["run", "-f", "good.yaml", "--release", ".", "--timeout", "soon"], "soon"),
    "a negative time": (["run", "-f", "good.yaml", "--release", ".", "--stay", "-1s"], "-1s"),
    "a report nowhere": (["run", "-f", "good.yaml", "--release", ".", "--report", "no/where.md"], "no/where.md"),
    "a report of no kind": (
        ["run", "-f", "good.yaml", "--release", ".", "--report", "report.doc"],
        "end it in .json, .md, .txt, .xml, .yaml",
    ),
    "an unknown way to cancel": (["run", "-f", "good.yaml", "--release", ".", "--on-cancel", "explode"], "explode"),
    "a resume of nothing": (["run", "--resume"], "no guard has run"),
    "a resume with a file": (["run", "--resume", "-f", "good.yaml"], "--resume"),
    "an unknown guard in the file": (["run", "-f", "good.yaml", "--guard", "shoop", "--release", "."], "shoop"),
    "an unknown guard": (["why", "--guard", "shoop"], "shoop"),
    "an unknown guard to resume": (["run", "--resume", "--guard", "shoop"], "shoop"),
    "an approval of nothing": (["approve"], "no guard has run"),
    "a rollback of nothing": (["rollback"], "no guard has run"),
    "a stop without a reason": (["stop", "--all"], "reason"),
    "a fleet that is none": (["local", "down", "shoop"], "shoop"),
    "a start from an empty disk": (["local", "up"], "0 fleets"),
}


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_bad_flags(world: World, name: str) -> None:
    """Wrong flags, names and paths are refused before anything else happens."""
    (world.folder / "good.yaml").write_text(guard())
    arguments, says = BAD_FLAGS[name]
    refused(world, *arguments, says=says)


def test_beside_a_fleet_that_runs(world: World) -> None:
    """With a fleet in the state directory, bad releases, configurations, names and digests change nothing of it."""
    world.instances = 1
    world.up()
    good = world.guard(CHECK, policy=BRISK)
    refused(world, "run", "-f", good, "--release", "nowhere", says="nowhere")
    refused(world, "run", "-f", good, "--config", "nowhere.json", says="nowhere.json")
    refused(world, "run", "--resume", "--guard", "shop", says="shop")
    refused(world, "local", "up", "nobody", says="nobody")
    refused(world, "local", "logs", "7", says="instance")
    before = snapshot(world.state)
    with pytest.raises(UserError, match="has the digest"):
        world.client.admit("config", SHOP / "configs" / "green.json", expected="sha256:" + "0" * 64)
    assert snapshot(world.state) == before
