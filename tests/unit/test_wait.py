"""`deployguard wait`: the verdict of a rollout that somebody else drives, as an exit code."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployguard import clock
from deployguard.cli.wait import waited
from deployguard.errors import UserError, WorldError
from deployguard.kube.client import Kube
from deployguard.model.document import Claim, Document
from deployguard.stores.file import FileStore
from deployguard.wiring.home import FileHome
from tests.properties.world import START, Sim
from tests.unit.reports import ended, ticked


def no_cluster() -> Kube:
    """There is none."""
    raise AssertionError


class World:
    """A store, and a clock in which each sleep saves the next document."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = FileHome(root, no_cluster)
        self.store = FileStore(root, "web")
        self.now = START + dt.timedelta(seconds=10)
        self.next: list[Document | None] = []
        monkeypatch.setattr(clock, "now", lambda: self.now)
        monkeypatch.setattr(clock, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        """Time passes, and the driver saves."""
        self.now += dt.timedelta(seconds=seconds)
        following = self.next.pop(0) if self.next else None
        if following is not None:
            self.save(following)

    def save(self, document: Document) -> None:
        """The document is what is saved."""
        self.store.save(msgspec.structs.replace(document, claim=Claim("ci", self.now + dt.timedelta(seconds=30))), self.store.load()[1])

    def wait(self, *, new: float | None = None, timeout: float | None = None) -> dict[str, Any]:
        """The report of waiting from now on."""
        spans = [None if s is None else dt.timedelta(seconds=s) for s in (new, timeout)]
        return waited(self.home, self.store, self.now, *spans)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A store without a document."""
    return World(tmp_path, monkeypatch)


def going(bad: float = 0.0) -> Document:
    """A rollout in its first stage."""
    return ticked(Sim(bad=bad), 4)


@pytest.mark.parametrize(("bad", "code"), [(0.0, 0), (0.2, 10)])
def test_the_exit_code_is_that_of_the_driver(world: World, bad: float, code: int) -> None:
    """It waits while the rollout goes on, and ends as `run` does: promoted, or rolled back."""
    world.save(going(bad))
    world.next = [None, None, ended(Sim(bad=bad))]
    report = world.wait()
    assert report["exit_code"] == code
    assert not world.next


def test_a_rollout_that_nobody_drives_is_not_waited_for(world: World) -> None:
    """A candidate that serves without a driver is 11, not a pipeline that hangs."""
    world.save(going())
    report = world.wait()
    assert (report["exit_code"], report["outcome"]) == (11, "failed")
    assert "run --resume" in report["reason"]


def test_waiting_has_an_end_of_its_own(world: World) -> None:
    """124, and the rollout is left as it is."""
    world.save(going())
    before = world.store.load()
    assert world.wait(timeout=20)["exit_code"] == 124
    assert world.store.load() == before


def test_an_older_verdict_does_not_stand_for_a_new_deploy(world: World) -> None:
    """With `--new` a rollout that was over before is not reported; one that begins meanwhile is; none at all is no success."""
    world.save(ended(Sim(bad=0.2)))
    world.now += dt.timedelta(hours=1)
    report = world.wait(new=30)
    assert (report["exit_code"], report["rollout"]) == (1, None)
    assert "nobody guards it" in report["reason"]
    sim = Sim()
    sim.clock.at = world.now
    later = ended(sim)
    assert later.rollout is not None
    world.next = [None, msgspec.structs.replace(later, rollout=msgspec.structs.replace(later.rollout, started=world.now))]
    assert world.wait(new=30)["outcome"] == "promoted"


def test_without_a_rollout_it_is_a_mistake(world: World) -> None:
    """Nothing to wait for, unless one is said to begin."""
    with pytest.raises(UserError, match="has no rollout"):
        world.wait()


def test_a_store_that_is_away_for_a_moment_fails_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that is restarted meanwhile is asked again."""
    world.save(ended(Sim()))
    load: Callable[[], Any] = world.store.load
    answers = iter([WorldError("away"), WorldError("away")])

    def loaded() -> Any:
        for error in answers:
            raise error
        return load()

    monkeypatch.setattr(world.store, "load", loaded)
    assert world.wait()["exit_code"] == 0
