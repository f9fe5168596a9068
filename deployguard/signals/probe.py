"""Asks users' journeys whether the service works, on stable's path, on the candidate's, and as users come.

The walking is done by the prober, one process for all probe checks of a rollout (`prober.py`); here it is started,
listened to, started anew when it is gone, and read. While it is gone nothing is known: that is `Missing`, never a red walk.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from deployguard import clock
from deployguard.errors import ForeignState, UserError
from deployguard.model.base import decode, encode
from deployguard.model.check import ProbeCheck, Step
from deployguard.model.reading import Answer, Missing, Run, Runs
from deployguard.model.target import Arm, Instance
from deployguard.signals.journey import UNPINNED, Beat, Expectation, Job, Journey, Report, Stride
from deployguard.signals.jsonpath import parse_path
from deployguard.signals.places import Proxy, behind

if TYPE_CHECKING:
    from deployguard.signals.forward import Forwarder

SILENT_AFTER = 3.0
RESTART_AFTER = 10.0
KEPT = 64
MOST_BASES = 8
"""Of the instances of an arm so many are walked to in turn."""
_END_WITHIN = 2.0
_SLACK = 1.0  # for a busy machine: the limit below is exactly what a hanging step takes
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Track:
    """What is known of one check on one path. Instants are of the monotonic clock."""

    since: float
    runs: deque[Run] = field(default_factory=lambda: deque(maxlen=KEPT))
    absent: float | None = None


class _Process:
    """A running prober and what it said last."""

    def __init__(self) -> None:
        # -P: a file in the user's working directory must not be imported in place of a module.
        command = [sys.executable, "-P", "-m", "deployguard.signals.prober"]
        # A session of its own: Ctrl-C is for the guard, which may want to end in good order.
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.heard = clock.monotonic()
        self.beat = clock.now()
        self.started = False
        self.ended: float | None = None

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Standard input and output."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        return self.popen.stdin, self.popen.stdout

    def tell(self, job: Job) -> None:
        """Hand over a job; a prober that is gone is noticed by its reader, not here."""
        try:
            self.pipes[0].write(encode(job) + b"\n")
            self.pipes[0].flush()
        except OSError:
            _log.debug("the prober does not take jobs any more")

    def end(self) -> None:
        """After the return the process is gone."""
        try:
            self.pipes[0].close()
        except OSError:
            _log.debug("the prober was gone before it was ended")
        try:
            self.popen.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class ProbePool:
    """One prober process for all probe checks, started at the first read."""

    def __init__(self, *, restart_after: float = RESTART_AFTER, proxy: Proxy | None = None) -> None:
        """A pool that walks nothing yet; a prober that ended or fell silent is replaced after `restart_after` seconds.

        `proxy` is the API server by which `kube://` and `kube-service://` addresses are reached.
        """
        self._restart_after = restart_after
        self._proxy = proxy
        self._forwarder: Forwarder | None = None
        self._distant: dict[str, str] = {}
        self._lock = threading.Lock()
        self._job = Job({}, {})
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._process: _Process | None = None
        self._reader: threading.Thread | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The prober's process id; None while there is none."""
        with self._lock:
            return self._process.popen.pid if self._process else None

    def paths(self, bases: Mapping[str, str]) -> None:
        """From now on exactly these paths (`stable`, `candidate`, `all`) are walked, each below its base URL.

        A path may have several bases, separated by commas, which are walked in turn. Where users come from outside (`all`), journeys
        with absolute URLs are walked also without a base.
        """
        told = {path: some for path, base in bases.items() if (some := _several(base))}
        near = self._doors({one for some in told.values() for one in some if behind(one)})
        known = {path: [near.get(one, one if "://" in one else f"http://{one}") for one in some] for path, some in told.items()}
        wanted = {UNPINNED: "", **{path: ",".join(some) for path, some in known.items()}}
        with self._lock:
            self._distant = {path: some[0] for path, some in told.items() if any(map(behind, some))}
            if wanted == self._job.paths:
                return
            now = clock.monotonic()
            kept = {key: track for key, track in self._tracks.items() if key[1] in wanted}
            fresh = {(check, path): _Track(now) for check in self._job.journeys for path in wanted}
            self._tracks = {**fresh, **kept}
            for (_, path), track in kept.items():
                if wanted[path] != self._job.paths.get(path):
                    track.since = now
            self._renew(Job(self._job.journeys, wanted))

    def add(self, check: ProbeCheck) -> None:
        """From now on the journey of `check` is walked on every path."""
        journey = _journey(check)
        with self._lock:
            for path in self._job.paths:
                self._tracks[check.name, path] = _Track(clock.monotonic())
            self._renew(Job({**self._job.journeys, check.name: journey}, self._job.paths))
            self._wait_as_long()

    def remove(self, name: str) -> None:
        """The journey is not walked any more; with the last one the prober ends."""
        with self._lock:
            self._tracks = {key: track for key, track in self._tracks.items() if key[0] != name}
            self._renew(Job({n: j for n, j in self._job.journeys.items() if n != name}, self._job.paths))
            last = not self._job.journeys
        if last:
            self._end()

    def look(self, name: str, path: str, through: dt.datetime | None) -> Answer:
        """The walks of one check on one path that ended after `through`, or why nothing is known."""
        with self._lock:
            journey = self._job.journeys.get(name)
            if journey is None:
                return Missing("prober", "the probe has been ended")
            if not self._job.paths.get(path) and not (journey.absolute and path in self._job.paths):
                return Missing("no_instance", f"there is no {path} path to walk")
            if path in self._distant and (why := self._closed_to(journey, path)):
                return Missing("error", why)
            process = self._alive()
            if isinstance(process, Missing):
                return process
            track = self._tracks[name, path]
            silence = clock.monotonic() - track.since
            # A journey whose steps are each just within the timeout is slow, not stale.
            if process.started and silence > max(3 * journey.every, len(journey.steps) * journey.timeout + journey.every) + _SLACK:
                if track.absent is not None and track.absent >= track.since:
                    return Missing("no_instance", f"no instance on the {path} path for {silence:.0f} s")
                return Missing("stale", f"no walk on the {path} path has ended for {silence:.0f} s")
            return Runs(process.beat, tuple(run for run in track.runs if through is None or run.at > through))

    def close(self) -> None:
        """After the return no prober is running, and none is started again."""
        with self._lock:
            self._closed = True
            forwarder, self._forwarder = self._forwarder, None
        self._end()
        if forwarder is not None:
            forwarder.close()

    def _doors(self, distant: set[str]) -> dict[str, str]:
        """Where the addresses behind the API server are reached from now on."""
        with self._lock:
            if self._proxy is None or self._closed or not (distant or self._forwarder):
                return {}
            if self._forwarder is None:
                from deployguard.signals.forward import Forwarder

                self._forwarder = Forwarder(self._proxy)
                self._wait_as_long()
            return self._forwarder.open(distant)

    def _wait_as_long(self) -> None:
        if self._forwarder is not None and self._job.journeys:
            self._forwarder.patience = min(journey.timeout for journey in self._job.journeys.values())

    def _closed_to(self, journey: Journey, path: str) -> str:
        """Why a journey cannot be walked through the API server; empty when it can."""
        if self._proxy is None:
            return f"{self._distant[path]} is behind an API server, and none is at hand"
        if journey.authorized and not (journey.absolute and path == UNPINNED):
            return "the journey sends `Authorization`, which an API server's proxy does not pass on; walk it from inside the cluster"
        return ""

    def _renew(self, job: Job) -> None:
        self._job = job
        if self._process:
            self._process.tell(job)

    def _alive(self) -> _Process | Missing:
        """The prober, started when there is none; Missing while it is gone or says nothing."""
        if self._closed:
            return Missing("prober", "the probe has been ended")
        now = clock.monotonic()
        process = self._process
        if process is not None:
            if process.ended is None and now - process.heard <= SILENT_AFTER:
                return process
            lost = process.heard if process.ended is None else process.ended
            # One that has not beaten yet may only be slow to start: to replace it early would be to start for ever.
            starting = process.ended is None and not process.started
            if now - lost < (max(self._restart_after, RESTART_AFTER) if starting else self._restart_after):
                if process.ended is None:
                    return Missing("prober", f"no heartbeat of the prober for {now - process.heard:.0f} s")
                return Missing("prober", f"the prober ended by itself, exit status {process.popen.poll()}")
            _log.warning("the prober is gone or silent; another one is started")
            process.popen.kill()
            process.end()
        return self._start()

    def _start(self) -> _Process | Missing:
        try:
            process = _Process()
        except OSError as error:
            return Missing("prober", f"the prober could not be started: {error.strerror}")
        self._process = process
        self._reader = threading.Thread(target=self._listen, args=(process,), name="prober", daemon=True)
        self._reader.start()
        process.tell(self._job)
        return process

    def _listen(self, process: _Process) -> None:
        """Take in reports until the prober closes its output, which is its end."""
        with process.pipes[1] as reports:
            for line in reports:
                try:
                    report: Report = decode(line, Report)  # type: ignore[arg-type]
                except ForeignState as error:
                    _log.warning("the prober said something odd: %s", error.message)
                    continue
                with self._lock:
                    self._note(process, report)
        try:
            process.popen.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            process.popen.kill()
        with self._lock:
            process.ended = clock.monotonic()

    def _note(self, process: _Process, report: Report) -> None:
        if process is not self._process:
            return
        now = clock.monotonic()
        if isinstance(report, Beat):
            process.heard, process.beat = now, report.at
            if not process.started:  # the time that the process took to start is nobody's silence
                process.started = True
                for known in self._tracks.values():
                    known.since = now
            return
        track = self._tracks.get((report.check, report.path))
        if track is None:
            return
        if report.run is None:
            track.absent = now
        else:
            track.since = now
            track.runs.append(report.run)

    def _end(self) -> None:
        with self._lock:
            process, reader, self._process, self._reader = self._process, self._reader, None, None
        if process:
            process.end()
        if reader:
            reader.join()


class ProbeSource:
    """The walks of one probe check."""

    def __init__(self, check: ProbeCheck, pool: ProbePool) -> None:
        """Raises `UserError` when the check names a place in JSON that cannot be read."""
        self._check, self._pool = check, pool
        pool.add(check)

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:  # noqa: ARG002
        """The walks on the path `arm` (`stable`, `candidate` or `all`) that ended after `through`."""
        return self._pool.look(self._check.name, arm, through)

    def close(self) -> None:
        """End the walks of this check; the last check to close ends the prober."""
        self._pool.remove(self._check.name)


def _several(base: str) -> list[str]:
    """The bases of a path that can be walked to: not more than a few, and none whose port is not known."""
    given = [one.strip() for one in base.split(",") if one.strip()]
    return [one for one in given if behind(one) or not one.startswith(("kube://", "kube-service://"))][:MOST_BASES]


def _journey(check: ProbeCheck) -> Journey:
    steps = tuple(_stride(step, check.name) for step in check.steps)
    return Journey(steps, check.every.total_seconds(), check.timeout.total_seconds())


def _stride(step: Step, name: str) -> Stride:
    method, url = step.request
    if not url.startswith(("/", "http://", "https://")):
        raise UserError(f"the probe `{name}` cannot walk `{url}`", hint="write a path that begins with `/`, or an http or https URL")
    expect = step.expect
    for place in expect.json_ or {}:
        try:
            parse_path(place)
        except ValueError as error:
            raise UserError(f"the probe `{name}` cannot read its answer: {error}") from error
    within = expect.within.total_seconds() if expect.within is not None else None
    expectation = Expectation(expect.status, expect.contains, expect.not_contains, expect.json_, within)
    body = json.dumps(step.json_) if step.json_ is not None else None
    return Stride(method, url, step.headers, step.form, step.body, body, expectation)
