"""Counting lines of logs: each once, from the start of what is new, through rotations, and what was lost is said."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deployguard.analysis.counters import increments
from deployguard.kube.errors import Forbidden, KubeError, Unreachable
from deployguard.kube.transport import Fetched
from deployguard.local.logfile import rotate
from deployguard.model.check import LogsCheck
from deployguard.model.reading import Answer, Counter, Counters, Missing
from deployguard.model.target import CANDIDATE, STABLE, Instance
from deployguard.model.version import Version
from deployguard.signals import podlogs
from deployguard.signals.fetch import Failure
from deployguard.signals.logs import FileLogs, LogsSource, Piece
from deployguard.signals.podlogs import Place, PodLogs, advance

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
VERSION = Version(release="sha256:aa")
CHECK = LogsCheck(name="errors", bad="ERROR|FATAL")


def instance(name: str = "web-1", uid: str = "u1", started: dt.datetime = NOW - 60 * SECOND) -> Instance:
    return Instance(name, uid, VERSION, VERSION, True, started=started)


def read(source: LogsSource, *crew: Instance, arm: str = CANDIDATE, through: dt.datetime | None = None, at: dt.datetime = NOW) -> Answer:
    return source.read(arm, crew or (instance(),), through, at)


def counter(answer: Answer, uid: str = "u1") -> Counter:
    assert isinstance(answer, Counters), answer
    return answer.by_instance[uid]


# Files


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "web-1.log"
    path.write_text("ERROR of a process before\n")
    return path


def say(log: Path, *lines: str, end: str = "\n") -> None:
    with log.open("a") as file:
        file.write("\n".join(lines) + end)


def source(log: Path, check: LogsCheck = CHECK) -> LogsSource:
    return LogsSource(check, FileLogs(lambda one: log.with_name(f"{one.id}.log")))


def test_each_line_counts_once(log: Path) -> None:
    """What stood there before is nobody's, every new line counts once, and half a line counts when it is whole."""
    one = source(log)
    assert counter(read(one)) == Counter(0, 0)
    say(log, "served /", "ERROR at /")
    assert counter(read(one)) == Counter(1, 2)
    assert counter(read(one)) == Counter(1, 2)
    say(log, "FAT", end="")
    assert counter(read(one)) == Counter(1, 2)
    say(log, "AL", "served /")
    answer = read(one)
    assert counter(answer) == Counter(2, 4)
    assert isinstance(answer, Counters)
    assert answer.born == {"u1": NOW - 60 * SECOND}


def test_total_says_which_lines_are_requests(log: Path) -> None:
    """Of lines that are no requests none counts, not even a bad one."""
    one = source(log, LogsCheck(name="a", bad=r"status=5\d\d", total=r"status=\d+"))
    read(one)
    say(log, "status=200", "status=503", "ERROR status unknown", "housekeeping")
    assert counter(read(one)) == Counter(1, 2)


def test_a_rotated_file_is_read_to_its_end_first(log: Path) -> None:
    """The fleet's own rotation loses no line; without the older file, or after two rotations at once, it is said that lines are lost."""
    one = source(log)
    read(one)
    say(log, "ERROR before")
    assert rotate(log, 0, keep=2)
    say(log, "ERROR after", "served /")
    assert counter(read(one)) == Counter(2, 3)
    say(log, *["served /"] * 9)
    assert rotate(log, 0, keep=0)
    say(log, "ERROR later")
    lost = read(one)
    assert isinstance(lost, Missing)
    assert lost.reason == "lost"
    assert "was emptied before it was read to its end" in lost.detail
    assert counter(read(one)) == Counter(3, 4)


def test_a_log_that_cannot_be_read(log: Path) -> None:
    """A missing file is an error of that instance, and not a count of nothing."""
    one = source(log)
    read(one)
    log.unlink()
    missing = read(one)
    assert isinstance(missing, Missing)
    assert missing.reason == "error"
    assert "No such file" in missing.detail


def test_a_line_counts_once_whatever_the_engine_has_seen() -> None:
    """A guard that is started again goes on from what was counted: the older process' count begins at zero and is taken as a reset."""
    last = {STABLE: {"old": Counter(5, 100)}}
    first = increments(last, STABLE, {"old": Counter(0, 0)}, {"old": NOW - 60 * SECOND}, NOW - 90 * SECOND)
    assert first == [Counter(0, 0)]


# Pods


class Api:
    """Answers as the API server does: lines from a whole second on, at most `limitBytes`."""

    def __init__(self) -> None:
        self.lines: dict[str, list[tuple[dt.datetime, int, str]]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.error: KubeError | None = None

    def write(self, pod: str, text: str, at: dt.datetime, nanoseconds: int = 0) -> None:
        self.lines.setdefault(pod, []).append((at, nanoseconds, text))

    def fetch(self, path: str, params: Mapping[str, str] | None = None, **more: Any) -> Fetched:
        assert params is not None
        self.asked.append((path, dict(params)))
        if self.error is not None:
            raise self.error
        since = dt.datetime.fromisoformat(params["sinceTime"])
        lines = [f"{at:%Y-%m-%dT%H:%M:%S}.{ns:09d}Z {text}\n" for at, ns, text in self.lines.get(path.split("/")[6], ()) if at >= since]
        return Fetched(200, {}, "".join(lines).encode()[: int(params["limitBytes"])])


def pods(api: Api, check: LogsCheck = CHECK) -> LogsSource:
    return LogsSource(check, PodLogs(api, "shop", check.container, timeout=20.0))


def test_lines_of_a_second_that_is_read_again_count_once() -> None:
    """The API gives whole seconds: what was read is passed over, also where lines carry the very same instant."""
    api = Api()
    one = pods(api)
    assert counter(read(one, through=NOW)) == Counter(0, 0)
    for ns in (1, 2, 2):
        api.write("web-1", "ERROR", NOW + SECOND, ns)
    assert counter(read(one)) == Counter(3, 3)
    assert counter(read(one)) == Counter(3, 3)
    api.write("web-1", "served", NOW + SECOND, 2)
    api.write("web-1", "ERROR", NOW + SECOND, 3)
    assert counter(read(one)) == Counter(4, 5)
    assert api.asked[-1] == (
        "/api/v1/namespaces/shop/pods/web-1/log",
        {"timestamps": "true", "sinceTime": "2026-01-01T12:00:01Z", "limitBytes": str(podlogs.FIRST_LIMIT)},
    )


def test_a_process_younger_than_the_last_poll_counts_from_its_start() -> None:
    """The first lines of a new instance count at once; of an old one only those since it was last counted, and with the next poll."""
    api = Api()
    for second, text in ((-90, "ERROR of the process before"), (1, "ERROR first"), (2, "served")):
        api.write("web-1", text, NOW + second * SECOND)
        api.write("web-2", text, NOW + second * SECOND)
    one = pods(api, LogsCheck(name="a", bad="ERROR", container="app"))
    young, old = instance(started=NOW + SECOND / 2), instance("web-2", "u2")
    first = read(one, young, old, through=NOW)
    assert (counter(first), counter(first, "u2")) == (Counter(1, 2), Counter(0, 0))
    assert counter(read(one, young, old, through=NOW), "u2") == Counter(1, 2)
    assert {params["container"] for _, params in api.asked} == {"app"}


def test_a_rotated_pod_log_is_said_to_have_lost_lines() -> None:
    """When the last line that was read is gone, so may be others: one poll is missing, and what is there counts in the next."""
    api = Api()
    one = pods(api)
    read(one, through=NOW)
    api.write("web-1", "served", NOW + SECOND)
    assert counter(read(one)) == Counter(0, 1)
    api.lines["web-1"] = []
    api.write("web-1", "ERROR", NOW + 3 * SECOND)
    lost = read(one)
    assert isinstance(lost, Missing)
    assert (lost.reason, "was rotated" in lost.detail) == ("lost", True)
    assert counter(read(one)) == Counter(1, 2)


def test_an_answer_that_is_cut_off_goes_on_with_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long answers are read in pieces without losing or doubling a line, also when one second is longer than a piece."""
    monkeypatch.setattr(podlogs, "FIRST_LIMIT", 200)
    monkeypatch.setattr(podlogs, "LAST_LIMIT", 3200)
    api = Api()
    place = Place("web-1", (NOW, 0), limit=200)
    for ns in range(1, 40):
        api.write("web-1", f"line {ns}", NOW + SECOND, ns)
    for n in range(5):
        api.write("web-1", f"late {n}", NOW + (2 + n) * SECOND)
    got: list[str] = []
    for _ in range(60):
        params = {"sinceTime": f"{place.at[0]:%Y-%m-%dT%H:%M:%SZ}", "limitBytes": str(place.limit)}
        piece = advance(place, api.fetch("/api/v1/namespaces/shop/pods/web-1/log", params).body)
        assert isinstance(piece, Piece)
        assert not piece.lost
        got += piece.lines
    assert got == [f"line {ns}" for ns in range(1, 40)] + [f"late {n}" for n in range(5)]


def test_a_second_that_cannot_be_read_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that writes more in a second than an answer may hold is passed over, and that is said."""
    monkeypatch.setattr(podlogs, "LAST_LIMIT", 100)
    place = Place("web-1", (NOW, 5), limit=100)
    piece = advance(place, b"2026-01-01T12:00:00.000000001Z long\n" * 3)
    assert isinstance(piece, Piece)
    assert "more in a second" in piece.lost
    assert place.at == (NOW + SECOND, 0)


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (Forbidden("could not read pods/web-1/log in shop: forbidden", hint="the missing rule: pods/log"), "error", "pods/log"),
        (Unreachable("could not read pods/web-1/log: no answer from https://k (timed out after 1 s)"), "timeout", "timed out"),
        (KubeError("no", status=400, api_message="a container name must be specified for pod web-1"), "error", "name it with `container`"),
    ],
)
def test_what_the_api_server_says_no_with(error: KubeError, reason: str, words: str) -> None:
    """A refusal is missing with its hint, never a count of nothing, and the lines come later."""
    api = Api()
    one = pods(api)
    read(one, through=NOW)
    api.error = error
    missing = read(one)
    assert isinstance(missing, Missing)
    assert (missing.reason, words in missing.detail) == (reason, True)
    api.error = None
    api.write("web-1", "ERROR", NOW + SECOND)
    assert counter(read(one)) == Counter(1, 1)


def test_troubles_of_the_kubelet_are_no_lines() -> None:
    """Where the log is gone the kubelet writes a sentence in its place; with zones and short fractions the instants are the same."""
    assert isinstance(advance(Place("web-1", (NOW, 0)), b"unable to retrieve container logs for containerd://ab\n"), Failure)
    place = Place("web-1", (NOW, 0))
    assert advance(place, b"2026-01-01T13:00:00.5+01:00 ERROR\n") == Piece(("ERROR",))
    assert place.at == (NOW, 500_000_000)


def test_no_leftovers() -> None:
    """Closing twice is harmless, and nothing was read before anybody asked."""
    api = Api()
    one = pods(api)
    one.close()
    one.close()
    assert api.asked == []
