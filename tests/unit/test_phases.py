"""Phases that stories reach too rarely: the rungs of the way back, relapse, drift, holds, and requests that do not apply."""

from __future__ import annotations

import datetime as dt

import msgspec

from deployguard.driver.tick import Driver
from deployguard.engine import health, phases
from deployguard.engine.stages import planned
from deployguard.engine.step import NOTHING
from deployguard.model.document import Document, StableVersion
from deployguard.model.rollout import Analyzing, Failed, Holding, Promoted, RolledBack, RollingBack, Verifying, Watching
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.stores.memory import MemoryStore
from deployguard.targets.simulated import Behaviour, SimulatedTarget
from tests.properties.world import NEW, NEXT, OLD, Sim

replace = msgspec.structs.replace
OLDER = Version("sha256:" + "d" * 64)


def started(**kwargs: object) -> tuple[Sim, Driver]:
    sim = Sim(**kwargs)  # type: ignore[arg-type]
    sim.begin()
    return sim, sim.driver()


def until(sim: Sim, driver: Driver, phase: type, limit: int = 200) -> Document:
    for _ in range(limit):
        if isinstance(sim.document().rollout.phase, phase):
            return sim.document()
        sim.tick(driver)
    raise AssertionError(f"{sim.document().rollout.phase} after {limit} ticks")


def stuck(sim: Sim) -> None:
    """Instance 0 does not take the stable version by itself."""
    sim.target.behaviours[OLD.digest] = Behaviour(ready_after=None)


def test_what_did_not_take_the_stable_version_is_restarted() -> None:
    """The second rung restarts the instance that has not acknowledged; then the way back is complete."""
    sim, driver = started(bad=0.2)
    until(sim, driver, Analyzing)
    stuck(sim)
    until(sim, driver, RollingBack)
    while sim.document().rollout.phase.rung == 0:
        sim.tick(driver)
    sim.tick(driver)
    sim.tick(driver)
    assert sim.target.told.restart == ("0",)
    sim.target.behaviours[OLD.digest] = Behaviour()

    document = until(sim, driver, RolledBack)

    assert "restarting what did not take it" in " ".join(s.text for s in document.rollout.trail).replace("the stable version", "it")


def test_a_way_back_that_takes_too_long_is_announced_and_goes_on() -> None:
    """Overdue is an entry in the ledger, and nothing else changes."""
    sim, driver = started(bad=0.2)
    until(sim, driver, Analyzing)
    stuck(sim)
    until(sim, driver, RollingBack)
    while not sim.document().rollout.phase.overdue:
        sim.tick(driver)
    sim.target.behaviours[OLD.digest] = Behaviour()
    sim.target.exit("0", 1)

    until(sim, driver, RolledBack)

    entries = [e for e in sim.memory.ledgers["web"] if e.event == "overdue"]
    assert len(entries) == 1
    assert "instances 0" in entries[0].text


def test_a_way_back_nobody_can_see_is_overdue_too() -> None:
    """The deadline also passes while the target is silent."""
    sim, driver = started(bad=0.2)
    until(sim, driver, RollingBack)
    sim.target_down = True
    for _ in range(40):
        sim.tick(driver)

    assert any(e.event == "overdue" for e in sim.memory.ledgers["web"])


def test_the_next_older_stable_version_is_a_rung_when_the_policy_says_so() -> None:
    """With `older` on the ladder a stable version that does not come up is left for the one before it."""
    sim, driver = started(bad=0.2, policy={"rollback": {"within": "30s", "relapse_watch": "5s", "ladder": ["older"]}})
    until(sim, driver, Analyzing)
    store = MemoryStore(sim.memory, "web")
    saved, revision = store.load()
    store.save(replace(saved, stable=(*saved.stable, StableVersion(OLDER, sim.clock.at))), revision)
    stuck(sim)

    document = until(sim, driver, RolledBack)

    assert document.rollout.phase.to == OLDER


def test_without_an_older_version_the_ladder_ends() -> None:
    """There is nothing older: the way back stays what it is."""
    sim, driver = started(bad=0.2, policy={"rollback": {"within": "10s", "relapse_watch": "5s", "ladder": ["older"]}})
    until(sim, driver, Analyzing)
    stuck(sim)
    until(sim, driver, RollingBack)
    for _ in range(20):
        sim.tick(driver)

    assert sim.document().rollout.phase.rung == 0
    assert sim.document().rollout.phase.overdue


def test_a_candidate_that_appears_again_is_taken_back_again() -> None:
    """In the relapse watch an instance on the candidate starts the next rung."""
    sim, driver = started(bad=0.2)
    until(sim, driver, Verifying)
    one = sim.target.instances[3]
    sim.target.instances[3] = replace(one, assigned=NEW, loaded=NEW)
    sim.target.told = replace(sim.target.told, batch=99)
    sim.tick(driver)
    assert isinstance(sim.document().rollout.phase, RollingBack)
    assert "relapse" in sim.document().rollout.trail[-1].text
    sim.target.instances[3] = replace(one)

    until(sim, driver, RolledBack)


def test_a_fence_that_went_back_is_somebody_elses_write() -> None:
    """The rollout holds for drift, and goes on when a person says so."""
    sim, driver = started()
    until(sim, driver, Analyzing)
    sim.tick(driver)
    sim.target.fence = 0
    document = until(sim, driver, Holding)
    assert document.rollout.phase.why == "drift"
    for _ in range(3):
        sim.tick(driver)
    sim.ask("resume")

    until(sim, driver, Promoted)


def test_a_silent_target_holds_and_then_the_soak_starts_anew() -> None:
    """A target that cannot be asked is a blind signal like any other."""
    sim, driver = started()
    until(sim, driver, Analyzing)
    sim.target_down = True
    document = until(sim, driver, Holding)
    assert "the target is silent" in document.rollout.phase.text
    sim.tick(driver)
    sim.target_down = False

    until(sim, driver, Watching)


def test_a_hold_ends_into_the_stage_when_what_runs_has_changed() -> None:
    """An instance that exited during a hold is brought in place again before the soak."""
    sim, driver = started()
    until(sim, driver, Analyzing)
    sim.blind = True
    until(sim, driver, Holding)
    sim.target.instances[0] = replace(sim.target.instances[0], loaded=OLD)
    sim.blind = False
    sim.tick(driver)
    assert "again after the hold" in sim.document().rollout.trail[-1].text
    sim.target.instances[0] = replace(sim.target.instances[0], loaded=NEW)

    until(sim, driver, Watching)


def test_a_driver_that_takes_over_during_a_hold_first_puts_its_fence_on_the_target() -> None:
    """The hold ends a tick later, and the trail is the same as without the change of drivers."""
    sim, driver = started()
    until(sim, driver, Analyzing)
    sim.blind = True
    until(sim, driver, Holding)
    sim.blind = False
    other = sim.driver()
    sim.tick(other)
    assert isinstance(sim.document().rollout.phase, Holding)
    sim.tick(other)

    assert isinstance(sim.document().rollout.phase, Analyzing)


def test_requests_that_do_not_apply_leave_an_entry_and_change_nothing() -> None:
    """`skip-soak` outside a soak, `resume` without a pause, anything after the end."""
    sim, driver = started()
    sim.tick(driver)
    sim.ask("skip-soak", "a")
    sim.ask("resume", "b")
    sim.tick(driver)
    document = until(sim, driver, Promoted)
    sim.ask("abort", "c")
    sim.tick(driver)

    assert sim.document().rollout.phase == Promoted()
    assert [e.data["verb"] for e in sim.memory.ledgers["web"] if e.event == "request"] == ["skip-soak", "resume", "abort"]
    assert document.rollout.terminal


def test_an_abort_on_the_way_back_changes_nothing() -> None:
    """The way back cannot be turned back."""
    sim, driver = started(bad=0.2)
    until(sim, driver, RollingBack)
    sim.ask("abort")
    sim.tick(driver)

    assert sim.document().rollout.phase.why == "fail"


def test_a_document_without_a_rollout_has_nothing_to_do() -> None:
    """A driver on an empty store does nothing."""
    sim = Sim()
    ticked = sim.driver().tick()

    assert ticked.document.rollout is None


class Cramped(SimulatedTarget):
    """A target on which another process sits on the candidate's port."""

    def observe(self) -> TargetView:
        view = super().observe()
        held = {"started": None, "ready": False, "loaded": None, "waiting": "port 9100 is taken"}
        return replace(view, instances=tuple(replace(i, **held) if i.assigned == NEW else i for i in view.instances))


def test_a_candidate_that_the_environment_keeps_from_starting_is_withdrawn() -> None:
    """Without a running instance there is nobody to blame: taken back without a verdict."""
    sim = Sim()
    sim.target = Cramped(sim.clock, 8, OLD)
    sim.begin()

    document = until(sim, sim.driver(), RolledBack)

    assert document.rollout.phase.why == "not_started"
    assert "port 9100 is taken" in document.rollout.phase.text
    assert document.quarantine == ()


def test_a_stable_instance_doomed_alike_is_no_reason_to_blame() -> None:
    """When stable instances exit in the same way after the exposure, the candidate is not condemned for it."""
    sim, driver = started(behaviour=Behaviour(exits_after=3.0))
    until(sim, driver, Analyzing)
    for one in ("5", "5"):
        sim.target.exit(one, 1)
        sim.tick(driver)
    for _ in range(8):
        sim.tick(driver)

    assert sim.document().rollout.latched is None


def test_an_old_copy_does_nothing_when_the_target_carries_a_higher_fence() -> None:
    """A driver whose saved rollout is below the target's fence neither saves nor acts."""
    sim, driver = started()
    sim.tick(driver)
    saves = len(sim.saves)
    sim.target.fence = 99
    ticked = sim.tick(driver)

    assert ticked.outdated
    assert len(sim.saves) == saves


def test_a_rollout_waits_while_the_target_is_silent_or_somebody_paused_it() -> None:
    """Nothing is exposed before the target has been seen, nor while a person holds it; an abort then ends it at once."""
    sim, driver = started()
    sim.target_down = True
    sim.tick(driver)
    assert sim.exposed() == 0
    sim.target_down = False
    sim.ask("pause", "a")
    sim.tick(driver)
    assert "asked for pause" in sim.document().rollout.phase.reasons[0]
    sim.ask("abort", "b")
    sim.tick(driver)

    assert sim.document().rollout.phase.why == "abort"
    assert sim.exposed() == 0


def test_the_relapse_watch_waits_for_a_silent_target() -> None:
    """A way back that is complete stays so while the target cannot be asked."""
    sim, driver = started(bad=0.2)
    until(sim, driver, Verifying)
    sim.target_down = True
    for _ in range(30):
        sim.tick(driver)
    assert isinstance(sim.document().rollout.phase, Verifying)
    sim.target_down = False

    until(sim, driver, RolledBack)


def test_a_lease_that_ran_out_takes_the_rollout_back_without_a_verdict() -> None:
    """Nobody renewed for longer than the lease: the target went back, and so does the rollout."""
    sim, driver = started()
    until(sim, driver, Analyzing)
    sim.clock.at += dt.timedelta(seconds=20)

    document = until(sim, driver, RolledBack)

    assert document.rollout.phase.why == "lease"
    assert document.quarantine == ()


def test_a_scene_of_a_terminal_rollout_changes_nothing() -> None:
    """The last phases lead nowhere."""
    sim, driver = started()
    rollout = until(sim, driver, Promoted).rollout
    scene = phases.Scene(
        policy=sim.policy, document=sim.document(), stages=planned(sim.policy, 8), view=None, verdict=NOTHING, stopped="", silence="",
        unwatched=False, journeys_healthy=False, journeys_red="", journeys_unheard="", now=sim.clock.at,
    )  # fmt: skip

    assert phases.advanced(scene, rollout) is rollout


def test_a_rollout_waits_for_the_first_walk_of_its_journeys() -> None:
    """A journey that has not been walked on stable yet is a reason to wait."""
    sim, _ = started()
    rollout = sim.document().rollout
    scene = phases.Scene(
        policy=sim.policy, document=sim.document(), stages=planned(sim.policy, 8), view=sim.target.observe(), verdict=NOTHING, stopped="",
        silence="", unwatched=False, journeys_healthy=False, journeys_red="", journeys_unheard="login", now=sim.clock.at,
    )  # fmt: skip

    assert phases.advanced(scene, rollout).phase.reasons == ("the first walk of the probe login on stable",)


def test_what_dooms_an_instance_and_what_keeps_a_stage_from_its_place() -> None:
    """A refusal names the version; an instance on another version and a wrong number of instances are told apart."""
    sim, driver = started()
    until(sim, driver, Analyzing)
    view = sim.target.observe()
    warmup = dt.timedelta(seconds=5)
    refused = replace(view.instances[0], refused="command not found: shopp")
    refused_too = replace(view.instances[1], refused="command not found: shopp")
    both = replace(view, instances=(refused, refused_too, *view.instances[2:]))

    assert "command not found" in health.doom(refused, warmup)
    assert health.stable_doomed(both, NEW, sim.clock.at, warmup) == {"refused": sim.clock.at}
    assert health.condemned(both, NEW, {"refused": sim.clock.at}, warmup) is None
    assert health.condemned(both, NEW, {}, warmup).reason == "doomed"
    elsewhere = replace(view, instances=(replace(view.instances[0], loaded=OLD), *view.instances[1:]))
    assert "on another version" in health.unsettled_words(elsewhere, NEW)
    assert health.unsettled_words(view, NEW) == "the number of instances changed"


def test_blindness_in_the_watch_is_told_once_and_moves_nothing() -> None:
    """Silence after the promotion leaves two entries, one when it begins and one when it ends."""
    sim, driver = started()
    until(sim, driver, Watching)
    sim.target_down = True
    for _ in range(6):
        sim.tick(driver)
    sim.target_down = False
    until(sim, driver, Promoted)

    texts = [e.text for e in sim.memory.ledgers["web"] if e.event == "blind"]
    assert len(texts) == 2
    assert texts[0].startswith("blind while watching: the target is silent")


def test_a_person_may_close_a_way_back_that_is_overdue() -> None:
    """What cannot be brought back is closed by hand as failed, and the next rollout may begin."""
    sim, driver = started(bad=0.2)
    until(sim, driver, Analyzing)
    stuck(sim)
    until(sim, driver, RollingBack)
    sim.ask("abort", "early")
    while not sim.document().rollout.phase.overdue:
        sim.tick(driver)
    sim.ask("abort", "late")

    document = until(sim, driver, Failed)

    assert document.rollout.phase.text.startswith("closed by hand")
    sim.target.behaviours[OLD.digest] = Behaviour()
    sim.begin(NEXT, "r2")
    assert sim.run().stable[0].version == NEXT
