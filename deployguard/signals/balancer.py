"""Counts requests as the local fleet's own balancer saw them: nothing the service could get wrong or leave out."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping
from typing import Protocol

from deployguard.errors import WorldError
from deployguard.model.check import BalancerCheck
from deployguard.model.reading import Answer, Counter, Counters, Missing
from deployguard.model.target import Arm, Instance


class Tally(Protocol):
    """What a balancer counted of one instance."""

    @property
    def requests(self) -> int:
        """User requests answered."""
        ...

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        ...


class Counting(Protocol):
    """What a balancer's client must offer here."""

    def counts(self) -> Mapping[str, Tally]:
        """Requests and failed requests so far, by instance uid. Raises `WorldError` when the balancer does not answer."""
        ...


class BalancerSource:
    """The numbers of one balancer check."""

    def __init__(self, check: BalancerCheck, client: Counting) -> None:
        self._check, self._client = check, client
        self._lock = threading.Lock()
        self._tick: dt.datetime | None = None
        self._got: Mapping[str, Tally] | Missing = {}

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:  # noqa: ARG002
        """What the balancer has counted of the arm's instances; those it does not know are left out."""
        if not instances:
            return Missing("no_instance", f"the {arm} arm has no instance")
        counts = self._counts(now)
        if isinstance(counts, Missing):
            return counts
        known = {one.uid: _counter(counts[one.uid]) for one in instances if one.uid in counts}
        if not known:
            return Missing("no_instance", f"the balancer knows none of the {len(instances)} instances of the {arm} arm")
        return Counters(now, known, {one.uid: one.started for one in instances if one.uid in known and one.started is not None})

    def close(self) -> None:
        """Nothing is kept running: the client belongs to whoever made it."""

    def _counts(self, now: dt.datetime) -> Mapping[str, Tally] | Missing:
        """The counts of the tick `now`, asked for once, so that both arms are seen at the same moment."""
        with self._lock:
            if self._tick != now:
                try:
                    self._got = self._client.counts()
                except WorldError as error:
                    self._got = Missing("error", error.message)
                self._tick = now
            return self._got


def _counter(tally: Tally) -> Counter:
    return Counter(min(tally.failed, tally.requests), tally.requests)
