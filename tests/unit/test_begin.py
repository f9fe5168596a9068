"""Opening, closing and claiming rollouts."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from deployguard.engine import begin, claims, invariants
from deployguard.engine.begin import Wish
from deployguard.errors import Bug, RefusedError, WorldError
from deployguard.model.document import Claim, Document, StableVersion
from deployguard.model.rollout import Analyzing, Promoted, RolledBack, RollingBack, Superseded, Verifying, Waiting
from deployguard.model.target import Desired
from deployguard.stores.memory import MemoryStore
from deployguard.targets.simulated import Behaviour
from tests.properties.world import NEW, NEXT, OLD, START, Sim

WISH = Wish("r2", "web", "web", NEXT, {})
replace = msgspec.structs.replace


def begun(sim: Sim) -> Document:
    sim.begin()
    return sim.document()


def test_a_rollout_begins_above_every_fence() -> None:
    """The first fence of a rollout is above the target's and above the saved one."""
    sim = Sim()
    sim.target.fence = 7
    document = begin.begun(Document("web", fence=3), sim.target.observe(), WISH, START)

    assert document.rollout.seq == document.fence == 8
    assert document.stable[0] == StableVersion(OLD, START, adopted=True)


def test_after_a_lost_store_the_target_knows_what_is_stable() -> None:
    """Without a document the version that the target was told is stable is the one to go back to."""
    sim = Sim()
    sim.target.told = Desired(4, NEXT)

    assert begin.current_stable(Document("web"), sim.target.observe()).version == NEXT


def test_nothing_to_go_back_to_is_an_error() -> None:
    """A target that runs nothing known cannot be guarded."""
    sim = Sim()
    view = replace(sim.target.observe(), adopted=None)

    with pytest.raises(WorldError, match="no version is running"):
        begin.begun(Document("web"), view, WISH, START)


def test_a_quarantined_component_is_refused_unless_overridden() -> None:
    """The same release comes back only with a reason."""
    sim = Sim(bad=0.2)
    sim.begin()
    document = sim.run()
    again = replace(WISH, candidate=NEW) if isinstance(WISH, msgspec.Struct) else Wish("r2", "web", "web", NEW, {})

    with pytest.raises(RefusedError, match="quarantined"):
        begin.begun(document, sim.target.observe(), again, sim.clock.at)
    anyway = begin.begun(document, sim.target.observe(), Wish("r2", "web", "web", NEW, {}, override="it was the disk"), sim.clock.at)
    assert anyway.rollout.override == "it was the disk"
    assert begin.refusal(document, OLD, NEXT, "") == ""


def test_another_guards_candidate_on_the_target_is_named() -> None:
    """Two guards on one target: the second learns who is there."""
    sim = Sim()
    sim.target.told = Desired(3, OLD, NEW, 1, by="other/r9")
    sim.target.fence = 3

    with pytest.raises(WorldError, match="other/r9"):
        begin.begun(Document("web"), sim.target.observe(), WISH, START)
    retreated = replace(sim.target.observe(), retreated=3)
    assert begin.held_by(Document("web"), retreated) == ""


def test_our_own_rollout_on_the_target_is_nobody_elses() -> None:
    """The guard that exposed the candidate is not in its own way."""
    sim = Sim()
    sim.begin()
    driver = sim.driver()
    for _ in range(3):
        sim.tick(driver)

    assert sim.target.told.by == "web/r1"
    assert begin.held_by(sim.document(), sim.target.observe()) == ""


def test_a_settled_rollout_is_closed_by_the_next() -> None:
    """Watching ends as promoted, a complete way back as rolled back, one that exposed nothing as superseded."""
    sim = Sim()
    sim.begin()
    driver = sim.driver()
    while sim.document().rollout.trail[-1:] == () or sim.document().rollout.trail[-1].phase != "watching":
        sim.tick(driver)
    assert isinstance(begin.closed(sim.document(), sim.target.observe(), START).rollout.phase, Promoted)

    sim = Sim(behaviour=Behaviour(ready_after=None, exits_after=0.5))
    sim.begin()
    driver = sim.driver()
    while not isinstance(sim.document().rollout.phase, Verifying):
        sim.tick(driver)
    assert isinstance(begin.closed(sim.document(), sim.target.observe(), START).rollout.phase, RolledBack)

    assert isinstance(begin.closed(begun(Sim()), Sim().target.observe(), START).rollout.phase, Superseded)
    assert begin.closed(Document("web"), sim.target.observe(), START) == Document("web")


def test_a_rollout_that_goes_on_is_not_closed() -> None:
    """A stage under watch is in the way of the next rollout."""
    sim = Sim()
    sim.begin()
    driver = sim.driver()
    for _ in range(4):
        sim.tick(driver)

    with pytest.raises(WorldError, match="not at its end"):
        begin.closed(sim.document(), sim.target.observe(), START)


@pytest.mark.parametrize("known", [True, False])
def test_a_return_goes_back_without_stages(known: bool) -> None:
    """`rollback` on a settled target is a rollout of its own kind that ends with the named version stable."""
    sim = Sim()
    sim.begin()
    document = sim.run()
    assert document.stable[0].version == NEW
    if not known:
        document = replace(document, stable=())
    back = begin.returned(sim.policy, document, sim.target.observe(), Wish("r2", "web", "web", OLD, {}), OLD, "ann", sim.clock.at)
    store = MemoryStore(sim.memory, "web")
    store.save(claims.claimed(back, "driver-9", sim.clock.at), store.load()[1])
    sim.saves.append(back)
    assert isinstance(back.rollout.phase, RollingBack)

    ended = sim.run()

    assert ended.stable[0].version == OLD
    assert sim.exposed() == 0
    assert ended.rollout.kind == "return"


def test_a_return_of_an_unknown_target_names_the_version_itself() -> None:
    """Where nothing stable is known the return has nothing to leave."""
    sim = Sim()
    view = replace(sim.target.observe(), adopted=None)

    assert begin.returned(sim.policy, Document("web"), view, WISH, OLD, "ann", START).rollout.candidate == OLD


def nobody(_: str) -> bool:
    return False


def test_a_claim_is_held_until_it_lapses_or_its_holder_is_gone() -> None:
    """Nobody drives beside a living holder; nobody waits for a dead one."""
    document = Document("web", claim=Claim("a", START + claims.CLAIM))

    assert claims.held_by_other(document, "b", START, nobody) == document.claim
    assert claims.held_by_other(document, "b", START, lambda _: True) is None
    assert claims.held_by_other(document, "a", START, nobody) is None
    assert claims.held_by_other(document, "b", START + claims.CLAIM, nobody) is None
    assert claims.held_by_other(Document("web"), "b", START, nobody) is None


def test_only_ones_own_claim_is_released() -> None:
    """Releasing leaves a stranger's claim alone."""
    document = Document("web", claim=Claim("a", START))

    assert claims.released(document, "a").claim is None
    assert claims.released(document, "b") is document
    assert claims.released(Document("web"), "b").claim is None


def test_taking_over_raises_the_fence_also_from_nobody() -> None:
    """A driver that finds a rollout without a claim takes it over under a new fence."""
    sim = Sim()
    sim.begin()
    sim.tick(sim.driver())
    free = replace(sim.document(), claim=None)

    taken = claims.claimed(free, "z", START)

    assert taken.rollout.seq == free.rollout.seq + 1
    assert taken.rollout.outbox[-1].text == "z took over"


def broken(before: Document, after: Document) -> str:
    with pytest.raises(Bug) as caught:
        invariants.check(before, after)
    return caught.value.message


def test_what_must_hold_between_two_documents() -> None:
    """Each invariant names what was broken."""
    sim = Sim()
    first = begun(sim)
    rollout = first.rollout
    ended = replace(first, rollout=replace(rollout, phase=Promoted()))

    assert "fence went back" in broken(replace(first, fence=9), first)
    assert "above the fence" in broken(first, replace(first, rollout=replace(rollout, seq=99)))
    assert "left a terminal phase" in broken(ended, replace(first, rollout=replace(rollout, phase=Waiting())))
    assert "seq of rollout r1 went back" in broken(first, replace(first, rollout=replace(rollout, seq=0)))
    sick = Sim(bad=0.2)
    sick.begin()
    failed = sick.run()
    latched = failed.rollout.latched
    assert "lost its FAIL" in broken(
        replace(first, rollout=replace(rollout, latched=latched)), replace(first, rollout=replace(rollout, latched=None))
    )
    assert "lost ledger entries" in broken(replace(first, rollout=replace(rollout, written=5)), first)
    from deployguard.model.rollout import Watching

    watching = replace(rollout, latched=latched, phase=Watching(START + dt.timedelta(hours=1)))
    assert "promoted after a FAIL" in broken(Document("web"), replace(first, rollout=watching))
    invariants.check(first, replace(first, rollout=None))
    invariants.check(first, replace(first, rollout=replace(rollout, id="r2")))


def test_what_nobody_drove_to_its_end_wants_only_to_be_ended() -> None:
    """A way back that was cut off, and a candidate that the target took back by itself; not one that still serves, and not nothing."""
    sim = Sim()
    view = sim.target.observe()
    document = begun(sim)
    exposed = replace(document, rollout=replace(document.rollout, phase=Analyzing(0, START, START)))
    going_back = replace(document, rollout=replace(document.rollout, phase=RollingBack(OLD, 0, "abort", "", START)))

    assert not begin.left_behind(Document("web"), view)
    assert not begin.left_behind(exposed, view)
    assert begin.left_behind(exposed, replace(view, retreated=document.rollout.first_seq))
    assert not begin.left_behind(exposed, replace(view, retreated=document.rollout.first_seq - 1))
    assert begin.left_behind(going_back, view)
