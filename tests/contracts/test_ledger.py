"""The ledger: what is appended stays, what is changed afterwards is found, and a crash in the middle of a line loses nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployguard.model.document import Document
from deployguard.model.rollout import Entry, Rollout, Waiting
from deployguard.model.version import Version
from deployguard.stores.chain import pack
from deployguard.stores.file import FileStore
from deployguard.stores.ledger import Ledger, entries, history, verify

NOW = dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC)


def entry(n: int, rollout: str = "r1", phase: str = "advancing", event: str = "transition", **data: object) -> Entry:
    return Entry(rollout, n, NOW + dt.timedelta(seconds=n), "shop", event, phase, f"step {n}", data)


def ledger(directory: Path) -> Ledger:
    return Ledger(directory / "ledger.jsonl", directory / "lock")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of five entries."""
    ledger(tmp_path).append(tuple(entry(n) for n in range(1, 6)))
    return tmp_path / "ledger.jsonl"


def numbers(path: Path) -> list[str]:
    return [each.id for each in entries(path)]


def test_an_entry_comes_back_as_it_was_appended(tmp_path: Path) -> None:
    """Every field of an entry, nested data included, is read back equal."""
    written = Entry(
        "r/1 ü", 1, NOW, "shop", "reading", "analyzing", 'a "quoted"\nline', {"counts": {"a": [1, 2.5, None]}, "prev": "x", "hash": "y"}
    )
    ledger(tmp_path).append((written,))
    assert list(entries(tmp_path / "ledger.jsonl")) == [written]
    assert list(entries(tmp_path / "ledger.jsonl", "r/1 ü")) == [written]


def test_the_chain_can_be_checked_with_plain_tools(path: Path) -> None:
    """`prev` is the SHA-256 of the line before as it stands in the file; the first line has none."""
    lines = path.read_bytes().splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["prev"] for each in found] == ["", *(hashlib.sha256(line).hexdigest() for line in lines[:-1])]
    assert [each["id"] for each in found] == [f"r1/{n}" for n in range(1, 6)]


def test_a_whole_ledger_verifies(path: Path) -> None:
    """Nothing is found in a ledger that nobody touched, nor in one that does not exist yet."""
    assert verify(path).ok
    assert verify(path).lines == 5
    assert verify(path.with_name("none")).ok


def edited(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b"step 3", b"step 9")


def edited_seal(lines: list[bytes]) -> None:
    lines[2] = lines[2][:-3] + b'0"}' if not lines[2].endswith(b'0"}') else lines[2][:-3] + b'1"}'


def resealed(lines: list[bytes]) -> None:
    lines[2] = pack(entry(3, phase="promoted"), json.loads(lines[2])["prev"])[:-1]


def removed(lines: list[bytes]) -> None:
    del lines[2]


def removed_first(lines: list[bytes]) -> None:
    del lines[0]


def reordered(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def inserted(lines: list[bytes]) -> None:
    lines.insert(2, pack(entry(9), json.loads(lines[2])["prev"])[:-1])


def doubled(lines: list[bytes]) -> None:
    lines.insert(3, lines[2])


def rubbish(lines: list[bytes]) -> None:
    lines[2] = b"\xff\x00 not json"


def blank(lines: list[bytes]) -> None:
    lines.insert(2, b"")


def edited_last(lines: list[bytes]) -> None:
    lines[4] = lines[4].replace(b"step 5", b"step 6")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (edited, 3),
        (edited_seal, 3),
        (resealed, 4),
        (removed, 3),
        (removed_first, 1),
        (reordered, 3),
        (inserted, 4),
        (doubled, 4),
        (rubbish, 3),
        (blank, 3),
        (edited_last, 5),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_every_kind_of_change_is_found_on_its_line(path: Path, change: Callable[[list[bytes]], None], line: int) -> None:
    """A line that was edited, removed, moved, inserted or repeated is named: itself, or the first that does not follow."""
    lines = path.read_bytes().splitlines()
    change(lines)
    path.write_bytes(b"\n".join(lines) + b"\n")
    found = verify(path)
    assert (found.ok, found.first_bad_line, found.lines) == (False, line, len(lines))
    assert f"line {line}" in found.text


def test_a_torn_end_is_named(path: Path) -> None:
    """A last line without its end is the first bad line."""
    path.write_bytes(path.read_bytes()[:-20])
    assert (verify(path).ok, verify(path).first_bad_line) == (False, 5)
    assert "torn" in verify(path).text


def test_an_end_that_was_cut_off_is_found_against_the_document(tmp_path: Path) -> None:
    """A chain without its last lines is whole in itself; the saved document knows that there was more."""
    store = FileStore(tmp_path, "shop")
    version = Version("sha256:" + "a" * 64)
    rollout = Rollout("r1", "candidate", "shop", "fleet/shop", {}, version, version, 1, Waiting(), NOW, NOW, outbox=(entry(4),), written=4)
    store.save(Document(guard="shop", rollout=rollout), "")
    store.append(tuple(entry(n) for n in range(1, 4)))
    assert store.verify().ok
    lines = store.ledger.path.read_bytes().splitlines(keepends=True)
    store.ledger.path.write_bytes(b"".join(lines[:2]))
    assert verify(store.ledger.path).ok
    assert (store.verify().ok, store.verify().first_bad_line) == (False, 3)
    store.ledger.path.unlink()
    assert (store.verify().ok, store.verify().first_bad_line) == (False, 1)


@pytest.mark.parametrize("torn", [b'{"at":"2026', b"\0" * 700, b'\0\0\0\n{"at":\n\0'], ids=["half a line", "zeros", "several lines"])
@pytest.mark.parametrize("fresh", [True, False], ids=["another process", "the same process"])
def test_a_torn_end_is_moved_aside_and_the_chain_goes_on(
    tmp_path: Path, torn: bytes, fresh: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The next append keeps the torn bytes in a file of their own, says so, and continues from the last whole line."""
    one = ledger(tmp_path)
    one.append((entry(1), entry(2)))
    with one.path.open("ab") as file:
        file.write(torn)
    again = ledger(tmp_path) if fresh else one
    assert again.highest("r1") == 2
    again.append((entry(3),))
    assert numbers(one.path) == ["r1/1", "r1/2", "r1/3"]
    assert verify(one.path).ok
    assert (tmp_path / "ledger.torn-1").read_bytes() == torn
    assert "ledger.torn-1" in caplog.text
    with one.path.open("ab") as file:
        file.write(b"more")
    again.append((entry(4),))
    assert (tmp_path / "ledger.torn-2").read_bytes() == b"more"
    assert verify(one.path).ok


def test_a_ledger_torn_in_its_first_line_starts_anew(tmp_path: Path) -> None:
    """When not even the first line was written whole, it is kept aside and the chain starts at the next append."""
    one = ledger(tmp_path)
    one.path.write_bytes(b'{"at":"20')
    one.append((entry(1),))
    assert verify(one.path).ok
    assert (tmp_path / "ledger.torn-1").read_bytes() == b'{"at":"20'


def test_every_cut_of_the_last_line_is_repaired(path: Path) -> None:
    """Wherever in its last line a ledger is cut, the entries before it stay and the lost one can be appended again."""
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole), 7):
        path.write_bytes(whole[:cut])
        ledger(path.parent).append((entry(5),))
        assert path.read_bytes() == whole


def test_appending_twice_adds_nothing(path: Path) -> None:
    """Entries that are there already, from this process or another, leave the file as it is."""
    before = path.read_bytes()
    one = ledger(path.parent)
    one.append((entry(2), entry(5)))
    one.append((entry(5),))
    assert path.read_bytes() == before


def test_a_gap_can_be_filled_later(tmp_path: Path) -> None:
    """An entry with a lower number than the highest is appended if it was never there."""
    one = ledger(tmp_path)
    one.append((entry(1), entry(4)))
    assert one.highest("r1") == 4
    one.append((entry(2), entry(4), entry(3)))
    assert numbers(one.path) == ["r1/1", "r1/4", "r1/2", "r1/3"]
    assert verify(one.path).ok


def test_two_writers_continue_each_others_chain(tmp_path: Path) -> None:
    """Two writers that take turns each see what the other appended."""
    one, two = ledger(tmp_path), ledger(tmp_path)
    for n in range(1, 9):
        (one if n % 2 else two).append((entry(n), entry(n, "r2")))
    assert (one.highest("r1"), two.highest("r2")) == (8, 8)
    assert len(numbers(one.path)) == 16
    assert verify(one.path).ok


def test_a_ledger_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """A writer whose file was restored from a copy forgets what it remembered."""
    one = ledger(tmp_path)
    one.append((entry(1),))
    copy = one.path.read_bytes()
    one.append((entry(2), entry(3)))
    one.path.write_bytes(copy)
    assert one.highest("r1") == 1
    one.append((entry(2, phase="holding"),))
    assert verify(one.path).ok
    lines = one.path.read_bytes().splitlines(keepends=True)
    one.path.write_bytes(lines[0] + pack(entry(7), hashlib.sha256(lines[0][:-1]).hexdigest()) * 3)
    assert one.highest("r1") == 7
    one.append((entry(2),))
    assert numbers(one.path)[-1] == "r1/2"
    one.path.unlink()
    assert one.highest("r1") == 0
    one.append((entry(1),))
    assert numbers(one.path) == ["r1/1"]


APPENDER = """
import sys, datetime as dt
from pathlib import Path
from deployguard.model.rollout import Entry
from deployguard.stores.ledger import Ledger
directory, name = Path(sys.argv[1]), sys.argv[2]
ledger = Ledger(directory / "ledger.jsonl", directory / "lock", lock_seconds=60)
for n in range(1, 31):
    entries = [Entry(r, n, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "shop", "transition", "advancing", name) for r in (name, "both")]
    ledger.append(tuple(entries))
"""


def test_processes_that_append_at_once_make_one_chain(tmp_path: Path) -> None:
    """Entries of several processes are all there, each id once, in one chain."""
    running = [subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), name]) for name in ("a", "b", "c")]
    assert [each.wait() for each in running] == [0, 0, 0]
    path = tmp_path / "ledger.jsonl"
    assert verify(path).ok
    assert sorted(numbers(path)) == sorted(f"{rollout}/{n}" for rollout in ("a", "b", "c", "both") for n in range(1, 31))


def test_entries_can_be_narrowed_down(tmp_path: Path) -> None:
    """Entries of one rollout, and only the newest few, still oldest first."""
    one = ledger(tmp_path)
    one.append((entry(1), entry(1, "r2", rollout2={"rollout": "r1"}), entry(2), entry(3)))
    assert [each.id for each in entries(one.path, "r1")] == ["r1/1", "r1/2", "r1/3"]
    assert [each.id for each in entries(one.path, "r1", limit=2)] == ["r1/2", "r1/3"]
    assert [each.id for each in entries(one.path, limit=1)] == ["r1/3"]
    assert list(entries(one.path, "r9")) == []


def test_a_line_that_cannot_be_read_is_left_out_aloud(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Readers go on after a line of rubbish, and the log names it."""
    lines = path.read_bytes().splitlines()
    lines[2] = b"rubbish"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with caplog.at_level(logging.WARNING):
        assert numbers(path) == ["r1/1", "r1/2", "r1/4", "r1/5"]
    assert "line 3 of" in caplog.text


def test_history_tells_what_became_of_each_rollout(tmp_path: Path) -> None:
    """Each rollout is summed up with its start, end, candidate, last phase and last transition, the newest first."""
    one = ledger(tmp_path)
    one.append(
        (
            entry(1, candidate="v2 + settings-a"),
            entry(2, phase="rolled_back"),
            entry(3, phase="rolled_back", event="request"),
            entry(10, "r2", phase="analyzing", candidate="v3"),
            entry(11, "r2", phase="analyzing", event="claim"),
        )
    )
    newest, oldest = history(one.path)
    assert (oldest.rollout, oldest.started, oldest.ended) == ("r1", NOW + dt.timedelta(seconds=1), NOW + dt.timedelta(seconds=2))
    assert (oldest.candidate, oldest.outcome, oldest.text, oldest.entries) == ("v2 + settings-a", "rolled_back", "step 2", 3)
    assert (newest.rollout, newest.ended, newest.candidate, newest.outcome, newest.text) == ("r2", None, "v3", "analyzing", "step 10")
    assert history(tmp_path / "none") == []
