"""The recording of a rollout: what is written is read back, and what is damaged is said in one sentence."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployguard.cli.app import run
from deployguard.engine.recording import Looked, Lost, Recorder, read
from deployguard.engine.replay import compared
from deployguard.errors import ForeignState
from deployguard.model.action import Observation
from deployguard.model.document import Document, Request
from deployguard.model.reading import Buckets, Counter, Counters, Gauges, Missing, Run, Runs, Window
from deployguard.model.rollout import Analyzing, Holding, Rollout
from deployguard.model.target import Exit, Instance, Served, TargetView
from deployguard.model.version import Version
from deployguard.stores.ledger import entries
from deployguard.stores.readings import FileReadings
from tests.unit.recorded import ERRORS, START, Yard

OLD, NEW = Version("sha256:" + "a" * 64), Version("sha256:" + "b" * 64)
AT = st.integers(0, 10**9).map(lambda n: START + dt.timedelta(microseconds=n))
NUMBER = st.one_of(st.integers(0, 10**6).map(float), st.floats(0, 1e12))
UID = st.sampled_from(["0-1", "1-1", "2-7", "ü / \n"])
TEXT = st.text(max_size=8)


def by_uid(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Values of some instances, in any order."""
    return st.dictionaries(UID, values, max_size=4)


ANSWERS = st.one_of(
    st.builds(Missing, TEXT, TEXT),
    st.builds(Counters, AT, by_uid(st.builds(Counter, NUMBER, NUMBER)), by_uid(AT), st.tuples(UID)),
    st.builds(Buckets, AT, st.just((0.1, 0.5)), by_uid(st.tuples(NUMBER, NUMBER, NUMBER))),
    st.builds(Gauges, AT, by_uid(NUMBER)),
    st.builds(Window, AT, AT, NUMBER, NUMBER),
    st.builds(Runs, AT, st.lists(st.builds(Run, AT, st.booleans(), NUMBER, TEXT, TEXT), max_size=3).map(tuple)),
)
VERSIONS = st.sampled_from([OLD, NEW])
INSTANCES = st.builds(
    Instance, UID, UID, VERSIONS, st.none() | VERSIONS, st.booleans(), st.none() | AT, st.none() | AT, TEXT, st.integers(0, 3),
    st.none() | st.builds(Exit, AT, st.integers(-9, 255), NUMBER, st.booleans(), st.lists(TEXT, max_size=2).map(tuple)),
)  # fmt: skip
SERVED = st.dictionaries(TEXT, st.builds(Served, st.integers(0, 10**6), st.integers(0, 99)), max_size=2)
SMALL = st.integers(0, 9)
VIEWS = st.builds(
    TargetView, SMALL, TEXT, SMALL, st.none(), st.lists(INSTANCES, max_size=4).map(tuple), st.none() | SMALL, served=SERVED
)  # fmt: skip
SEEN = st.builds(
    Observation,
    VIEWS | st.builds(Missing, TEXT, TEXT),
    st.dictionaries(
        st.sampled_from(["errors", "slow", "login"]), st.dictionaries(st.sampled_from(["stable", "candidate"]), ANSWERS), max_size=3
    ),
    st.lists(st.builds(Request, TEXT, st.sampled_from(["approve", "abort"]), TEXT, AT, TEXT), max_size=2).map(tuple),
    st.integers(0, 99),
    st.integers(0, 99),
    TEXT,
)
PHASES = st.one_of(st.builds(Analyzing, st.integers(0, 3), AT, AT), st.builds(Holding, st.integers(0, 3), st.just("blind"), TEXT, AT))
TICKS = st.lists(st.tuples(SEEN, PHASES, st.integers(0, 400), st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=8)


def rollout(phase: Any = None, seq: int = 1) -> Rollout:
    """A rollout in a phase."""
    return Rollout("r1", "candidate", "web", "web", {}, NEW, OLD, seq, phase or Analyzing(0, START, START), START, START)


@settings(max_examples=200, deadline=None)
@given(TICKS)
def test_whatever_was_seen_is_read_back(ticks: list[Any]) -> None:
    """Tick after tick of two drivers, across whole ticks and equal ones, to the order of every map."""
    recorders = Recorder("one", "0"), Recorder("two", "0")
    lines = [msgspec.json.encode(r.document(Document("web", rollout=rollout()), START)) for r in recorders]
    told, at = [], START
    for seen, phase, seconds, seq, saved, second in ticks:
        at += dt.timedelta(seconds=seconds)
        record = recorders[second].tick(seen, at, rollout(phase, seq), saved=saved, digest="ab" if saved else "")
        lines.append(msgspec.json.encode(record))
        told.append((at, seen, phase, seq, saved, "ab" if saved else ""))
    found = [r for r in read(map(msgspec.json.decode, lines), "r1") if isinstance(r, Looked)]
    assert [(r.at, r.seen, r.phase, r.seq, r.saved, r.digest) for r in found] == told
    assert repr([r.seen for r in found]) == repr([seen for _, seen, *_ in told])


def test_what_does_not_change_costs_almost_nothing() -> None:
    """An equal tick is told in the bytes of its instant, and the recorder keeps one tick."""
    seen = Observation(
        TargetView(1, "b", 20, None, tuple(Instance(str(n), f"{n}-0", OLD, OLD, ready=True) for n in range(20))),
        {"errors": {"stable": Counters(START, {f"{n}-0": Counter(1.0, 100.0 + n) for n in range(20)})}},
    )
    recorder = Recorder("one", "0")
    sizes = [
        len(msgspec.json.encode(recorder.tick(seen, START + dt.timedelta(seconds=n), rollout(), saved=False, digest=""))) for n in range(9)
    ]
    assert sizes[0] > 500
    assert max(sizes[1:]) < 150


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """Two rollouts: one that was promoted and ended by the next one while it was watched, and one that was rolled back."""
    yard = Yard(tmp_path_factory.mktemp("long"), {"watch": "1h"})
    yard.begin("r-1", 0.003)
    yard.run(watched=False)
    for _ in range(5):
        yard.tick()
    yard.begin("r-2", 0.3)
    yard.run()
    return yard


def why(yard: Yard, *arguments: str) -> int:
    """The exit code of `why` on the state of a yard."""
    return run(["why", *arguments, "--state", str(yard.store.state)])


def test_a_rollout_that_the_next_one_ended_is_replayed_to_its_end(long: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """Its last entry was made by the command that began the next one."""
    assert why(long, "r-1", "--replay", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["phase"] == "promoted"
    assert found["replay"]["carried"] == []
    assert found["replay"]["entries"] == len(found["trail"])
    assert why(long, "r-1", "--replay") == 0
    replayed = capsys.readouterr().out
    assert why(long, "r-1") == 0
    assert replayed.startswith(capsys.readouterr().out)


def test_one_decision_is_shown_with_what_was_known_then(long: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """With and without a replay; the number of an entry that is not there is a mistake of the user."""
    for extra in ([], ["--replay"]):
        assert why(long, "r-2/1", *extra, "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["phase"] == "advancing"
    assert why(long, "r-2/99", "--replay") == 2
    assert "so there is none 99" in capsys.readouterr().err
    assert why(long, "r-2/x") == 2
    assert "not the number of an entry" in capsys.readouterr().err


@pytest.fixture
def short(tmp_path: Path) -> Yard:
    """One rollout that was rolled back, to be damaged."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.3)
    yard.run()
    return yard


def lines_of(yard: Yard) -> tuple[Path, list[bytes]]:
    """The recording's file and its lines."""
    path = yard.readings.directory / "r-1.jsonl"
    return path, path.read_bytes().splitlines(keepends=True)


def test_a_ledger_that_says_otherwise_is_found(short: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """The first entry that differs is named with both texts, and the exit code is 1."""
    path = short.store.ledger.path
    path.write_text(path.read_text().replace("candidate 3", "candidate 4"))
    assert why(short, "--replay") == 1
    out = capsys.readouterr().out
    assert "entry 3, decided at" in out
    replayed, recorded = (next(line for line in out.splitlines() if line.startswith(f"  {word}: ")) for word in ("replayed", "recorded"))
    assert "candidate 3" in replayed
    assert "candidate 4" in recorded
    assert why(short, "--replay", "-o", "json") == 1
    difference = json.loads(capsys.readouterr().out)["replay"]["difference"]
    assert (difference["entry"], difference["recorded"]) == (3, recorded.removeprefix("  recorded: "))


def test_other_numbers_in_the_recording_decide_otherwise(short: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording whose policy was edited comes to other decisions, and a document saved at a move is compared too."""
    path, lines = lines_of(short)
    head = json.loads(lines[0])
    head["document"]["rollout"]["spec"]["stages"][0]["soak"] = "2s"
    path.write_bytes(json.dumps(head).encode() + b"\n" + b"".join(lines[1:]))
    assert why(short, "--replay") == 1
    assert "the document saved at" in capsys.readouterr().out


def test_a_torn_end_and_a_missing_one(short: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording that ends too early says where, and before which entry; the exit code is 1."""
    path, lines = lines_of(short)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    assert why(short, "--replay") == 1
    assert "but the recording ends at 2026-01-01 00:00:02 UTC, before entry 3 of 5" in capsys.readouterr().out


def test_a_line_that_is_missing_in_the_middle(short: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """What follows is not guessed at."""
    path, lines = lines_of(short)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    records = list(read(short.readings.read("r-1"), "r-1"))
    assert isinstance(records[3], Lost)
    assert len(records) == 4
    assert why(short, "--replay") == 1
    assert "before entry 3 of 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"at":"2026-01-01T00:00:00+00:00","seq":2,"answers":{}}\n', "an older version of deployguard wrote it"),
        (b'{"k":"document","format":9}\n', "has format 9"),
        (b'{"k":"tick","by":"x","n":"?","at":"never"}\n', "record 1 is damaged"),
        (b'{"k":"poem"}\n', "record 1 is none of a recording"),
        (b"", "nothing was recorded of it"),
        (b"[]\n", "nothing was recorded of it"),
    ],
)
def test_a_recording_that_cannot_be_read(short: Yard, capsys: pytest.CaptureFixture[str], line: bytes, said: str) -> None:
    """One clear error, with exit code 1 and a way on, never a traceback."""
    path, _ = lines_of(short)
    path.write_bytes(line)
    assert why(short, "--replay") == 1
    err = capsys.readouterr().err
    assert said in err
    assert "hint: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("damage", [{"view": "S0ktLgEA"}, {"view": "?"}, {"k": "tick"}, {"phase": {"phase": "sleeping"}}, {"heard": [1]}])
def test_a_damaged_tick_is_an_error_of_its_record(short: Yard, damage: dict[str, Any]) -> None:
    """Also when the record itself is a whole line."""
    path, lines = lines_of(short)
    record = {**json.loads(lines[1]), **damage}
    if damage == {"k": "tick"}:
        del record["phase"]
    path.write_bytes(lines[0] + json.dumps(record).encode() + b"\n")
    with pytest.raises(ForeignState, match="record 2 is damaged"):
        list(read(short.readings.read("r-1"), "r-1"))


def test_ticks_without_the_document_they_went_on_from_decide_nothing(short: Yard) -> None:
    """They are not replayed from a guess, and every entry counts as missing."""
    _, *rest = read(short.readings.read("r-1"), "r-1")
    found = compared(short.policy, rest, entries(short.store.ledger.path))
    assert (found.ticks, found.missing, found.identical) == (0, (1, 2, 3, 4, 5), False)


def test_a_recording_whose_beginning_is_gone(short: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the document the decisions went on from, nothing can be decided again."""
    path, lines = lines_of(short)
    path.write_bytes(b"".join(lines[1:]))
    assert why(short, "--replay") == 1
    assert "the beginning of its recording is gone" in capsys.readouterr().err


def test_a_limit_ends_a_recording_and_no_rollout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rollout is driven to its end; the replay says how far the recording goes."""
    yard = Yard(tmp_path)
    yard.readings = FileReadings(yard.store.directory, limit_bytes=6000)
    yard.new_driver()
    yard.begin("r-1", 0.003)
    assert yard.run().rollout.phase.__class__.__name__ == "Promoted"  # type: ignore[union-attr]
    assert why(yard, "--replay") == 1
    assert "but the recording ends at" in capsys.readouterr().out


def test_a_full_disk_loses_ticks_and_the_recording_goes_on_after_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was decided meanwhile is known from the document that the driver recorded next; all else comes out again."""
    yard = Yard(tmp_path, {"checks": [ERRORS]})
    real, full = os.open, [False]

    def refusing(path: Any, *arguments: Any, **more: Any) -> int:
        if full[0] and str(path).endswith("r-1.jsonl"):
            raise OSError(errno.ENOSPC, "full")
        return real(path, *arguments, **more)

    yard.begin("r-1", 0.003)
    with mock.patch("os.open", refusing):
        for second in range(1500):
            full[0] = 15 <= second < 25
            document = yard.tick()
            yard.readings.flush()
            if document.rollout is None or document.rollout.terminal:
                break
    assert why(yard, "--replay", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)["replay"]
    assert found["identical"]
    assert found["carried"] == [3, 4]
    assert found["ticks"] < second
