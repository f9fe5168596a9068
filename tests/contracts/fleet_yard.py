"""A place to keep one local fleet in: its state, its releases and configurations, and the questions that tests ask of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

from deployguard.errors import UserError
from deployguard.local import fleet
from deployguard.local.processes import MARK
from deployguard.model.fleet import FleetFile
from deployguard.model.target import Desired, Instance, TargetView
from deployguard.model.version import NOTHING, Version
from deployguard.targets.local import LocalTarget

T = TypeVar("T")
APP = Path(__file__).with_name("fleet_app.py")


def eventually(check: Callable[[], T], seconds: float = 30.0) -> T:
    """The first true answer of `check`; the last one is shown when there was none in time."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {found!r}"
        time.sleep(0.02)
    return found


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: dict[str, Any] = json.loads(answer.read())
        return body


class Yard:
    """One fleet named `web`, its state, and what a release and a configuration are made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.root = self.state / "fleets" / "web"
        self.release("one")
        self.config("first", {"name": "one"})

    def release(self, name: str, **flaws: object) -> Path:
        path = self.folder / "releases" / name
        path.mkdir(parents=True)
        shutil.copy(APP, path / "app.py")
        (path / "flaws.json").write_text(json.dumps({"name": name, **flaws}))
        return path

    def config(self, name: str, content: dict[str, object]) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    def file(self, **changes: object) -> FleetFile:
        spec = {
            "instances": 3,
            "command": [sys.executable, "{release}/app.py"],
            "release": "releases/one",
            "listen": {"all": "127.0.0.1:0"},
            "ready": {"get": "/ready", "every": "100ms", "within": "20s"},
            "loaded": {"get": "/version", "config": "$.config", "release": "$.release.digests[0]"},
            "restart": {"first": "50ms", "most": "200ms"},
            "stop": {"drain": "20s", "kill_after": "5s"},
            **changes,
        }
        return FleetFile.model_validate({"metadata": {"name": "web"}, "spec": spec})

    def up(self, **changes: object) -> TargetView:
        return fleet.up(self.file(**changes), self.folder, self.state)

    @property
    def target(self) -> LocalTarget:
        return LocalTarget(self.root)

    def admit(self, release: Path | None = None, config: Path | None = None) -> Version:
        client = self.target.client
        return Version(
            client.admit("release", release or self.folder / "releases" / "one"), client.admit("config", config) if config else NOTHING
        )

    def shift(self, fence: int, candidate: Version | None = None, count: int = 0, **rest: Any) -> None:
        view = self.target.observe()
        stable = rest.pop("stable", view.adopted)
        self.target.shift(Desired(fence, stable, candidate, count, **rest), view.basis)

    def on(self, version: Version, count: int, *, of: int = 3) -> TargetView:
        """The view in which `count` instances run and serve `version` and all others are ready as well."""

        def settled() -> TargetView | None:
            view = self.target.observe()
            good = [i for i in view.instances if i.ready and i.loaded == i.assigned]
            return view if len(good) == of and sum(i.loaded == version for i in good) == count else None

        found = eventually(settled)
        assert found is not None
        return found

    def supervisor(self) -> psutil.Process:
        return psutil.Process(json.loads((self.root / "supervisor.json").read_text())["pid"])

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this fleet, but its supervisor."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@contextlib.contextmanager
def a_yard(folder: Path) -> Iterator[Yard]:
    """A yard whose fleet, processes and files are gone afterwards; what `down` leaves running is an error."""
    yard = Yard(folder.resolve())
    yield yard
    if yard.root.exists():
        with contextlib.suppress(UserError):
            fleet.down("web", yard.state)
    left = yard.processes()
    for process in left:
        process.kill()
    # The immutable copies are read-only, also for whoever cleans up.
    for path in yard.state.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    assert not left


def by_id(view: TargetView) -> dict[str, Instance]:
    return {instance.id: instance for instance in view.instances}
