"""What recordings tell: decisions made again, beside the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployguard.engine.recording import Closed, Loaded, Record, read
from deployguard.engine.replay import Comparison, compared
from deployguard.errors import ForeignState, WorldError
from deployguard.stores.readings import KEPT, FileReadings
from deployguard.wiring.home import GuardStore

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.model.policy import Policy

JUDGING = frozenset({"name", "worse_than_stable", "claims", "limit", "bound", "worse_when", "dispersion", "required", "veto"})
"""Fields of a check that say how its numbers are judged; all others say what is read."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The recording of one rollout: the document that it began with, the policy that decided, and a way through its records."""

    rollout: str
    document: Document
    policy: Policy
    readings: FileReadings

    def records(self) -> Iterator[Record]:
        """The records, oldest first; each call begins anew. Raises `ForeignState` at one that cannot be read."""
        return read(self.readings.read(self.rollout), self.rollout)


def recorded(readings: FileReadings, rollout: str) -> Recorded:
    """The recording of `rollout`. Raises `WorldError` when there is none, `ForeignState` when this version cannot read it."""
    first = next(read(readings.read(rollout), rollout), None)
    if first is None:
        raise WorldError(
            f"could not replay `{rollout}`: nothing was recorded of it, or its recording is gone",
            hint=f"the last {KEPT} rollouts keep their recordings, unless DEPLOYGUARD_READINGS is false",
        )
    if not isinstance(first, (Loaded, Closed)) or first.document.rollout is None:
        raise ForeignState(
            f"could not replay `{rollout}`: the beginning of its recording is gone, and with it what the decisions went on from",
            hint="every decision is still in the ledger: `deployguard why` without `--replay`",
        )
    return Recorded(rollout, first.document, _policy(rollout, first.document), readings)


def _policy(rollout: str, document: Document) -> Policy:
    from pydantic import ValidationError

    from deployguard.model.policy import Policy

    assert document.rollout is not None
    try:
        return Policy.model_validate(document.rollout.spec)
    except ValidationError as error:
        why = f"this version of deployguard cannot read the policy it was decided by: {error.errors()[0]['msg']}"
        raise ForeignState(
            f"could not replay `{rollout}`: {why}",
            hint="replay it with the version that recorded it",
        ) from error


def replay_of(store: GuardStore, rollout: str, watch: Callable[[int], None] | None = None) -> Comparison:
    """The recording of `rollout` decided again, beside the ledger and what the saved document has not yet put there.

    Raises `WorldError` when there is no recording, `ForeignState` when it cannot be read.
    """
    source = recorded(FileReadings(store.directory), rollout)
    return compared(source.policy, source.records(), store.told(rollout, store.load()[0].rollout), watch)
