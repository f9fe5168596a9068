"""The recording of what a driver saw: beside the drive, never in its way."""

from __future__ import annotations

import datetime as dt

from deployguard import __version__
from deployguard.driver.world import Readings
from deployguard.engine.recording import Recorder, digest
from deployguard.model.action import Decision, Observation
from deployguard.model.document import Document


class Recording:
    """The recordings of the rollouts that one driver drives, one after the other."""

    def __init__(self, readings: Readings, holder: str) -> None:
        self._readings = readings
        self._recorder = Recorder(holder, __version__)
        self._rollout = ""
        self._losses = 0

    def tick(
        self, before: Document, seen: Observation, now: dt.datetime, decision: Decision, *, fresh: bool, saved: Document | None
    ) -> None:
        """A tick that went on from `before` is in the recording, with `before` itself where a reader could not know it.

        That is when the store gave it (`fresh`), when another rollout began, and when records were lost. `saved` is what was saved.
        """
        rollout = decision.document.rollout
        if rollout is None:
            return
        if fresh or rollout.id != self._rollout or self._readings.losses != self._losses:
            self._rollout, self._losses = rollout.id, self._readings.losses
            self._readings.append(rollout.id, self._recorder.document(before, now))
        name = digest(saved) if saved is not None and decision.moved else ""
        self._readings.append(rollout.id, self._recorder.tick(seen, now, rollout, saved=saved is not None, digest=name))
