"""The contract of the Inbox port, run on every inbox; and of the two small files beside it: the readings log and the stop switch."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from deployguard.errors import UserError, WorldError
from deployguard.model.base import encode
from deployguard.model.document import Request
from deployguard.model.version import Version
from deployguard.ports import Inbox
from deployguard.stores.inbox import FileInbox, MemoryInbox, new_request_id
from deployguard.stores.kube_inbox import KubeInbox
from deployguard.stores.readings import FileReadings
from deployguard.stores.stop import clear, stop, stopped

NOW = dt.datetime(2026, 3, 29, 1, 30, 0, 5, tzinfo=dt.UTC)
Opener = Callable[[], Inbox]


@pytest.fixture(params=["file", "memory", pytest.param("cluster", marks=pytest.mark.cluster)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens one more inbox over the same requests each time it is called, as another process would."""
    if request.param == "file":
        return lambda: FileInbox(tmp_path / "state" / "guards" / "shop")
    if request.param == "cluster":
        kube, namespace = request.getfixturevalue("kube"), request.getfixturevalue("namespace")
        return lambda: KubeInbox(kube, namespace, "shop")
    inbox = MemoryInbox()
    return lambda: inbox


def request_of(second: int, verb: str = "abort") -> Request:
    at = NOW + dt.timedelta(seconds=second)
    return Request(new_request_id(at), verb, "maria", at, "it burns", "r1", Version("sha256:a"))  # type: ignore[arg-type]


def test_requests_come_back_oldest_first(opener: Opener) -> None:
    """What was put is pending for everybody, equal and in the order in which it was asked."""
    asked = [request_of(second) for second in (0, 5, 60)]
    for each in (asked[2], asked[0], asked[1]):
        opener().put(each)
    assert opener().pending() == tuple(asked)


def test_the_same_request_is_there_once(opener: Opener) -> None:
    """Putting an id twice leaves one."""
    asked = request_of(0)
    opener().put(asked)
    opener().put(asked)
    assert opener().pending() == (asked,)


def test_removed_requests_are_gone_and_unknown_ids_harmless(opener: Opener) -> None:
    """Only what was named is removed."""
    first, second = request_of(0), request_of(1)
    inbox = opener()
    assert inbox.pending() == ()
    inbox.put(first)
    inbox.put(second)
    opener().remove((first.id, "nobody", first.id))
    assert inbox.pending() == (second,)


def test_ids_sort_by_time_and_never_repeat() -> None:
    """Ids made at later instants, in whatever time zone, sort later; two of one instant differ."""
    berlin = dt.timezone(dt.timedelta(hours=2))
    later = [NOW + dt.timedelta(microseconds=n) for n in (0, 1, 999_999, 1_000_001)]
    ids = [new_request_id(at.astimezone(berlin)) for at in later]
    assert ids == sorted(ids)
    assert new_request_id(NOW) != new_request_id(NOW)


def test_what_is_no_request_is_reported_once_and_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be read as a request, or is named for another, does not stop the others; it is kept in `bad/`."""
    inbox = FileInbox(tmp_path)
    good = request_of(0)
    inbox.put(good)
    (inbox.directory / "torn.json").write_bytes(encode(good)[:40])
    (inbox.directory / "renamed.json").write_bytes(encode(good))
    (inbox.directory / "folder.json").mkdir()
    (inbox.directory / "notes.txt").write_text("not ours")
    with caplog.at_level(logging.WARNING):
        assert inbox.pending() == (good,)
        assert inbox.pending() == (good,)
    assert sorted(p.name for p in (inbox.directory / "bad").iterdir()) == ["renamed.json", "torn.json"]
    assert [caplog.text.count(name) for name in ("torn.json", "renamed.json", "folder.json", "notes.txt")] == [1, 1, 1, 0]


def test_a_request_never_leaves_the_inbox_directory(tmp_path: Path) -> None:
    """An id with a path in it stays one file name; one that would be hidden is refused."""
    inbox = FileInbox(tmp_path)
    odd = Request("a/../../b", "pause", "maria", NOW)
    inbox.put(odd)
    assert inbox.pending() == (odd,)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inbox"]
    with pytest.raises(UserError):
        inbox.put(Request("..", "pause", "maria", NOW))


def test_an_inbox_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A request that could not be kept is an error with its path, for the person who asked."""
    (tmp_path / "inbox").write_text("in the way")
    with pytest.raises(WorldError, match="inbox: a part of the path is a file"):
        FileInbox(tmp_path).put(request_of(0))


def test_temporary_files_of_dead_writers_are_no_requests(tmp_path: Path) -> None:
    """What a killed writer left is never read, and the next put removes it."""
    inbox = FileInbox(tmp_path)
    inbox.put(request_of(0))
    left = inbox.directory / ".tmp-dead.json"
    left.write_bytes(b"{")
    assert len(inbox.pending()) == 1
    inbox.put(request_of(1))
    assert not left.exists()


def test_stop_is_for_everybody_until_it_is_cleared(tmp_path: Path) -> None:
    """The switch names who and why, and is empty before it is set and after it is cleared."""
    state = tmp_path / "state"
    assert stopped(state) == ""
    clear(state)
    stop(state, "maria", "INC-912")
    assert stopped(state).startswith("stopped by maria at 2")
    assert stopped(state).endswith(" UTC: INC-912")
    clear(state)
    assert stopped(state) == ""


def test_a_stop_that_cannot_be_read_counts_as_set(tmp_path: Path) -> None:
    """A file made by hand, or something that is no file, stops as well."""
    (tmp_path / "STOP").touch()
    assert "does not say by whom" in stopped(tmp_path)
    (tmp_path / "STOP").unlink()
    (tmp_path / "STOP").mkdir()
    assert stopped(tmp_path).startswith("treated as stopped: ")


def test_readings_come_back_in_order(tmp_path: Path) -> None:
    """Records of each rollout are read back as appended, across writers, and nothing is on disk before a flush."""
    one = FileReadings(tmp_path)
    one.append("r1", {"n": 1, "at": NOW})
    assert list(tmp_path.iterdir()) == []
    one.append("r2", {"n": 2})
    one.append("r1", {"n": 3})
    one.close()
    two = FileReadings(tmp_path)
    two.append("r1", {"n": 4})
    assert [each["n"] for each in two.read("r1")] == [1, 3, 4]
    assert list(two.read("r2")) == [{"n": 2}]
    assert list(two.read("none")) == []
    assert sorted(two.rollouts()) == ["r1", "r2"]


def test_a_reading_that_was_cut_off_costs_only_itself(tmp_path: Path) -> None:
    """After a torn line the next writer starts a line of its own."""
    one = FileReadings(tmp_path)
    one.append("r1", {"n": 1})
    one.flush()
    with (one.directory / "r1.jsonl").open("ab") as file:
        file.write(b'{"n":')
    one.append("r1", {"n": 2})
    assert [each["n"] for each in one.read("r1")] == [1, 2]


def test_only_the_latest_rollouts_keep_their_readings(tmp_path: Path) -> None:
    """The oldest logs are removed when new rollouts begin."""
    one = FileReadings(tmp_path, kept=3)
    for n in range(6):
        one.append(f"r{n}", {"n": n})
        one.flush()
    assert one.rollouts() == ["r5", "r4", "r3"]


def test_readings_stop_at_their_limit_and_say_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log at its limit keeps what it has; the rollout goes on."""
    one = FileReadings(tmp_path, limit_bytes=50)
    for n in range(20):
        one.append("r1", {"n": n})
    assert [each["n"] for each in one.read("r1")] == [0, 1, 2, 3, 4, 5]
    assert caplog.text.count("have reached 50 bytes") == 1


def test_readings_that_cannot_be_written_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Trouble with the log is said once and never raised."""
    (tmp_path / "readings").write_text("in the way")
    one = FileReadings(tmp_path)
    for n in range(3):
        one.append("r1", {"n": n})
        one.flush()
    assert caplog.text.count("could not keep readings of r1") == 1
