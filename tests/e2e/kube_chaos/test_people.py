"""People and pipelines at one guard: Ctrl-C, two jobs at once, a run that is handed over, and requests with and without a driver."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.cluster.api import until
from tests.e2e.conftest import Tell
from tests.e2e.kube_chaos.conftest import Make
from tests.e2e.kube_chaos.yard import WATCHED, Yard, kill

pytestmark = [pytest.mark.e2e, pytest.mark.cluster, pytest.mark.timeout(900)]


def said(yard: Yard, *words: str, code: int = 0) -> str:
    """What a command says, from another machine."""
    yard.elsewhere()
    done = yard.cli(*words)
    assert done.code == code, (words, done.code, done.err)
    assert "Traceback" not in done.err
    return done.err + done.out


def test_ctrl_c(yard: Make) -> None:
    """Ctrl-C, and the SIGTERM that CI systems send after it, take the candidate back as one request, with 130 and nothing left."""
    here = yard(1)
    before = here.pods()
    going = here.watching_one()
    going.signal(signal.SIGINT)
    going.signal(signal.SIGTERM)
    done = going.end()
    assert (done.code, done.data["outcome"], done.data["exit_code"]) == (130, "interrupted", 130), done.err
    assert done.data["restored"] is not None
    assert (here.exposed(), here.pods(), here.document().claim) == (0, before, None)
    assert here.document().quarantine == ()
    here.is_clean()


@pytest.mark.full
def test_a_second_job(yard: Make) -> None:
    """A second job leaves with the holder's name, or waits and then has its turn; neither disturbs the first."""
    here = yard(1)
    stages = [{"instances": 1, "soak": "20s", "limit": "5m"}, {"exposure": "100%", "soak": "1s"}]
    first = here.watching_one(stages=stages)
    seq = here.rollout().seq
    here.elsewhere()
    claim = here.document().claim
    assert claim is not None
    second = here.begin(here.guard(), "--set", "env.VERSION=3").end()
    assert second.code == 1
    assert claim.holder in second.err
    assert "--wait" in second.err
    assert (here.rollout().seq, here.phase()) == (seq, "analyzing 1")
    third = here.begin(here.guard(), "--set", "env.VERSION=4", "--wait")
    third.says("waiting:")
    assert first.end().code == 0
    done = third.end()
    assert done.code == 0, done.err
    assert here.runs("VERSION", "4")
    here.is_clean()


@pytest.mark.full
def test_handed_over(yard: Make) -> None:
    """With `--on-cancel hold` Ctrl-C leaves the candidate to a background process, which holds it until somebody decides."""
    here = yard(1)
    going = here.watching_one("--on-cancel", "hold")
    first = here.document().claim
    going.signal(signal.SIGINT)
    done = going.end()
    assert done.code == 130, done.err
    assert "a background process holds" in done.err
    here.reaches("holding 1")

    def driver() -> psutil.Process | None:
        claim = here.document().claim
        return psutil.Process(int(claim.holder.split("/")[1])) if claim is not None and first is not None and claim != first else None

    background = until("a background process drives", driver)
    assert background is not None
    try:
        assert (here.exposed(), background.is_running()) == (1, True)
        assert background.pid != going.process.pid
        said(here, "abort", "--reason", "no longer wanted")
        background.wait(60)
    finally:
        if background.is_running():
            background.kill()
    assert here.exposed() == 0
    here.is_clean()


@pytest.mark.full
def test_asked_while_somebody_drives(yard: Make) -> None:
    """`pause`, `resume`, `stop`, `retry`, `approve` and `rollback` from another machine reach the driver; it ends with 12."""
    here = yard(1)
    going = here.watching_one()
    said(here, "pause", "--reason", "lunch")
    assert here.phase() == "holding 1"
    said(here, "resume")
    here.reaches("analyzing 1", going)
    said(here, "stop", "--reason", "an incident elsewhere")
    assert here.phase() == "holding 1"
    said(here, "retry")
    here.reaches("analyzing 1", going)
    said(here, "approve")
    assert here.phase() == "analyzing 1"
    said(here, "rollback", "--reason", "customers complain")
    done = going.end()
    assert (done.code, done.data["outcome"]) == (12, "withdrawn"), done.err
    assert "customers complain" in said(here, "why")
    here.is_clean()


@pytest.mark.parametrize("verb", ["abort", pytest.param("rollback", marks=pytest.mark.full)])
def test_asked_while_nobody_drives(yard: Make, verb: str) -> None:
    """Without a driver `pause` and `resume` are taken in and leave the candidate where it is; `abort` and `rollback` take it back."""
    here = yard(1)
    assert kill(here.watching_one())
    said(here, "pause")
    assert (here.phase(), here.exposed(), here.document().claim) == ("holding 1", 1, None)
    told = said(here, "resume")
    assert "nobody drives" in told
    assert "deployguard run --resume" in told
    assert (here.phase() in ("advancing 1", "analyzing 1"), here.exposed(), here.document().claim) == (True, 1, None)
    said(here, verb, "--reason", "nobody was there")
    assert (here.exposed(), here.document().claim) == (0, None)
    here.is_clean()


@pytest.mark.full
def test_a_gate_and_a_freeze(yard: Make) -> None:
    """`approve` opens a gate; `stop --all` freezes every promotion of the namespace until it is cleared; then `rollback` returns."""
    here = yard(1)
    going = here.begin(here.guard(gates={"approval": [2]}), "--set", "env.VERSION=2")
    here.reaches("holding 1", going)
    said(here, "stop", "--all", "--reason", "INC-912")
    said(here, "approve")
    assert here.exposed() == 1
    assert not here.runs("VERSION", "2")
    said(here, "stop", "--all", "--clear")
    done = going.end()
    assert done.code == 0, done.err
    said(here, "rollback", "--reason", "customers complain")
    assert not here.runs("VERSION", "2")
    here.is_clean()


def test_nobody_resumes(yard: Make, tell: Tell) -> None:
    """The reaper, as its CronJob runs it, takes a killed run's canary back; `run --resume` then says so, and begins anew; so does `run`."""
    here = yard(1)
    before = here.pods()
    policy = {"lease": "5s", "stages": WATCHED}
    assert kill(here.watching_one(**policy))
    first = here.rollout()
    here.elsewhere()
    reaper = here.command.start("reap", "--for", "90s", "--every", "5s")
    until("the canary is gone", lambda: not here.canaries(), 90.0)
    until("the reaper says so", lambda: "nobody has driven it since" in reaper.place.with_suffix(".out").read_text())
    reaper.process.kill()
    reaper.process.wait()
    assert (here.pods(), here.phase()) == (before, "analyzing 1")
    done = here.resume().end()
    assert (done.code, done.data["outcome"]) == (12, "withdrawn"), done.err
    assert "lease" in done.data["reason"]
    assert here.rollout().id == first.id
    again = here.resume()
    until("it begins anew", lambda: here.rollout().id != first.id)
    here.reaches("analyzing 1", again)
    assert kill(again)
    here.cli("reap", "--for", "8s", "--every", "1s")
    until("the canary is gone", lambda: not here.canaries())
    here.elsewhere()
    last = here.begin(here.guard(), "--set", "env.VERSION=3").end()
    assert last.code == 0, last.err
    assert here.runs("VERSION", "3")
    assert here.document().quarantine == ()
    here.is_clean()
