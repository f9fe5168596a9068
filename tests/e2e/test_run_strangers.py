"""Services that know nothing of deployguard are guarded just as well: by the balancer's counts, a probe, and their exits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.world import UNTIL_JUDGED, USERS, World

pytestmark = pytest.mark.e2e
FRONT = {"name": "front", "source": "probe", "every": "500ms", "timeout": "5s", "steps": [{"get": "/", "expect": {"contains": "Welcome"}}]}
PLAIN = {"config": None, "loaded": None, "reload": None, "ready": {"every": "200ms", "timeout": "5s", "within": "60s"}}

RUN = """#!/bin/sh
exec "$1" -m http.server "$2" --bind "$3" --directory "$4"
"""
APP = """import random

ERRORS = {errors}


def application(environ, start_response):
    if random.random() < ERRORS:
        raise RuntimeError("the order could not be read")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Welcome to {name}"]
"""


def site(world: World, word: str, files: dict[str, str]) -> Path:
    """A release made of these files."""
    made = world.folder / world.fresh(word)
    made.mkdir()
    for name, text in files.items():
        (made / name).write_text(text)
    return made


def good(world: World, guard: Path, release: Path) -> None:
    """The release is promoted to every instance."""
    done = world.run(guard, release=release)
    assert (done.code, done.data["outcome"]) == (0, "promoted"), done.data["reason"]
    assert world.on_stable()
    assert world.status()["serving"]["digest"] == done.data["candidate"]["digest"]


def bad(world: World, guard: Path, release: Path, check: str, reason: str) -> None:
    """The release is taken back from the one instance that ever ran it, for this reason."""
    before = world.uids()
    done = world.run(guard, release=release)
    report = done.data
    assert (done.code, report["outcome"]) == (10, "rolled_back"), report["reason"]
    assert (report["checks"][0]["name"], report["checks"][0]["reason"]) == (check, reason)
    assert report["exposure_max"]["instances"] == 1
    assert len(world.changed(before)) <= 1
    assert [q["digest"] for q in report["quarantined"]] == [report["candidate"]["release"]]
    assert world.on_stable()
    assert f"FAIL ({reason})" in world.why()


def test_http_server(world: World) -> None:
    """Python's `http.server`: good files are promoted; without the front page, or with a command that exits, they are taken back."""
    world.instances = 4
    files = {"run": RUN, "index.html": "Welcome to one", "catalogue": "tea"}
    command = ["sh", "{release}/run", sys.executable, "{port}", "{host}", "{release}"]
    world.up(release=site(world, "one", files), command=command, **PLAIN)
    guard = world.guard(USERS, FRONT)
    with world.load(rate=50, journeys=False):
        good(world, guard, site(world, "two", {**files, "index.html": "Welcome to two"}))
        bad(world, guard, site(world, "frontless", {"run": RUN, "catalogue": "honey"}), "front", "veto")
        exits = {**files, "run": "#!/bin/sh\necho cannot go on >&2\nexit 4\n"}
        bad(world, guard, site(world, "exits", exits), "health", "doomed")
        assert "cannot go on" in world.why()


def test_gunicorn(world: World) -> None:
    """A popular WSGI server: a good application is promoted; one that raises in a fifth of its requests, or at import, is taken back."""
    world.instances = 4
    server = [sys.executable, "-m", "gunicorn", "--bind", "{host}:{port}", "--chdir", "{release}", "--log-level", "warning"]
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(world.folder)}
    first = site(world, "one", {"app.py": APP.format(errors=0, name="one")})
    world.up(release=first, command=[*server, "app:application"], env=environment, **PLAIN)
    guard, careful = world.guard(USERS), world.guard(USERS, stages=UNTIL_JUDGED)
    with world.load(rate=50, journeys=False):
        good(world, guard, site(world, "two", {"app.py": APP.format(errors=0, name="two")}))
        bad(world, careful, site(world, "raises", {"app.py": APP.format(errors=0.2, name="three")}), "users", "evidence")
        bad(world, careful, site(world, "broken", {"app.py": "import nothing_of_this_name\n"}), "health", "doomed")
