"""One saved document per guard: the rollout, the last stable versions, the quarantine, the fence, the claim."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from deployguard.model.base import Frozen
from deployguard.model.rollout import Rollout
from deployguard.model.version import Version

SCHEMA = 1
GENERATIONS = 3
"""Stable versions that are kept, at least."""

RequestVerb = Literal["approve", "pause", "resume", "abort", "rollback", "skip-soak", "retry", "stop", "interrupt", "timeout"]


class StableVersion(Frozen, frozen=True):
    """A version that was seen healthy: the full soak at full exposure with every required signal alive.

    `adopted` ones were found running; going back to them is allowed and reported as such.
    """

    version: Version
    since: dt.datetime
    rollout: str = ""
    adopted: bool = False


class Quarantined(Frozen, frozen=True):
    """A component (a release digest, a config digest, or the digest of a pair) that FAIL condemned."""

    digest: str
    at: dt.datetime
    rollout: str
    text: str


class Claim(Frozen, frozen=True):
    """Who drives, and until when nobody else may."""

    holder: str
    until: dt.datetime


class Request(Frozen, frozen=True):
    """What a person asked for; the next tick consumes it by its id."""

    id: str
    verb: RequestVerb
    who: str
    at: dt.datetime
    reason: str = ""
    rollout: str = ""
    to: Version | None = None


class Document(Frozen, frozen=True):
    """Everything that is saved for one guard. `fence` is the highest ever used on its target; `stable` newest first.

    `names` maps digests of releases and configurations to what people call them. `consumed` are the ids of requests
    that have been taken in.
    """

    guard: str
    schema: int = SCHEMA
    fence: int = 0
    rollout: Rollout | None = None
    stable: tuple[StableVersion, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    claim: Claim | None = None
    consumed: tuple[str, ...] = ()
    names: dict[str, str] = {}

    def name(self, version: Version) -> str:
        """`v2 + settings-a` where names are known, ten hex digits of a component where not."""
        release = self.names.get(version.release, version.release[7:17])
        config = self.names.get(version.config)
        return f"{release} + {config}" if config else release
