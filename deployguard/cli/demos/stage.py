"""Where the demo plays: a fleet of its own in a temporary directory, the processes it starts, and how all of it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import yaml

from deployguard import clock
from deployguard.cli.demos.incidents import Incident, shop_folder
from deployguard.cli.demos.show import Shown
from deployguard.cli.demos.users import LONGEST_S, RATE, Users
from deployguard.errors import DeployguardError, WorldError
from deployguard.files.guard_file import load_bundle
from deployguard.local import fleet
from deployguard.local.client import FleetClient
from deployguard.model.target import Desired, TargetView
from deployguard.model.version import Version
from deployguard.stores.file import FileStore

FLEET = "shop"
GUARD = "shop"
PATIENCE_S = 30.0
_HEADER = "# Written by `deployguard demo`. {what}\n"


class Interrupted(Exception):
    """Somebody asked the demo to end."""


class Stage:
    """One demo's fleet, files and processes. Everything is gone after `close`, which never raises."""

    def __init__(self, shown: Shown, incident: Incident) -> None:
        self.shown = shown
        self.incident = incident
        self.shop = shop_folder()
        self.work = Path(tempfile.mkdtemp(prefix="deployguard-demo-")).resolve()
        self.state = self.work / "state"
        self.results = self.work / "results"
        self.store = FileStore(self.state, GUARD)
        self._children: list[subprocess.Popen[bytes]] = []
        self._ask = threading.Event()
        self._closing = False

    # What is played with.

    def lay_out(self) -> None:
        """The files of the demo are there: fleet, guard, and the changes, all of which stay among the results."""
        (self.results / "configs").mkdir(parents=True)
        for name in ("blue.json", "green.json"):
            shutil.copyfile(self.shop / "configs" / name, self.results / "configs" / name)
        shutil.copytree(self.shop / "releases" / "v1", self.results / "releases" / "v1", ignore=shutil.ignore_patterns("__pycache__"))
        self._make(self.incident.bad, self.incident.flaws)
        if self.incident.part == "release":
            self._make(self.incident.good, ())
        shutil.copyfile(self.shop / "guard.yaml", self.results / "guard.yaml")
        document = yaml.safe_load((self.shop / "fleet.yaml").read_text(encoding="utf-8"))
        document["spec"]["command"][0] = sys.executable
        document["spec"]["listen"] = {"all": "127.0.0.1:0"}
        text = yaml.safe_dump(document, sort_keys=False)
        (self.results / "fleet.yaml").write_text(_HEADER.format(what="Port 0 takes a free one.") + text, encoding="utf-8")

    def _make(self, name: str, flaws: tuple[str, ...]) -> None:
        """The shop's own builder has made a change with these flaws."""
        options = [word for flaw in flaws for word in ("--flaw", flaw)]
        if self.incident.part == "config":
            options.append("--config")
        command = [sys.executable, str(self.shop / "make_release.py"), "--name", Path(name).stem, *options, str(self.change(name)[1])]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise WorldError(f"could not make the {self.incident.part} {name}: {made.stderr.strip()}", hint="is the disk full?")

    def change(self, name: str) -> tuple[str, Path]:
        """The option of `run` and the path of a change of this name."""
        folder = "configs" if self.incident.part == "config" else "releases"
        return f"--{self.incident.part}", self.results / folder / name

    # The fleet.

    @property
    def client(self) -> FleetClient:
        """The fleet's supervisor."""
        return FleetClient(self.state / "fleets" / FLEET)

    def up(self) -> TargetView:
        """Every instance is ready. Raises `WorldError` when one is not in time."""
        bundle = load_bundle([self.results / "fleet.yaml"])

        def progress(view: TargetView) -> None:
            self.pause(0)
            self.shown.tick(f"{sum(i.ready for i in view.instances)} of {view.wanted} instances are ready")

        fleet.up(bundle.fleets[FLEET].value, self.results, self.state, on_progress=progress)
        return self.await_everywhere(self.client.observe().instances[0].assigned)

    def admitted(self, name: str) -> Version:
        """The version that the stable one becomes with this change; the fleet holds a copy of it."""
        stable = self.client.observe().instances[0].assigned
        digest = self.client.admit(self.incident.part, self.change(name)[1])
        return Version(stable.release, digest) if self.incident.part == "config" else Version(digest, stable.config)

    def shift_everything(self, version: Version) -> None:
        """The whole fleet has been told to run `version`, at once and with nobody watching."""
        deadline = clock.monotonic() + PATIENCE_S
        while True:
            view = self.client.observe()
            try:
                self.client.shift(Desired(fence=view.fence + 1, stable=version, batch=self.incident.batch, by="by hand"), view.basis)
            except DeployguardError:
                if clock.monotonic() > deadline:
                    raise
                self.pause(0.1)
                continue
            return

    def await_everywhere(self, version: Version) -> TargetView:
        """The view in which every instance is ready and has loaded `version`. Raises `WorldError` when that takes too long."""
        deadline = clock.monotonic() + PATIENCE_S
        while True:
            view = self.client.observe()
            here = sum(i.ready and i.loaded == version for i in view.instances)
            if here == view.wanted:
                return view
            if clock.monotonic() > deadline:
                raise WorldError(
                    f"only {here} of {view.wanted} instances run {version.short} after {PATIENCE_S:.0f} s",
                    hint="is this machine very busy?",
                )
            self.pause(0.1)

    def restart_everything(self) -> None:
        """Every instance is a new process of the version it had, is ready, and has counted nothing yet."""
        before = {i.uid for i in self.client.observe().instances}
        version = self.client.observe().instances[0].assigned
        self.client.restart()
        deadline = clock.monotonic() + PATIENCE_S
        while (old := sum(i.uid in before for i in self.client.observe().instances)) and clock.monotonic() < deadline:
            self.shown.tick(f"{old} instances are still to be restarted")
            self.pause(0.1)
        self.await_everywhere(version)

    # Processes.

    def users(self, act: str) -> Users:
        """Users come, and the first of them have been answered."""
        out = self.results / f"load-{act}.jsonl"
        url = self.client.observe().listeners["all"]
        command = [
            str(self.shop / "load.py"),
            "--url",
            url,
            "--rate",
            str(RATE),
            "--seconds",
            str(LONGEST_S),
            "--journeys",
            "--out",
            str(out),
        ]
        users = Users(self.spawn([sys.executable, *command]), out)
        deadline = clock.monotonic() + PATIENCE_S
        while not any(line["requests"] for line in users.lines()):
            users.check()
            if clock.monotonic() > deadline:
                raise WorldError(f"no user was answered in {PATIENCE_S:.0f} s", hint="is this machine very busy?")
            self.pause(0.1)
        return users

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A process of its own session, so that Ctrl-C reaches the demo alone, which ends everything in the right order."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        self._children.append(process)
        return process

    # The end.

    def pause(self, seconds: float) -> None:
        """`seconds` are over. Raises `Interrupted` as soon as somebody asks the demo to end."""
        if clock.SystemClock().wait(seconds, self._ask) and not self._closing:
            raise Interrupted

    @contextlib.contextmanager
    def interrupts(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP are requests to end: seen at the next pause, so that no step is cut in its middle."""

        def asked(number: int, _frame: FrameType | None) -> None:
            if self._ask.is_set() or self._closing:
                # Not through the buffered stream: the signal may have come in the middle of a write to it.
                os.write(2, f"\n{signal.Signals(number).name}: already ending, a moment please\n".encode())
            self._ask.set()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        old = {number: signal.signal(number, asked) for number in numbers}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def close(self) -> bool:
        """Nothing that the demo started runs, and its directory is gone; False, with what to do, where that could not be had."""
        self._closing = True
        for process in self._children:
            _end(process)
        try:
            if (self.state / "fleets" / FLEET / "fleet.json").exists():
                fleet.down(FLEET, self.state)
        except DeployguardError as error:
            self.shown.say(f"could not bring the fleet down: {error.message}")
            self.shown.say(f"its state stays in {self.state}; end it with `deployguard local down --state {self.state}`")
            return False
        shutil.rmtree(self.work, ignore_errors=True)
        return True

    def keep_logs(self) -> None:
        """What the fleet and a driver logged lies among the results: for an end that nobody wished for."""
        self.results.mkdir(exist_ok=True)
        for log in (*self.state.glob("fleets/*/supervisor.log"), *self.state.glob("fleets/*/logs/0.log")):
            with contextlib.suppress(OSError):
                shutil.copyfile(log, self.results / log.name)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process has ended: asked to, asked again (a guard first takes its candidate back), then killed."""
    asks: list[tuple[Callable[[], None], float]] = [
        (lambda: process.send_signal(signal.SIGINT), 10.0),
        (lambda: process.send_signal(signal.SIGINT), 3.0),
        (process.kill, 10.0),
    ]
    for ask, seconds in asks:
        if process.poll() is not None:
            return
        ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
