"""Targets that expose by surge, follow only when told again, and are changed by others too."""

from __future__ import annotations

import msgspec
import pytest

from deployguard.engine import begin
from deployguard.engine.begin import Wish
from deployguard.engine.intent import desired
from deployguard.engine.needs import needs
from deployguard.engine.stages import fitted, pace, planned
from deployguard.model.document import Document, Quarantined
from deployguard.model.evidence import Finding, Latched
from deployguard.model.policy import Policy
from deployguard.model.rollout import Advancing, Analyzing, Holding, Promoted, RolledBack, RollingBack, Superseded, Verifying, Watching
from deployguard.targets.simulated import Behaviour
from tests.properties.surge import SurgeTarget, surge_sim
from tests.properties.world import NEW, NEXT, OLD, POLICY, START, Crash, Sim

STAGED = Policy.model_validate(
    {**POLICY, "stages": [{"instances": 1, "soak": "1m"}, *({"exposure": f"{e}%", "soak": "1m"} for e in (5, 25, 50, 100))]}
)


def until(sim: Sim, phase: type, *, limit: int = 200) -> Document:
    """Tick until the rollout is in `phase`."""
    driver = sim.driver()
    for _ in range(limit):
        sim.tick(driver)
        if isinstance(sim.document().rollout.phase, phase):
            return sim.document()
    raise AssertionError(f"never {phase.__name__}: {sim.trail()}")


def surged(sim: Sim) -> SurgeTarget:
    assert isinstance(sim.target, SurgeTarget)
    return sim.target


@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 8, 20, 100])
def test_the_share_of_a_stage_never_exceeds_its_cap_by_surge(wanted: int) -> None:
    """c of c + N is at most the cap, or c is 1; one more would exceed it, or be more than the workload has."""
    stages = planned(STAGED, wanted, surge=True)
    caps = {2: 0.05, 3: 0.25, 4: 0.5}

    assert stages[0].count == 1
    assert stages[-1].full
    assert stages[-1].count == wanted
    for stage in stages[:-1]:
        cap = max([caps.get(n, 0.0) for n in stage.numbers])
        assert stage.count == 1 or stage.share <= cap + 1e-9
        assert stage.count == wanted or stage.numbers[-1] == 1 or (stage.count + 1) / (stage.count + 1 + wanted) > cap
    assert sorted(n for stage in stages for n in stage.numbers) == [1, 2, 3, 4, 5]


def test_a_single_instance_still_gets_a_canary_before_it_is_replaced() -> None:
    """With one replica the canary beside it is another stage than the workload itself."""
    assert [(s.count, s.full) for s in planned(STAGED, 1, surge=True)] == [(1, False), (1, True)]
    assert [(s.count, s.full) for s in planned(STAGED, 1)] == [(1, True)]


def test_a_planned_stage_only_falls_when_the_workload_shrinks() -> None:
    """Ten replicas become four: canaries follow down, never up, and a full stage is as large as the workload."""
    stages = planned(STAGED, 10, surge=True)

    assert [s.count for s in fitted(stages, STAGED, 4)] == [1, 1, 4, 4]
    assert [s.count for s in stages] == [1, 3, 10, 10]
    assert [s.count for s in fitted(stages, STAGED, 40)] == [1, 3, 10, 40]


def test_a_good_candidate_is_promoted_through_canaries_and_a_rolling_update() -> None:
    """Canaries come first, then the workload itself, and no canary stays."""
    sim = surge_sim()
    sim.begin()
    document = sim.run()

    assert isinstance(document.rollout.phase, Promoted)
    assert surged(sim).template == NEW
    assert all(i.assigned == NEW and not i.id.startswith("canary") for i in sim.target.instances)
    assert pace(sim.policy) == 5


def test_a_bad_candidate_leaves_the_workload_as_it_was() -> None:
    """The canary fails, and no instance of the workload was ever touched."""
    sim = surge_sim(bad=0.3)
    before = {i.uid for i in sim.target.instances}
    sim.begin()
    document = sim.run()

    assert isinstance(document.rollout.phase, RolledBack)
    assert {i.uid for i in sim.target.instances} == before


@pytest.mark.parametrize("behaviour", [Behaviour(ready_after=None), Behaviour(ready_after=None, exits_after=0.5)])
def test_a_canary_that_does_not_live_is_taken_back(behaviour: Behaviour) -> None:
    """Never ready, or gone at start: the workload stays as it was."""
    sim = surge_sim(behaviour=behaviour)
    sim.begin()

    assert isinstance(sim.run().rollout.phase, RolledBack)
    assert len(sim.target.instances) == sim.target.wanted


def test_a_fault_during_the_rolling_update_turns_it_round() -> None:
    """The template goes back, and what was replaced is replaced again."""
    sim = surge_sim()
    sim.begin()
    driver = sim.driver()
    for _ in range(200):
        sim.tick(driver)
        if surged(sim).template == NEW:
            break
    sim.bad[NEW.digest] = 0.5
    document = sim.run(driver)

    assert isinstance(document.rollout.phase, RolledBack)
    assert document.rollout.latched is not None
    assert all(i.assigned == OLD for i in sim.target.instances)


@pytest.mark.parametrize("bad", [0.0, 0.3])
def test_every_crash_point_ends_as_it_would_without_the_crash(bad: float) -> None:
    """The driver dies at each of its calls in turn; the next one finishes what was begun, write by write."""
    whole = surge_sim(bad=bad)
    whole.begin()
    wanted = type(whole.run().rollout.phase)
    for at in range(1, whole.calls, 7):
        sim = surge_sim(bad=bad)
        sim.begin()
        sim.crash_at = at
        try:
            document = sim.run()
        except Crash:
            document = sim.run(sim.driver())
        assert type(document.rollout.phase) is wanted
        assert {i.assigned for i in sim.target.instances} == {NEW if wanted is Promoted else OLD}


@pytest.mark.parametrize(
    ("phase", "ends"), [(Advancing, Superseded), (Analyzing, Superseded), (Verifying, RolledBack), (Watching, Promoted)]
)
def test_what_somebody_else_rolls_out_is_never_fought(phase: type, ends: type) -> None:
    """A foreign image ends the rollout, the canary goes, and the foreign template stays."""
    sim = surge_sim(bad=0.3 if phase is Verifying else 0.0)
    sim.begin()
    until(sim, phase)
    surged(sim).set_image(NEXT)
    document = sim.run(sim.driver())

    assert isinstance(document.rollout.phase, ends)
    assert surged(sim).template == NEXT
    assert not [i for i in sim.target.instances if i.id.startswith("canary")]
    assert not document.quarantine or phase is Verifying


def test_a_rollout_that_never_began_is_superseded_at_once() -> None:
    """Somebody was faster: nothing is exposed, and the rollout is at its end."""
    sim = surge_sim()
    sim.begin()
    surged(sim).set_image(NEXT)
    document = sim.run()

    assert isinstance(document.rollout.phase, Superseded)
    assert document.rollout.exposed_most == 0


def test_a_changed_source_holds_and_goes_on_when_it_is_back() -> None:
    """The configuration's source was edited meanwhile: the rollout holds, says so, and goes on by itself."""
    sim = surge_sim()
    sim.begin()
    until(sim, Analyzing)
    surged(sim).edited = "somebody edited ConfigMap/web-settings"
    document = until(sim, Holding)

    assert document.rollout.phase.why == "source"
    driver = sim.driver()
    sim.tick(driver)
    assert isinstance(sim.document().rollout.phase, Holding)
    surged(sim).edited = ""
    assert isinstance(sim.run(driver).rollout.phase, Promoted)


def test_an_autoscaler_may_change_the_size_at_any_time() -> None:
    """Eight become twelve while the canary soaks, and six at full exposure: it is promoted on all of them."""
    sim = surge_sim()
    sim.begin()
    until(sim, Analyzing)
    surged(sim).scale(12)
    driver = sim.driver()
    while surged(sim).template != NEW:
        sim.tick(driver)
    surged(sim).scale(6)

    assert isinstance(sim.run(driver).rollout.phase, Promoted)
    assert len(sim.target.instances) == 6


def test_what_runs_is_stable_although_nobody_told_us() -> None:
    """Somebody deployed without the guard: that version is what the next candidate is compared with; a condemned one is not."""
    sim = surge_sim()
    sim.begin()
    document = sim.run()
    surged(sim).template = NEXT
    view = sim.target.observe()
    found = begin.current_stable(document, view)

    assert found is not None
    assert (found.version, found.adopted) == (NEXT, True)
    new = begin.begun(document, view, Wish("r2", "web", "web", OLD, {}), START)
    assert [s.version for s in new.stable] == [NEXT, NEW, OLD]
    assert new.rollout.stable == NEXT
    condemned = msgspec.structs.replace(document, quarantine=(Quarantined(NEXT.release, START, "r0", "bad"),))
    assert begin.current_stable(condemned, view).version == NEW


def test_journeys_are_walked_by_the_ways_that_there_are() -> None:
    """A workload that no Service takes in is walked at its pods alone; without any listener all ways are asked, and say so."""
    sim = surge_sim(policy={"checks": [{"name": "login", "source": "probe", "steps": [{"get": "/login"}]}]})
    sim.begin()
    rollout = msgspec.structs.replace(sim.document().rollout, phase=Analyzing(0, START, START))
    view = sim.target.observe()
    pods = msgspec.structs.replace(view, listeners={"stable": "http://10.0.0.1:80", "candidate": "http://10.0.0.2:80"})
    both = msgspec.structs.replace(view, listeners={**pods.listeners, "all": "http://10.0.0.9:80"})

    assert needs(sim.policy, rollout, view) == needs(sim.policy, rollout, both)
    assert "all" in needs(sim.policy, rollout, both)["login"]
    assert "all" not in needs(sim.policy, rollout, pods)["login"]


SLOW = {"name": "latency", "source": "scrape", "histogram": "http_request_duration_seconds"}


@pytest.mark.parametrize(("failed", "pace_kept"), [(("errors",), 0), (("latency",), 5), (("errors", "latency"), 0), (("health",), 0)])
def test_the_way_back_from_a_slow_candidate_keeps_its_pace(failed: tuple[str, ...], pace_kept: int) -> None:
    """What is slow may be overloaded, so no capacity is taken away at once; errors are ended at full speed."""
    sim = surge_sim(policy={"checks": [*POLICY["checks"], SLOW]})
    sim.begin()
    rollout = sim.document().rollout
    findings = tuple(Finding(name, "fail", "evidence", "") for name in failed)
    back = msgspec.structs.replace(
        rollout, phase=RollingBack(OLD, 0, "fail", "", START), latched=Latched(START, "evidence", "", findings, 1, 8, None)
    )
    stages = planned(sim.policy, 8, surge=True)

    assert desired(sim.policy, sim.document(), back, stages, sim.target.observe()).pace == pace_kept
    returns = msgspec.structs.replace(back, kind="return", latched=None)
    assert desired(sim.policy, sim.document(), returns, stages, sim.target.observe()).pace == 5
