"""Gathering what a tick needs: reads only, in parallel, each with its own timeout."""

from __future__ import annotations

import concurrent.futures as cf
import datetime as dt
import threading

from deployguard.driver.world import World
from deployguard.engine.needs import needs
from deployguard.errors import DeployguardError
from deployguard.model.action import Observation
from deployguard.model.document import Document, Request
from deployguard.model.evidence import CheckEvidence, JourneyEvidence
from deployguard.model.reading import Answer, Missing
from deployguard.model.rollout import Rollout
from deployguard.model.target import CANDIDATE, Instance, TargetView

MOST_THREADS = 32


class Observer:
    """The eyes of one driver. Its threads are kept from tick to tick, and ended by `close`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pool: cf.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._asked: list[Request] = []

    def ask(self, request: Request) -> None:
        """Take a request of this very process in, as if it had come by the inbox. Safe in a signal handler's thread."""
        with self._lock:
            self._asked.append(request)

    def observe(self, document: Document, now: dt.datetime) -> Observation:
        """Everything the rollout needs now. What did not come is `Missing`; nothing is raised for trouble outside."""
        world, rollout = self._world, document.rollout
        view = self._view()
        answers = self._answers(rollout, view, now) if isinstance(view, TargetView) else {}
        with self._lock:
            asked = tuple(self._asked)
        try:
            ledgered = world.store.ledgered(rollout.id) if rollout else 0
            pending = world.inbox.pending()
        except DeployguardError:
            ledgered, pending = 0, ()
        return Observation(
            view=view,
            answers=answers,
            requests=(*pending, *asked),
            ledgered=ledgered,
            announced=world.announcer.delivered(rollout.id) if rollout else 0,
            stopped=world.stopped(),
        )

    def _view(self) -> TargetView | Missing:
        try:
            return self._world.target.observe()
        except DeployguardError as error:
            return Missing("error", error.message)

    def _answers(self, rollout: Rollout | None, view: TargetView, now: dt.datetime) -> dict[str, dict[str, Answer]]:
        wanted = needs(self._world.policy, rollout, view)
        if not wanted or rollout is None:
            return {}
        if self._pool is None:
            self._pool = cf.ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="observe")
        jobs: dict[tuple[str, str], cf.Future[Answer]] = {}
        for name, paths in wanted.items():
            evidence = rollout.evidence.get(name)
            for path in paths:
                through = _through(evidence, path)
                source = self._world.sources[name]
                jobs[name, path] = self._pool.submit(source.read, path, _instances(rollout, view, path), through, now)
        cf.wait(jobs.values(), timeout=self._world.patience)
        found: dict[str, dict[str, Answer]] = {name: {} for name in wanted}
        for (name, path), job in jobs.items():
            found[name][path] = job.result() if job.done() else Missing("timeout", f"no answer within {self._world.patience:g} s")
        return found

    def close(self) -> None:
        """End the threads; sources end their own reads by their timeouts."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        for source in self._world.sources.values():
            source.close()


def _through(evidence: CheckEvidence | None, path: str) -> dt.datetime | None:
    """The instant up to which a path has been counted."""
    if evidence is None:
        return None
    if isinstance(evidence, JourneyEvidence):
        walked = evidence.walks.get(path)
        return walked.through if walked else evidence.through
    return evidence.read_at.get(path, evidence.through)


def _instances(rollout: Rollout, view: TargetView, path: str) -> tuple[Instance, ...]:
    if path == "all":
        return view.instances
    mine = path == CANDIDATE
    return tuple(i for i in view.instances if (i.assigned == rollout.candidate) == mine)
