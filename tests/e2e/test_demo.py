"""`deployguard demo` as a user runs it: a real fleet, real users, the real command, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployguard.stores.chain import verify

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-P", "-m", "deployguard", "demo"]
FILES = {
    "demo.json",
    "fleet.yaml",
    "guard.yaml",
    "good-change.json",
    "ledger.jsonl",
    "load-good-change.jsonl",
    "load-guarded.jsonl",
    "load-unguarded.jsonl",
    "report.json",
    "report.md",
    "report.txt",
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose `tmp` is the demo's temporary directory; no process and no file of a demo is left there."""
    (tmp_path / "tmp").mkdir()
    yield tmp_path
    assert running_in(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def running_in(place: Path) -> list[str]:
    """Every process that names the directory in its command."""
    lines = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(place) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            lines.append(line)
    return lines


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(place / "tmp"), "CI": "true"}


def demo(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A whole demo, run in the directory."""
    return subprocess.run([*COMMAND, *words], cwd=place, env=environment(place), capture_output=True, text=True, check=False)


def documented(place: Path) -> dict[str, Any]:
    """The document among the results of a demo that ended well; every other file is there too, and the ledger is whole."""
    results = place / "demo-results"
    assert {path.name for path in results.iterdir()} >= FILES
    assert verify(results / "ledger.jsonl").ok
    assert json.loads((results / "report.json").read_text())["outcome"] == "rolled_back"
    found: dict[str, Any] = json.loads((results / "demo.json").read_text())
    return found


def check(found: dict[str, Any], incident: str) -> None:
    """What every incident must show."""
    without, kept = found["unguarded"], found["guarded"]
    assert found["incident"] == incident
    assert found["contained"] is True
    assert without["instances_exposed"] == 20
    assert kept["instances_exposed"] == 1
    assert kept["outcome"] == "rolled_back"
    assert kept["restored_s"] > 0
    assert [p["promise"] for p in kept["guarantees"] if not p["kept"]] == []
    assert found["good_change"]["outcome"] == "promoted"
    assert found["good_change"]["seconds"] > 0
    for act in (without, kept):
        assert act["requests"] > 0
        assert act["seconds"] > 0
        assert act["failed_share"] == pytest.approx(act["failed"] / act["requests"], abs=1e-6)
    assert kept["failed_share"] < without["failed_share"] / 2


def test_configuration_everywhere_at_once(place: Path) -> None:
    """The configuration of 2019 hurts every user without the guard, and one instance's users with it; one document says so."""
    done = demo(place, "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    check(found, "twitter-2019")
    assert found["unguarded"]["failed_share"] > 0.2
    assert {**documented(place), "seconds": 0} == {**found, "seconds": 0}


def test_green_inside_and_no_login(place: Path) -> None:
    """The release of 2022 is green inside and works for the boss; the probe ends it all the same, and the text says so."""
    done = demo(place, "twitter-2022")
    assert done.returncode == 0, done.stdout + done.stderr
    found = documented(place)
    check(found, "twitter-2022")
    inside = found["unguarded"]["inside"]
    assert inside["all_green"] is True
    assert inside["boss_signs_in"] is True
    assert inside["ordinary_user_signs_in"] is False
    for said in ("internal signals green, probe red", "FAIL (veto)", "20 of 20", "1 of 20", "twitter-2022: contained"):
        assert said in done.stdout
    assert "BROKEN" not in done.stdout


@pytest.mark.parametrize(
    ("shown", "number"), [("starting the shop", signal.SIGINT), ("1 of 3", signal.SIGTERM), ("analyzing", signal.SIGINT)]
)
def test_interrupted(place: Path, shown: str, number: signal.Signals) -> None:
    """A demo that is told to end, at any point, brings everything down, says so, and leaves with 130."""
    process = subprocess.Popen(COMMAND, cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if shown in line:
            break
    else:
        pytest.fail(f"the demo ended and never said `{shown}`")
    process.send_signal(number)
    out, said = process.communicate()
    assert process.returncode == 130, said
    assert out == ""
    assert "nothing is left running" in said
    assert not (place / "demo-results").exists()


def test_list(place: Path) -> None:
    """The list has the incidents that can be played, each with a sentence, and no others."""
    done = demo(place, "--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["twitter-2019", "twitter-2022"]
    assert [entry["incident"] for entry in json.loads(demo(place, "--list", "-o", "json").stdout)] == ["twitter-2019", "twitter-2022"]


def test_unknown_incident(place: Path) -> None:
    """An incident that cannot be played is a usage error that names the nearest one."""
    done = demo(place, "twiter-2022")
    assert done.returncode == 2
    assert "did you mean `twitter-2022`?" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", [("--results", "mine"), ("--results", "mine/notes.txt"), ("--results", "no/where"), ("-o", "xml")])
def test_wrong_words(place: Path, words: tuple[str, str]) -> None:
    """A place that holds somebody else's files, or is none, and an unknown format are refused before anything starts."""
    (place / "mine").mkdir()
    (place / "mine" / "notes.txt").write_text("keep me")
    done = demo(place, *words)
    assert done.returncode == 2
    assert "hint:" in done.stderr
    assert [path.name for path in (place / "mine").iterdir()] == ["notes.txt"]
