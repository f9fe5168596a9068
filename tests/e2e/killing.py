"""Killing a guard at chosen instants, and reading what it leaves: the saved document, the fleet, the ledger."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployguard.engine.stages import planned
from deployguard.model.document import Document
from deployguard.model.policy import Policy
from deployguard.model.rollout import Advancing, Analyzing, Holding, Rollout
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.stores.file import FileStore
from deployguard.stores.ledger import entries
from tests.e2e.world import ERRORS, Done, World, eventually

CHECK = {**ERRORS, "claims": 50}
"""What a stage of two seconds can see."""
BRISK: dict[str, Any] = {
    "stages": [
        {"instances": 1, "soak": "2s", "limit": "2m"},
        {"exposure": "40%", "soak": "2s", "limit": "2m"},
        {"exposure": "100%", "soak": "2s"},
    ],
    "interval": "300ms",
    "warmup": "1s",
    "pass": "soak",
    "lease": "10s",
    "advance_within": "60s",
    "blind": {"hold_after": "30s", "retreat_after": "3m", "hold_limit": "5m"},
    "rollback": {"within": "60s", "relapse_watch": "1s"},
    "watch": "5m",
}
"""Over in less than ten seconds; neither a hold nor a lease comes between a kill and the resume that follows at once."""
INSTANCES = 5
RATE = 60

Step = tuple[str, str]


def saved(world: World) -> Document:
    """The saved document of the guard."""
    return FileStore(world.state, "shop").load()[0]


def rollout(world: World) -> Rollout:
    """The saved rollout of the guard."""
    found = saved(world).rollout
    assert found is not None
    return found


def stage(world: World) -> int:
    """The stage whose soak is being watched, from 1; 0 in every other phase."""
    found = saved(world).rollout
    return found.phase.stage + 1 if found is not None and isinstance(found.phase, Analyzing) else 0


def phase(world: World) -> str:
    """The last phase that was entered and is saved."""
    found = saved(world).rollout
    return found.trail[-1].phase if found is not None and found.trail else ""


def trail(found: Rollout) -> list[Step]:
    """The phases in order, with their stages in words; how long it waited before the first of them is left out."""
    return [(step.phase, _stage(step.phase, step.text)) for step in found.trail if step.phase != "waiting"]


def recorded(world: World, found: Rollout) -> list[Step]:
    """The same, as the ledger tells it: its transitions, and at the end those that lie in the document's outbox."""
    told = list(entries(world.state / "guards" / "shop" / "ledger.jsonl", found.id))
    last = told[-1].n if told else 0
    told += [entry for entry in found.outbox if entry.n > last]
    assert [entry.n for entry in told] == list(range(1, found.written + 1)), "an entry is missing or there twice"
    moves = [entry for entry in told if entry.event == "transition" and entry.phase != "waiting"]
    return [(entry.phase, _stage(entry.phase, entry.text)) for entry in moves]


def _stage(word: str, text: str) -> str:
    return text if word in ("advancing", "analyzing") else ""


def keeps_its_word(world: World) -> None:
    """Nothing runs that no record names, and the fleet was told nothing that the saved state does not say."""
    view, document = world.view(), saved(world)
    found = document.rollout
    assert found is not None
    named = {found.candidate, found.stable, *(known.version for known in document.stable)}
    runs = {version for i in view.instances for version in (i.assigned, i.loaded) if version is not None}
    assert runs <= named, f"not recorded: {runs - named}"
    assert view.fence <= document.fence, "the fleet follows a fence that was never saved"
    if view.told is None or view.fence != found.seq:
        return
    exposed = view.told.count if view.told.candidate == found.candidate else 0
    allowed = INSTANCES
    if isinstance(found.phase, (Advancing, Analyzing, Holding)):
        allowed = planned(Policy.model_validate(found.spec), found.wanted)[found.phase.stage].count
    elif phase(world) in ("rolling_back", "verifying", "rolled_back"):
        allowed = 0
    assert exposed <= allowed, f"{exposed} exposed, {allowed} saved"


def running(view: TargetView, version: Version) -> list[str]:
    """The instances that run this version or were told to."""
    return [i.id for i in view.instances if version in (i.assigned, i.loaded)]


def verified(world: World) -> None:
    """The ledger of the guard fits together, line by line."""
    found = FileStore(world.state, "shop").verify()
    assert found.ok, found.text


@dataclass
class Survived:
    """A rollout that came to its end although its guards were killed; `kills` are the phases in which that happened."""

    done: Done
    rollout: Rollout
    kills: list[str]


def through(world: World, guard: Path, release: Path, instants: list[float], always: Callable[[], None] = lambda: None) -> Survived:
    """Roll `release` out, kill the guard at each of these seconds (of the rollout, then of each resume) and resume it at once.

    An instant after the end kills nobody. `always` is called all the time.
    """
    before = saved(world).rollout
    going = world.begin(guard, release=release)
    begun = before.id if before is not None else ""

    def opened() -> bool:
        assert going.process.poll() is None, going.err
        now = saved(world).rollout
        return now is not None and now.id != begun

    eventually(opened)
    kills = []
    for instant in instants:
        until = time.monotonic() + instant
        while time.monotonic() < until and going.process.poll() is None:
            always()
            time.sleep(0.01)
        going.signal(signal.SIGKILL)
        if going.process.wait() != -signal.SIGKILL:
            break
        kills.append(phase(world) or "waiting")
        keeps_its_word(world)
        going = world.start("run", "--resume", "--stay", "0s", "-o", "json")
    while going.process.poll() is None:
        always()
        time.sleep(0.02)
    return Survived(going.end(), rollout(world), kills)
