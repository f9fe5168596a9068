"""`kill -9` of the driving run, anywhere, and `run --resume` on another machine: it ends as if nobody had been killed."""

from __future__ import annotations

import functools
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployguard.model.rollout import Rollout
from tests.cluster.api import until
from tests.cluster.fixtures import Cluster
from tests.cluster.load import Load
from tests.e2e.conftest import Tell
from tests.e2e.kube_chaos.conftest import Make
from tests.e2e.kube_chaos.yard import CHECK, STRINGS, WATCHED, Yard, kill, pause, watched
from tests.e2e.world import Done, Going

pytestmark = [pytest.mark.e2e, pytest.mark.cluster, pytest.mark.timeout(1800)]
RATE = 40
LATE = "advancing 2"
"""The phase in which a `late` candidate turns bad: the rolling update of the Deployment itself. A `bad` one is bad from the start."""


@dataclass
class Told:
    """How a rollout ended; `kills` are the phases in which its drivers were killed."""

    done: Done
    rollout: Rollout
    kills: list[str]

    @property
    def seconds(self) -> float:
        """How long it took from the first look to the last."""
        return (self.rollout.updated - self.rollout.started).total_seconds()

    @property
    def trail(self) -> list[tuple[str, str]]:
        """The phases in order, with their stages in words; whatever depends on the moment is left out, as is the end of the watch."""
        named = [(step.phase, step.text if step.phase == "advancing" else "") for step in self.rollout.trail]
        return [step for step in named if step[0] not in ("waiting", "analyzing", "rolled_back")]


def rolled_out(yard: Yard, guard: Path, number: int, kind: str, instants: list[float]) -> Told:
    """Roll a new version out; drivers are killed at each of these seconds after they took the claim, the next one is on another machine.

    A negative instant counts from the start of the process: that one may never come to drive.
    """
    name = f"{kind}-{number}"
    yard.pull(name, ERROR_RATE=0.7 if kind == "bad" else 0)
    change = ["--set", f"env.VERSION={number}", "--set", f"env.CONFIG={STRINGS}/{name}"]
    before = yard.document().rollout
    old = before.id if before is not None else ""
    bad = False

    def always() -> None:
        nonlocal bad
        if kind == "late" and not bad and yard.phase() == LATE and yard.rollout().id != old:
            yard.pull(name, ERROR_RATE=0.7)
            bad = True

    def drives(going: Going) -> bool:
        claim, found = yard.document().claim, yard.document().rollout
        mine = claim is not None and int(claim.holder.split("/")[1]) == going.process.pid
        return going.process.poll() is not None or (mine and found is not None and found.id != old)

    kills = list[str]()
    going = yard.begin(guard, *change)
    for instant in instants:
        if instant >= 0:
            until("it drives", functools.partial(drives, going))
        pause(abs(instant), always, going)
        if not kill(going):
            break
        found = yard.document().rollout
        opened = found is not None and found.id != old
        kills.append(yard.phase() if opened else "before")
        yard.elsewhere()
        going = yard.resume() if opened else yard.begin(guard, *change)
    while going.process.poll() is None:
        always()
        time.sleep(0.05)
    return Told(going.end(), yard.rollout(), kills)


def kill_and_resume(node: Cluster, yard: Yard, seed: int, kind: str, wanted: int, tell: Tell) -> None:
    """Kill drivers of one kind of rollout, two or three for each, until `wanted` were killed; each must end as the quiet one."""
    guard, dice = yard.guard(CHECK, **({"stages": WATCHED} if kind == "bad" else {})), random.Random(seed)
    namespace, place = yard.service.namespace, yard.command.folder / "history.json"
    with Load(yard.service.address, RATE), watched(node.kubeconfig, namespace, place) as history:
        quiet = rolled_out(yard, guard, 100, kind, [])
        assert quiet.done.code == (0 if kind == "good" else 10), quiet.done.err
        print(quiet.done.err)
        yard.is_clean()
        killed: list[str] = []
        number = 100
        while len(killed) < wanted:
            number += 1
            instants = [dice.uniform(0, quiet.seconds * share) for share in (0.9, 0.5, 0.5)]
            if dice.random() < 0.15:
                instants[0] = -dice.uniform(0.3, 2.0)
            instants = instants[: wanted - len(killed)]
            print(f"seed {seed}: killing at {', '.join(f'{instant:.2f} s' for instant in instants)}")
            told = rolled_out(yard, guard, number, kind, instants)
            assert told.done.code == quiet.done.code, told.done.err
            assert told.trail == quiet.trail, "; ".join(f"{step.phase} {step.text}" for step in told.rollout.trail)
            condemned = [q.digest for q in yard.document().quarantine if q.rollout == told.rollout.id]
            assert condemned == ([] if kind == "good" else [told.rollout.candidate.release])
            assert yard.runs("VERSION", str(number)) == (kind == "good")
            yard.is_clean()
            verified = yard.store().verify()
            assert verified.ok, verified.text
            killed += told.kills
        fence = history().never_went_back()
    where = ", ".join(f"{word} {killed.count(word)}" for word in sorted(set(killed)))
    tell(f"seed {seed}, {kind}: {len(killed)} drivers killed in {number - 100} rollouts, fence {fence} ({where})")


@pytest.mark.parametrize("kind", ["good", "late"])
def test_killed_drivers(node: Cluster, yard: Make, kind: str, tell: Tell) -> None:
    """Drivers killed anywhere leave the outcome, the trail and the verdict as they were, no fence goes back and nothing is left."""
    kill_and_resume(node, yard(2), 20261121, kind, 4, tell)


@pytest.mark.full
@pytest.mark.parametrize(("kind", "wanted"), [("good", 16), ("bad", 17), ("late", 17)])
def test_fifty_killed_drivers(node: Cluster, yard: Make, kind: str, wanted: int, tell: Tell) -> None:
    """The same with fifty kills in all."""
    kill_and_resume(node, yard(2), 7, kind, wanted, tell)
