"""The way to the API server is bad: too many requests, refusals, closed connections, lost answers, silence, and writes that land late."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.targets.kubernetes import marks
from tests.cluster.api import until
from tests.cluster.fixtures import Cluster
from tests.cluster.load import Load
from tests.e2e.conftest import Tell
from tests.e2e.kube_chaos.conftest import Make
from tests.e2e.kube_chaos.proxy import Asked, Weather, proxied, storm
from tests.e2e.kube_chaos.yard import CHECK, STRINGS, kill, watched

pytestmark = [pytest.mark.e2e, pytest.mark.cluster, pytest.mark.timeout(900)]
Way = tuple[Weather, Path]


@pytest.fixture
def way(node: Cluster, tmp_path: Path) -> Iterator[Way]:
    """The weather on the way to the API server, and a kubeconfig that takes it."""
    with proxied(node.kubeconfig, tmp_path / "way.kubeconfig") as found:
        yield found


def deployments(asked: Asked) -> bool:
    """Whether a request writes to a Deployment."""
    return asked.writes and "/deployments" in asked.place


@pytest.mark.parametrize(("seed", "bad"), [pytest.param(1, False, marks=pytest.mark.full), (2, True)])
def test_a_storm(node: Cluster, yard: Make, way: Way, seed: int, bad: bool, tell: Tell) -> None:
    """With one request in six throttled, refused, closed or answered to nobody, what was begun ends as in good weather; nothing is left."""
    here, (weather, kubeconfig) = yard(2), way
    here.through(kubeconfig)
    here.pull("storm")
    with (
        Load(here.service.address, 40),
        watched(node.kubeconfig, here.service.namespace, here.command.folder / "history.json") as history,
    ):
        going = here.begin(here.guard(CHECK), "--set", f"env.CONFIG={STRINGS}/storm")
        until("the first pod of the candidate is on its way", here.exposed)
        weather.fate = storm(seed)
        if bad:
            here.reaches("analyzing 1", going)
            here.pull("storm", ERROR_RATE=0.7)
        done = going.end()
        weather.fate = lambda _asked: ""
        assert done.code == (10 if bad else 0), done.err
        assert done.data["exit_code"] == done.code
        assert "Traceback" not in done.err
        here.is_clean(copies=False)
        history().never_went_back()
        verified = here.store().verify()
        assert verified.ok, verified.text
    tell(", ".join(f"{what or 'fine'} {count}" for what, count in sorted(weather.done.items())))


@pytest.mark.full
def test_silence(node: Cluster, yard: Make, way: Way) -> None:
    """When nothing is answered any more the driver says so, changes nothing, and goes on where it was when it is over."""
    here, (weather, kubeconfig) = yard(1), way
    here.through(kubeconfig)
    going = here.watching_one(stages=[{"instances": 1, "soak": "6s", "limit": "5m"}, {"exposure": "100%", "soak": "1s"}])
    weather.fate = lambda _asked: "hold"
    going.says("trouble:")
    time.sleep(5)
    assert (here.phase(), here.exposed()) == ("analyzing 1", 1)
    weather.fate = lambda asked: "refuse" if deployments(asked) else ""
    weather.release.set()
    time.sleep(2)
    weather.fate = lambda _asked: ""
    done = going.end()
    assert done.code == 0, done.err
    assert here.runs("VERSION", "2")
    here.is_clean()


@pytest.mark.parametrize("late", ["create", pytest.param("expose", marks=pytest.mark.full)])
def test_a_write_that_lands_after_the_way_back(yard: Make, way: Way, late: str) -> None:
    """A canary whose creation, or whose exposure, arrives after the rollback exposes nothing, and the reaper or the next run removes it."""
    here, (weather, kubeconfig) = yard(1), way
    before = here.pods()

    def slow(asked: Asked) -> bool:
        name = asked.place.rpartition("/")[2]
        if late == "create":
            return asked.method == "POST" and name == "deployments"
        return asked.method == "PATCH" and name.startswith("web-dg-")

    weather.fate = lambda asked: "hold" if deployments(asked) and slow(asked) else ""
    here.through(kubeconfig)
    going = here.begin(here.guard(lease="5s"), "--set", "env.VERSION=2")
    until("the write is on its way", lambda: weather.held)
    assert kill(going)
    here.elsewhere()
    asked = here.cli("abort", "--reason", "the pipeline was cancelled")
    assert asked.code == 0, asked.err
    assert (here.exposed(), here.pods()) == (0, before)
    fence = marks.fence_of(here.workload())
    weather.release.set()
    until("the write has landed", lambda: weather.landed)
    assert (weather.landed[0] < 300) == (late == "create"), weather.landed
    assert (here.exposed(), marks.fence_of(here.workload()), here.pods()) == (0, fence, before)
    if late == "create":
        reaped = here.cli("reap", "--for", "8s", "--every", "1s", "-o", "json")
        assert reaped.code == 0, reaped.err
    here.is_clean()


@pytest.mark.full
def test_a_stale_driver(node: Cluster, yard: Make, way: Way) -> None:
    """A driver that hangs in the write of a promotion is overtaken, and the candidate is back: neither it nor its write changes that."""
    here, (weather, kubeconfig) = yard(1), way
    before, fresh = here.pods(), here.command.env

    def promotes(asked: Asked) -> bool:
        return asked.method == "PATCH" and b"/spec/template" in asked.body and "dryRun" not in asked.path

    weather.fate = lambda asked: "hold" if promotes(asked) else ""
    here.through(kubeconfig)
    with watched(node.kubeconfig, here.service.namespace, here.command.folder / "history.json") as history:
        going = here.begin(here.guard(), "--set", "env.VERSION=2")
        until("the promotion is on its way", lambda: weather.held)
        going.signal(signal.SIGSTOP)
        here.command.env = fresh
        here.elsewhere()
        asked = here.cli("abort", "--reason", "the first machine hangs")
        assert asked.code == 0, asked.err
        settled = here.rollout()
        weather.release.set()
        until("the write has landed", lambda: weather.landed)
        assert weather.landed[0] in (409, 422)
        weather.fate = lambda _asked: ""
        going.signal(signal.SIGCONT)
        done = going.end()
        assert done.code == 12, done.err
        assert (here.exposed(), here.pods(), here.runs("VERSION", "2")) == (0, before, False)
        assert here.rollout().trail[: len(settled.trail)] == settled.trail
        assert {step.phase for step in here.rollout().trail[len(settled.trail) :]} <= {"rolled_back"}
        history().never_went_back()
    here.is_clean()


def test_leaving_at_once(yard: Make, way: Way) -> None:
    """A second Ctrl-C leaves while the way back is refused, says what may still serve and how to go on; that command completes it."""
    here, (weather, kubeconfig) = yard(1), way
    here.through(kubeconfig)
    going = here.watching_one()
    weather.fate = lambda asked: "refuse" if deployments(asked) else ""
    going.signal(signal.SIGINT)
    going.says("rolling_back")
    going.signal(signal.SIGTERM)
    time.sleep(1.5)
    assert going.process.poll() is None, "SIGTERM after SIGINT is the same request"
    going.signal(signal.SIGINT)
    done = going.end()
    assert (done.code, here.exposed()) == (130, 1), done.err
    assert "1 of 1 instances may still run the candidate" in done.err
    assert f"deployguard run --resume --guard web --namespace {here.service.namespace}" in done.err
    weather.fate = lambda _asked: ""
    here.elsewhere()
    again = here.resume().end()
    assert again.code == 130, again.err
    here.is_clean()
