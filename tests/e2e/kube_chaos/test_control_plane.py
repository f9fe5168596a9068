"""The control plane fails under a rollout: the API server stops, dies and comes back, and the database stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployguard.kube.client import connect
from tests.cluster.api import Api, fresh_namespace, until
from tests.cluster.fixtures import ready
from tests.cluster.places import ClusterError
from tests.cluster.rig import Rig
from tests.cluster.world import ClusterWorld
from tests.e2e.conftest import Tell
from tests.e2e.kube_chaos.plane import Pretender, plane
from tests.e2e.kube_chaos.yard import WATCHED, Yard, deployed, kill
from tests.e2e.world import Going

pytestmark = [pytest.mark.e2e, pytest.mark.cluster, pytest.mark.full, pytest.mark.timeout(900)]
OUTAGES = {"apiserver": 60.0, "etcd": 20.0}
"""Seconds for which a part stands still."""
SOAK = [{"instances": 1, "soak": "8s", "limit": "5m"}, {"exposure": "100%", "soak": "1s"}]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A control plane that only these tests use."""
    try:
        with plane(tmp_path_factory.mktemp("plane")) as found:
            yield found
    except ClusterError as error:
        pytest.skip(f"no cluster: {error}")


@pytest.fixture
def here(rig: Rig, tmp_path: Path) -> Iterator[Yard]:
    """A Deployment of two pods that are said to run."""
    api = Api(rig.place.kubeconfig)
    with fresh_namespace(api) as name:
        pretender, command = Pretender(api, name), ClusterWorld(tmp_path.resolve(), rig.place.kubeconfig, name)
        pretender.start()
        service = deployed(api, name, 2)
        until("the Deployment is ready", lambda: ready(api, service))
        found = Yard(api, connect(kubeconfig=str(rig.place.kubeconfig), timeout=20.0), service, command, tmp_path)
        found.elsewhere()
        yield found
        command.close()
        pretender.stop()


@contextmanager
def suspended(rig: Rig, name: str) -> Iterator[None]:
    """A part that stands still."""
    process = rig.processes.find(name)
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def stays_beside_it(going: Going, seconds: float) -> None:
    """The driver says what is the matter, and goes on trying for so long."""
    end = time.monotonic() + seconds
    going.says("trouble:")
    while time.monotonic() < end:
        assert going.process.poll() is None, going.err
        time.sleep(0.5)


def ends_well(here: Yard, going: Going) -> None:
    """The rollout is promoted as if nothing had been."""
    done = going.end()
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert here.runs("VERSION", "2")
    here.is_clean()
    verified = here.store().verify()
    assert verified.ok, verified.text


@pytest.mark.parametrize("part", ["apiserver", "etcd"])
def test_a_part_stands_still(rig: Rig, here: Yard, part: str) -> None:
    """While the API server, a minute long, or its database does not answer the driver waits, and then it goes on."""
    going = here.watching_one(stages=SOAK)
    with suspended(rig, part):
        stays_beside_it(going, OUTAGES[part])
    ends_well(here, going)


@pytest.mark.parametrize("part", ["apiserver", "etcd"])
def test_a_part_dies(rig: Rig, here: Yard, part: str) -> None:
    """The API server, or its database, is killed in the middle of a rollout and started again: the rollout goes on."""
    going = here.watching_one(stages=SOAK)
    process = rig.processes.find(part)
    assert process is not None
    process.kill()
    stays_beside_it(going, 15.0)
    rig.up(wants_node=False)
    ends_well(here, going)


def test_nobody_can_be_told(rig: Rig, here: Yard, tell: Tell) -> None:
    """Ctrl-C while the API server stands still: the way back is made as soon as it answers, by the same process."""
    going = here.watching_one(stages=WATCHED)
    with suspended(rig, "apiserver"):
        going.signal(signal.SIGINT)
        stays_beside_it(going, 15.0)
    back = time.monotonic()
    done = going.end()
    assert (done.code, here.exposed()) == (130, 0), done.err
    here.is_clean()
    tell(f"back {time.monotonic() - back:.1f} s after the API server answered again")


def test_killed_while_nobody_answers(rig: Rig, here: Yard) -> None:
    """A driver that is killed in the outage is followed by `run --resume` on another machine, which begins before the outage is over."""
    going = here.watching_one(stages=SOAK)
    with suspended(rig, "apiserver"):
        going.says("trouble:")
        assert kill(going)
        here.elsewhere()
        early = here.resume("--wait").end()
        assert early.code == 1
        assert "no answer from" in early.err
    ends_well(here, here.resume("--wait"))
