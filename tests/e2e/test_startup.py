"""What every command pays before it does anything: the modules that are loaded, and the time that takes."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time

import pytest

from tests.e2e.conftest import Tell
from tests.e2e.killing import BRISK, CHECK
from tests.e2e.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NEVER = ("kubernetes", "pydantic_settings", "rich.table")
HEAVY = ("pydantic", "httpx", "rich", "asyncio", "psutil", "yaml")
TIMES = 5


def imported(world: World, *arguments: str) -> set[str]:
    """Every module that the command loads."""
    command = [sys.executable, "-X", "importtime", "-m", "deployguard", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=world.env, check=True, timeout=120)
    found = set(re.findall(r"^import time:.*\|\s*(\S+)$", done.stderr, re.MULTILINE))
    assert "typer" in found, "nothing was measured"
    return found


def loads(found: set[str], name: str) -> bool:
    """Whether the module or anything below it is there."""
    return any(module == name or module.startswith(f"{name}.") for module in found)


def milliseconds(world: World, *arguments: str) -> float:
    """The median of a few runs of the command, from its start to its end, with its modules compiled as in an installation."""
    env = {key: value for key, value in world.env.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(world.folder / "compiled")
    taken = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "deployguard", *arguments], capture_output=True, env=env, check=True, timeout=120)
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken[1:])


@pytest.mark.parametrize("arguments", [("--version",), ("--help",)], ids=" ".join)
def test_light(world: World, arguments: tuple[str, ...], tell: Tell) -> None:
    """`--version` and `--help` load no library that only other commands need."""
    found = imported(world, *arguments)
    assert [name for name in (*NEVER, *HEAVY) if loads(found, name)] == []
    tell(f"deployguard {' '.join(arguments)}: {milliseconds(world, *arguments):.0f} ms")


def test_status(world: World, tell: Tell) -> None:
    """`status` of a guard that has a rollout, on a fleet that runs, reads and prints it without any of them, and without a table."""
    world.instances = 3
    world.up()
    stages = [{"instances": 1, "soak": "1s", "limit": "2m"}, {"exposure": "100%", "soak": "1s"}]
    guard = world.guard({**CHECK, "claims": 100}, policy={**BRISK, "stages": stages})
    with world.load(30, journeys=False):
        assert world.run(guard, release=world.release()).code == 0
    assert world.status()["state"].startswith("STABLE")
    found = imported(world, "status", "-o", "json")
    assert [name for name in (*NEVER, "pydantic", "httpx", "rich", "asyncio", "yaml") if loads(found, name)] == []
    tell(f"deployguard status -o json: {milliseconds(world, 'status', '-o', 'json'):.0f} ms")
