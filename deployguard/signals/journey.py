"""What the guard and its prober tell each other, one JSON line each: they are two processes and share nothing else.

Free of pydantic and httpx, so that the guard's side need not load the client and the prober need not load the file formats.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from deployguard.model.base import Frozen
from deployguard.model.reading import Run

UNPINNED = "all"
"""The path as users come; all others are pinned to where they begin."""


class Expectation(Frozen, frozen=True):
    """What must hold of a response; None asks nothing. `json` maps a JSONPath to the value expected there."""

    status: int | None = None
    contains: str | None = None
    not_contains: str | None = None
    json: dict[str, Any] | None = None
    within: float | None = None


class Stride(Frozen, frozen=True):
    """One step of a journey. `json` is the text of the JSON body, None when there is none."""

    method: str
    url: str
    headers: dict[str, str] = {}
    form: dict[str, str] | None = None
    body: str | None = None
    json: str | None = None
    expect: Expectation = Expectation()


class Journey(Frozen, frozen=True):
    """The steps of one probe check; times in seconds."""

    steps: tuple[Stride, ...]
    every: float
    timeout: float

    @property
    def absolute(self) -> bool:
        """Whether every step says itself where it goes."""
        return all(not step.url.startswith("/") for step in self.steps)

    @property
    def authorized(self) -> bool:
        """Whether a step carries credentials in a header."""
        return any(name.lower() == "authorization" for step in self.steps for name in step.headers)


class Job(Frozen, frozen=True):
    """All that the prober shall do from now on: each journey, by its check's name, on each path, by its base URL.

    Several bases of one path, separated by commas, are walked in turn, each walk on one of them from end to end. An empty base is for
    journeys whose steps say themselves where they go. A later job replaces the earlier one whole.
    """

    journeys: dict[str, Journey]
    paths: dict[str, str]


class Beat(Frozen, frozen=True, tag="beat", tag_field="kind"):
    """The prober is alive at `at`, whatever its walks are waiting for."""

    at: dt.datetime


class Walked(Frozen, frozen=True, tag="walked", tag_field="kind"):
    """One walk of `check` on `path` has ended; without `run` it met no instance there, which is neither red nor green."""

    check: str
    path: str
    run: Run | None = None


Report = Beat | Walked
