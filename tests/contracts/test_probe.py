"""The prober process and its pool: walks by path, heartbeats, a prober that dies or freezes, and when nothing is known."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployguard import clock
from deployguard.errors import UserError
from deployguard.model.base import encode
from deployguard.model.check import ProbeCheck
from deployguard.model.reading import Missing, Run, Runs
from deployguard.signals.journey import Job, Journey
from deployguard.signals.probe import ProbePool, ProbeSource
from tests.contracts.shop import WAIT, Shop, stride


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


@pytest.fixture
def pool() -> Iterator[ProbePool]:
    pool = ProbePool(restart_after=0.5)
    yield pool
    pool.close()


def check(*steps: dict[str, Any], name: str = "shop", every: float = 0.05, timeout: float = 5.0) -> ProbeCheck:
    times = {"every": dt.timedelta(seconds=every), "timeout": dt.timedelta(seconds=timeout)}
    return ProbeCheck.model_validate({"name": name, "steps": list(steps) or [{"get": "/"}], **times})


def until(ask: Callable[[], Any]) -> Any:
    """The first true answer; the test fails when none comes."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.01)
    raise AssertionError("it did not come about in time")


def look(source: ProbeSource, path: str = "all", through: dt.datetime | None = None) -> Runs | Missing:
    answer = source.read(path, (), through, clock.now())
    assert isinstance(answer, (Runs, Missing))
    return answer


def runs(source: ProbeSource, path: str = "all", through: dt.datetime | None = None) -> tuple[Run, ...]:
    answer = look(source, path, through)
    return answer.runs if isinstance(answer, Runs) else ()


def reason(source: ProbeSource, path: str = "all") -> str:
    answer = look(source, path)
    return answer.reason if isinstance(answer, Missing) else ""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_walks_are_told_apart_by_path(shop: Shop, pool: ProbePool) -> None:
    """Each path has its own walks: a sick candidate is red on its own path and green on stable's."""
    sick = Shop()
    sick.status = 500
    try:
        source = ProbeSource(check(), pool)
        pool.paths({"stable": shop.url, "candidate": sick.url, "all": f"127.0.0.1:{shop.port}"})
        red = until(lambda: runs(source, "candidate"))
        assert {(run.ok, run.step, run.detail) for run in red} == {(False, "1 GET /", "expected 200 to 399, got 500")}
        assert all(run.ok for path in ("stable", "all") for run in until(lambda path=path: runs(source, path)))
    finally:
        pool.close()
        sick.close()


def test_only_walks_newer_than_through_are_answered(shop: Shop, pool: ProbePool) -> None:
    """A walk that was counted is not answered again, and at most 64 are kept."""
    source = ProbeSource(check(every=0.001), pool)
    pool.paths({"all": shop.url})
    first = until(lambda: runs(source))
    newer = until(lambda: runs(source, through=first[-1].at))
    assert all(run.at > first[-1].at for run in newer)
    assert list(newer) == sorted(newer, key=lambda run: run.at)
    until(lambda: len(shop.requests) > 80)
    assert len(runs(source)) <= 64


def test_the_heart_beats_while_a_step_hangs(shop: Shop, pool: ProbePool) -> None:
    """A frozen service is red by timeout; the prober itself is seen to be alive all the time."""
    source = ProbeSource(check({"get": "/hang"}, timeout=1.2), pool)
    pool.paths({"all": shop.url})
    beats = set()

    def ended() -> tuple[Run, ...]:
        answer = look(source)
        if isinstance(answer, Missing):
            assert answer.reason == "prober"  # a very busy machine; never stale
            return ()
        beats.add(answer.beat)
        return answer.runs

    assert until(ended)[0].detail == "no answer within 1.2 s"
    assert len(beats) >= 3


def test_a_killed_prober_is_missing_and_comes_back(shop: Shop, pool: ProbePool) -> None:
    """Without a prober nothing is known, which is not a red walk; later another one goes on with the same job."""
    source = ProbeSource(check(), pool)
    pool.paths({"all": shop.url})
    until(lambda: runs(source))
    first = pool.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: reason(source) == "prober")
    killed = clock.now()
    assert all(run.ok for run in until(lambda: runs(source, through=killed)))
    assert pool.pid != first
    assert gone(first)


def test_a_stopped_prober_is_missing_and_replaced(shop: Shop) -> None:
    """A prober that lives and says nothing for three seconds is as good as gone."""
    pool = ProbePool(restart_after=4.0)
    try:
        source = ProbeSource(check(), pool)
        pool.paths({"all": shop.url})
        until(lambda: runs(source))
        first = pool.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        missing = until(lambda: reason(source) and look(source))
        assert isinstance(missing, Missing)
        assert missing.reason == "prober"
        assert "no heartbeat" in missing.detail
        until(lambda: runs(source) and pool.pid != first and gone(first))
    finally:
        pool.close()


def test_paths_may_change_while_it_walks(shop: Shop, pool: ProbePool) -> None:
    """A path that goes away is `no_instance` at once; a path with a new address is walked there."""
    source = ProbeSource(check(), pool)
    pool.paths({"all": shop.url, "candidate": shop.url})
    until(lambda: runs(source, "candidate"))
    pool.paths({"all": shop.url})
    assert reason(source, "candidate") == "no_instance"
    other = Shop()
    try:
        pool.paths({"all": other.url, "candidate": other.url})
        until(lambda: other.requests and runs(source, "candidate"))
    finally:
        pool.close()
        other.close()


def test_several_bases_of_a_path_are_walked_in_turn(shop: Shop, pool: ProbePool) -> None:
    """Each walk stays on one of them from end to end, so that one instance's cookies never reach another."""
    other = Shop()
    try:
        source = ProbeSource(check({"post": "/login", "form": {"user": "ada"}}, {"get": "/account"}), pool)
        pool.paths({"candidate": f"{shop.url}, {other.url}"})
        until(lambda: len(runs(source, "candidate")) >= 4)
        assert all(run.ok for run in runs(source, "candidate"))
        assert all(len([path for path, _, _ in one.requests if path == "/login"]) >= 2 for one in (shop, other))
    finally:
        pool.close()
        other.close()


def test_absolute_urls_are_walked_as_users_come_without_a_listener(shop: Shop, pool: ProbePool) -> None:
    """Where nobody says how users come, a journey that says it itself is walked there; one of paths alone is not."""
    absolute = ProbeSource(check({"get": f"{shop.url}/home"}, name="absolute"), pool)
    relative = ProbeSource(check(name="relative"), pool)
    pool.paths({"candidate": shop.url})
    assert until(lambda: runs(absolute, "all"))[0].ok
    assert until(lambda: runs(relative, "candidate"))[0].ok
    assert reason(relative, "all") == "no_instance"


def test_an_address_behind_an_api_server_needs_one(pool: ProbePool) -> None:
    """Without an API server at hand nothing is walked, and it is said which address needs it."""
    source = ProbeSource(check(), pool)
    pool.paths({"candidate": "kube://shop/web-1:8080"})
    answer = look(source, "candidate")
    assert isinstance(answer, Missing)
    assert answer == Missing("error", "kube://shop/web-1:8080 is behind an API server, and none is at hand")
    assert pool.pid is None


def test_an_arm_that_stays_empty_becomes_missing(shop: Shop, pool: ProbePool) -> None:
    """First nothing is known yet, then the arm is known to have no instance; an instance that comes is walked."""
    shop.absent = True
    source = ProbeSource(check(timeout=0.5), pool)
    pool.paths({"candidate": shop.url})
    first = look(source, "candidate")
    assert isinstance(first, Runs)
    assert first.runs == ()
    until(lambda: reason(source, "candidate") == "no_instance")
    shop.absent = False
    assert until(lambda: runs(source, "candidate"))[0].ok


def test_two_checks_share_a_prober_that_the_last_one_ends(shop: Shop, pool: ProbePool) -> None:
    """One process walks all journeys, and is gone when no source needs it."""
    one, two = ProbeSource(check(name="one"), pool), ProbeSource(check({"get": "/two"}, name="two"), pool)
    pool.paths({"all": shop.url})
    until(lambda: runs(one) and runs(two))
    pid = pool.pid
    assert pid is not None
    one.close()
    assert reason(one) == "prober"
    assert pool.pid == pid
    closed = clock.now()
    until(lambda: runs(two, through=closed))
    two.close()
    assert pool.pid is None
    assert gone(pid)


def test_without_a_path_no_process_is_started(pool: ProbePool) -> None:
    """A probe that has nowhere to go answers `no_instance` and costs nothing."""
    assert reason(ProbeSource(check(), pool)) == "no_instance"
    assert pool.pid is None


def test_the_prober_ends_with_its_guard(shop: Shop) -> None:
    """When the guard is killed, the end of standard input ends the prober, even in the middle of a hanging step."""
    program = (
        "import sys, time\n"
        "from deployguard.model.check import ProbeCheck\n"
        "from deployguard.signals.probe import ProbePool, ProbeSource\n"
        "pool = ProbePool()\n"
        "source = ProbeSource(ProbeCheck(name='a', steps=[{'get': '/hang'}], timeout='20s'), pool)\n"
        "pool.paths({'all': sys.argv[1]})\n"
        "source.read('all', (), None, None)\n"
        "print(pool.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    guard = subprocess.Popen([sys.executable, "-c", program, shop.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert guard.stdout is not None
    pid = int(guard.stdout.readline())
    until(lambda: shop.requests)
    guard.kill()
    guard.communicate()
    until(lambda: gone(pid))


def test_the_prober_speaks_json_lines_alone(shop: Shop) -> None:
    """The process by itself: a job in, beats and walks out, an odd line is passed over, and it ends with its input."""
    command = [sys.executable, "-P", "-m", "deployguard.signals.prober"]
    prober = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert prober.stdin is not None
    assert prober.stdout is not None
    job = Job({"a": Journey((stride("/"),), 0.05, 5.0)}, {"all": shop.url})
    prober.stdin.write(b"not a job\n" + encode(job) + b"\n")
    prober.stdin.flush()
    kinds = set()
    for line in prober.stdout:
        kinds.add(b"walked" if b'"kind":"walked"' in line else b"beat" if b'"kind":"beat"' in line else line)
        if len(kinds) == 2:
            break
    assert kinds == {b"walked", b"beat"}
    _, said = prober.communicate()
    assert prober.returncode == 0
    assert b"a job was not understood" in said


@pytest.mark.parametrize(
    "step",
    [{"get": "login"}, {"get": "ftp://x/"}, {"get": "/", "expect": {"json": {"a.b": 1}}}, {"get": "/", "expect": {"json": {"$.*": 1}}}],
)
def test_a_journey_that_cannot_be_walked_is_refused(pool: ProbePool, step: dict[str, Any]) -> None:
    """A URL or a JSONPath that makes no sense is the user's to correct, before anything starts."""
    with pytest.raises(UserError, match="the probe `shop` cannot"):
        ProbeSource(check(step), pool)
