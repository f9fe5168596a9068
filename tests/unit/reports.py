"""Documents for the tests of the reports: simulated rollouts with names and a saved policy."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from deployguard.model.document import Document
from deployguard.model.rollout import Entry, Phase, Rollout
from deployguard.report.view import run_report
from deployguard.report.words import outcome
from tests.properties.world import NEW, OLD, START, Sim

NAMES = {OLD.release: "v1", NEW.release: "v2"}


def named(sim: Sim) -> Document:
    """What is saved, with names, and with the policy that a real run saves."""
    document = sim.document()
    rollout = document.rollout
    assert rollout is not None
    rollout = msgspec.structs.replace(rollout, spec=sim.policy.model_dump(mode="json", by_alias=True))
    return msgspec.structs.replace(document, names=NAMES, rollout=rollout)


def ticked(sim: Sim, ticks: int) -> Document:
    """The document after a rollout was begun and driven for some ticks."""
    sim.begin()
    driver = sim.driver()
    for _ in range(ticks):
        sim.tick(driver)
    return named(sim)


def ended(sim: Sim) -> Document:
    """The document after a rollout has come to its end."""
    sim.begin()
    sim.run()
    return named(sim)


def ledger(sim: Sim) -> list[Entry]:
    """Every ledger entry of the story."""
    return sim.memory.ledgers["web"]


def rolling(document: Document) -> Rollout:
    """The document's rollout."""
    assert document.rollout is not None
    return document.rollout


def with_phase(document: Document, phase: Phase, **changes: Any) -> Document:
    """The document with its rollout in `phase`."""
    return msgspec.structs.replace(document, rollout=msgspec.structs.replace(rolling(document), phase=phase, **changes))


def report(document: Document, now: dt.datetime, **how: bool) -> dict[str, Any]:
    """The run report of the document as the command line makes it."""
    word, code, reason = outcome(rolling(document), **how)
    return run_report(document, now=now, outcome=word, exit_code=code, reason=reason)


def later(seconds: float) -> dt.datetime:
    """An instant of the story."""
    return START + dt.timedelta(seconds=seconds)
