"""The prober: a process of its own that walks journeys, so that a busy or hanging guard cannot make users look unwell.

Jobs come as JSON lines on standard input, reports go out as JSON lines on standard output (`journey.py` has both). Each
journey is walked on each path by a thread of its own. The heartbeat is a thread too: it tells a hanging service, where
walks turn red, from a prober that is gone, where nothing is known. The end of standard input ends the process at once,
which is how it never outlives the guard.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading

from deployguard import clock
from deployguard.errors import ForeignState
from deployguard.model.base import decode, encode
from deployguard.signals.journey import Beat, Job, Journey, Report, Walked
from deployguard.signals.walk import walk

BEAT_EVERY = 0.5
_log = logging.getLogger(__name__)


class Prober:
    """The present job and the threads that carry it out."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._write = threading.Lock()
        self._changed = threading.Condition()
        self._job = Job({}, {})
        self._walkers: set[tuple[str, str]] = set()

    def take(self, job: Job) -> None:
        """From now on `job` is carried out. A walk under way ends, and is reported only if the new job still wants it."""
        with self._changed:
            self._job = job
            self._changed.notify_all()
            for key in ((check, path) for check in job.journeys for path in job.paths):
                if key not in self._walkers:
                    self._walkers.add(key)
                    threading.Thread(target=self._walk_on, args=key, name="-".join(key), daemon=True).start()

    def beat(self) -> None:
        """Report a heartbeat every half second, for ever."""
        while True:
            self._report(Beat(clock.now()))
            clock.sleep(BEAT_EVERY)

    def _walk_on(self, check: str, path: str) -> None:
        """Walk again and again, a walk every `every` and never two at a time; stand still while the job does not want it."""
        due = clock.monotonic()
        for turn in itertools.count():
            journey, base = self._wanted(check, path, due)
            due = max(due, clock.monotonic() - journey.every) + journey.every
            bases = base.split(",")
            try:
                run = walk(journey, path, bases[turn % len(bases)])
            except Exception:  # noqa: BLE001 - the one place of this thread that goes on after a fault
                _log.exception("a walk of %s on %s ended by a fault of the prober", check, path)
                continue
            with self._changed:
                current = self._job.journeys.get(check) == journey and self._job.paths.get(path) == base
            if current:
                self._report(Walked(check, path, run))

    def _wanted(self, check: str, path: str, due: float) -> tuple[Journey, str]:
        """Wait until the journey is due and wanted on that path."""
        with self._changed:
            while True:
                journey, base = self._job.journeys.get(check), self._job.paths.get(path)
                left = due - clock.monotonic()
                if journey is not None and base is not None and (base or journey.absolute) and left <= 0:
                    return journey, base
                self._changed.wait(left if left > 0 else None)

    def _report(self, report: Report) -> None:
        line = encode(report) + b"\n"
        with self._write:
            try:
                while line:
                    line = line[os.write(self._out, line) :]
            except OSError:
                os._exit(0)  # nobody reads any more: the guard is gone


def main() -> None:
    """Carry out the jobs of standard input until it ends."""
    logging.basicConfig(stream=sys.stderr, format="prober: %(message)s")
    prober = Prober(sys.stdout.fileno())
    threading.Thread(target=prober.beat, name="beat", daemon=True).start()
    for line in sys.stdin.buffer:
        try:
            prober.take(decode(line, Job))
        except ForeignState as error:
            _log.error("a job was not understood: %s", error.message)
    # Threads may stand in a read from a frozen server; waiting for them would let the process outlive the guard.
    os._exit(0)


if __name__ == "__main__":
    main()
