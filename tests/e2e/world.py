"""A world to try deployguard in: a fleet of shops, its users, and the command, each a process of its own.

Everything is asked in the way a person asks: by the command line. Only the fleet's view is read directly, because it alone shows the
process of an instance (`uid`), by which a restart is seen.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from deployguard.local.client import FleetClient
from deployguard.local.processes import MARK
from deployguard.model.target import TargetView
from tests.e2e.puppet import STRINGS

T = TypeVar("T")
SHOP = Path(__file__).parents[2] / "examples" / "shop"
PATIENCE = 180.0
"""Seconds that anything may take here before it counts as hanging."""

ERRORS = {
    "name": "errors",
    "source": "scrape",
    "bad": 'http_requests_total{code=~"5.."}',
    "total": "http_requests_total",
    "worse_than_stable": {"ratio": 1.25, "margin": "0.2%", "floor": "1%"},
    "claims": 20,
    "limit": "15%",
}
USERS = {**{key: ERRORS[key] for key in ("worse_than_stable", "claims", "limit")}, "name": "users", "source": "balancer"}
LOGIN = {
    "name": "login",
    "source": "probe",
    "every": "500ms",
    "timeout": "2s",
    "steps": [
        {"get": "/login", "expect": {"status": 200, "contains": "Sign in"}},
        {"post": "/login", "form": {"user": "ada", "password": "open-sesame"}},
        {"get": "/account", "expect": {"status": 200, "contains": "Hello ada"}},
    ],
}
QUICK = {
    "stages": [
        {"instances": 1, "soak": "4s", "limit": "2m"},
        {"exposure": "50%", "soak": "2s", "limit": "2m"},
        {"exposure": "100%", "soak": "2s"},
    ],
    "interval": "500ms",
    "warmup": "5s",
    "pass": "soak",
    "lease": "15s",
    "advance_within": "60s",
    "blind": {"hold_after": "5s", "retreat_after": "2m", "hold_limit": "5m"},
    "rollback": {"within": "60s", "relapse_watch": "2s"},
    "watch": "2m",
}
"""A policy that is over in seconds and yet patient with a busy machine."""
UNTIL_JUDGED = [{"instances": 1, "soak": "5m"}, {"exposure": "100%", "soak": "2s"}]
"""Stages for what is to be judged bad: the soak never ends before the evidence is there, however few requests come."""


def eventually(check: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first true answer of `check`; the last one is shown when there was none in time."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {found!r}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def instant(text: str) -> dt.datetime:
    """The instant of a report."""
    return dt.datetime.fromisoformat(text)


def words(report: dict[str, Any]) -> list[str]:
    """The phases of the trail, in order."""
    return [step["phase"] for step in report["trail"]]


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its output as JSON."""
        assert self.out.strip(), self.err
        return json.loads(self.out)


@dataclass
class Going:
    """A command that runs, with its output in files."""

    process: subprocess.Popen[bytes]
    place: Path

    @property
    def err(self) -> str:
        """What it said on standard error so far."""
        return self.place.with_suffix(".err").read_text()

    def says(self, text: str, *, times: int = 1) -> None:
        """Wait until it has said `text`, `times` times."""

        def said() -> bool:
            assert self.process.poll() is None or self.err.count(text) >= times, f"ended without {text!r}: {self.err}"
            return self.err.count(text) >= times

        eventually(said)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> Done:
        """Wait for its end."""
        code = self.process.wait(PATIENCE)
        return Done(code, self.place.with_suffix(".out").read_text(), self.err)


@dataclass
class World:
    """One fleet of shops with its own state directory and free ports."""

    folder: Path
    instances: int = 6
    made: int = 0
    going: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {**os.environ, "DEPLOYGUARD_STATE": str(self.state), "NO_COLOR": "1", "DEPLOYGUARD_DEBUG": "1"}
        self.client = FleetClient(self.state / "fleets" / "shop", timeout=30.0)

    # What is rolled out.

    def fresh(self, word: str) -> str:
        """A name that was not used before."""
        self.made += 1
        return f"{word}-{self.made}"

    def release(self, word: str = "v", **flaws: Any) -> Path:
        """A release of the shop with these flaws, unlike every other one."""
        return self._make(self.fresh(word), flaws)

    def config(self, word: str = "config", **flaws: Any) -> Path:
        """A configuration of the shop with these flaws, unlike every other one."""
        return self._make(self.fresh(word), flaws, "--config")

    def _make(self, name: str, flaws: dict[str, Any], *options: str) -> Path:
        out = self.folder / (f"{name}.json" if options else name)
        given = [part for key, value in flaws.items() for part in ("--flaw", f"{key}={json.dumps(value)}")]
        command = [sys.executable, str(SHOP / "make_release.py"), "--name", name, *options, *given, str(out)]
        subprocess.run(command, check=True, capture_output=True)
        return out

    def puppet(self, word: str = "puppet") -> Path:
        """A release whose flaws are pulled later, by `pull`."""
        made = self.release(word)
        pages = made / "pages.py"
        pages.write_text(pages.read_text() + STRINGS.format(path=str(self._strings(made))))
        return made

    def _strings(self, release: Path) -> Path:
        return self.folder / f"{release.name}.strings"

    def pull(self, release: Path, **flaws: Any) -> None:
        """From now on every instance of the puppet has these flaws and no others; with `wait`, none of them starts."""
        path = self._strings(release)
        path.with_suffix(".new").write_text(json.dumps(flaws))
        path.with_suffix(".new").replace(path)

    # The fleet.

    def up(self, *, release: Path | None = None, **changes: Any) -> TargetView:
        """Start the fleet."""
        spec: dict[str, Any] = {
            "instances": self.instances,
            "command": [sys.executable, "{release}/shop.py", "--port", "{port}", "--host", "{host}", "--config", "{config}"],
            "release": str(release or SHOP / "releases" / "v1"),
            "config": str(SHOP / "configs" / "blue.json"),
            "ready": {"get": "/healthz", "every": "200ms", "timeout": "5s", "within": "60s", "unready_after": 5},
            "loaded": {"get": "/version", "config": "$.config"},
            "reload": {"signal": "HUP"},
            "stop": {"drain": "2s"},
            "listen": {"all": f"127.0.0.1:{self.port}"},
            **changes,
        }
        file = {"apiVersion": "deployguard.dev/v1alpha1", "kind": "LocalFleet", "metadata": {"name": "shop"}}
        path = self.folder / "fleet.yaml"
        path.write_text(json.dumps({**file, "spec": {key: value for key, value in spec.items() if value is not None}}))
        done = self.cli("local", "up", "-f", str(path))
        assert done.code == 0, done.err
        return self.view()

    def view(self) -> TargetView:
        """The fleet as it is now."""
        return self.client.observe()

    def uids(self) -> dict[str, str]:
        """The process of each instance: it changes at every start."""
        return {instance.id: instance.uid for instance in self.view().instances}

    def changed(self, before: dict[str, str]) -> set[str]:
        """The instances that have been started again since `before`."""
        now = self.uids()
        return {name for name, uid in before.items() if now.get(name) != uid}

    def on_stable(self) -> bool:
        """Whether every instance is ready and runs what the fleet was told is stable, and nothing is a candidate."""
        view = self.view()
        told = view.told
        stable = told.stable if told is not None else view.adopted
        return all(i.ready and i.loaded == stable and i.assigned == stable for i in view.instances)

    def supervisor(self) -> psutil.Process:
        """The fleet's supervisor."""
        return psutil.Process(self.client.ping())

    def kill(self, instance: str) -> None:
        """Kill the process of an instance, as a crash would."""
        address = next(i.address for i in self.view().instances if i.id == instance)
        self.process_at(address).kill()

    def process_at(self, address: str) -> psutil.Process:
        """The process of the fleet that listens on an address."""
        port = int(address.rpartition(":")[2])
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp")):
                    return process
        raise AssertionError(f"nobody of the fleet listens on {address}")

    # The guard.

    def guard(self, *checks: dict[str, Any], policy: dict[str, Any] | str = QUICK, name: str = "shop", **over: Any) -> Path:
        """A guard file; `over` replaces fields of the policy."""
        spec = {"target": {"kind": "LocalFleet", "name": "shop"}, "policy": {**policy, **over} if isinstance(policy, dict) else policy}
        if isinstance(policy, str):
            spec["override"] = over
        spec["checks"] = list(checks)
        path = self.folder / f"{self.fresh('guard')}.yaml"
        head = {"apiVersion": "deployguard.dev/v1alpha1", "kind": "Guard", "metadata": {"name": name}}
        path.write_text(json.dumps({**head, "spec": spec}))
        return path

    def start(self, *arguments: str | Path) -> Going:
        """Start the command and do not wait for it."""
        place = self.folder / self.fresh("command")
        with place.with_suffix(".out").open("wb") as out, place.with_suffix(".err").open("wb") as err:
            command = [sys.executable, "-m", "deployguard", *map(str, arguments)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self.env, cwd=self.folder)
        self.going.append(process)
        return Going(process, place)

    def cli(self, *arguments: str | Path) -> Done:
        """Run the command to its end."""
        return self.start(*arguments).end()

    def begin(self, guard: Path, *arguments: str | Path, release: Path | None = None, config: Path | None = None) -> Going:
        """Start `run` with this change."""
        change: list[str | Path] = [part for part in (("--release", release), ("--config", config)) if part[1] for part in part]  # type: ignore[misc]
        return self.start("run", "-f", guard, *change, "--stay", "0s", "-o", "json", *arguments)

    def run(self, guard: Path, *arguments: str | Path, release: Path | None = None, config: Path | None = None) -> Done:
        """`run` with this change, to its end."""
        return self.begin(guard, *arguments, release=release, config=config).end()

    def status(self) -> dict[str, Any]:
        """The only guard's row of `status`."""
        (row,) = self.cli("status", "-o", "json").data
        return dict(row)

    def why(self) -> str:
        """`why` as a person reads it."""
        done = self.cli("why")
        assert done.code == 0, done.err
        return done.out

    def ledger_is_whole(self) -> bool:
        """Whether the ledgers of all guards verify."""
        return self.cli("ledger", "verify").code == 0

    # The users.

    @contextlib.contextmanager
    def load(self, rate: float = 60, *, journeys: bool = True, seconds: float = 3600) -> Iterator[Users]:
        """Users who come all the time, until the block ends."""
        out = self.folder / f"{self.fresh('load')}.jsonl"
        command = [sys.executable, str(SHOP / "load.py"), "--url", self.url, "--rate", str(rate), "--seconds", str(seconds)]
        process = subprocess.Popen([*command, *(["--journeys"] if journeys else []), "--out", str(out)], env=self.env)
        self.going.append(process)
        users = Users(process, out)
        try:
            eventually(lambda: out.exists() and out.stat().st_size > 0)
            yield users
        finally:
            users.stop()

    # The end.

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this world."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                around = process.environ()
                if around.get("DEPLOYGUARD_STATE") == str(self.state) or around.get(MARK, "").startswith(str(self.state)):
                    found.append(process)
        return found

    def close(self) -> None:
        """End everything and remove the state; a process that is left then is an error."""
        for process in self.going:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        for stopped in self.processes():
            with contextlib.suppress(psutil.Error):
                stopped.send_signal(signal.SIGCONT)
        if (self.state / "fleets" / "shop").exists():
            self.cli("local", "down")
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.processes(), 15.0)
        left = self.processes()
        names = [" ".join(process.cmdline()) for process in left]
        for process in left:
            process.kill()
        for path in self.folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(self.folder)
        assert not names


@dataclass
class Users:
    """A load that is being given."""

    process: subprocess.Popen[bytes]
    out: Path

    def stop(self) -> dict[str, Any]:
        """End it; the summary of everything that happened."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE)
        summary: dict[str, Any] = json.loads(self.out.read_text().splitlines()[-1])
        return summary
