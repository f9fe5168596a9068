"""The local fleet does what it is told: with real processes, real sockets and a balancer between."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from deployguard.errors import StaleView, UserError
from deployguard.local import fleet
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from tests.contracts.fleet_yard import Yard, a_yard, by_id, eventually, get


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with a_yard(tmp_path) as yard:
        yield yard


def test_a_fleet_that_is_up_serves_users_and_shows_what_runs(yard: Yard) -> None:
    """After `up` every instance is ready with the first release, users are answered, and nothing was told yet."""
    seen: list[TargetView] = []
    view = fleet.up(yard.file(), yard.folder, yard.state, on_progress=seen.append)
    assert [(i.id, i.ready, i.loaded == i.assigned == view.adopted) for i in view.instances] == [(str(n), True, True) for n in range(3)]
    assert (view.wanted, view.told, view.fence, view.retreated) == (3, None, 0, None)
    assert get(view.listeners["all"])["name"] == "one"
    assert view.adopted is not None
    digest = view.adopted.digest
    assert eventually(lambda: fleet.status("web", yard.state).served.get(digest)).requests == 1  # type: ignore[union-attr]
    assert seen[-1] == view
    assert [(f.name, f.running) for f in fleet.fleets(yard.state)] == [("web", True)]


def test_the_same_file_is_no_change_and_another_one_is_an_error(yard: Yard) -> None:
    """A second `up` with the same file leaves the fleet alone; with another file it says what differs and changes nothing."""
    before = yard.up()
    assert [i.uid for i in yard.up().instances] == [i.uid for i in before.instances]
    with pytest.raises(UserError, match=r"`instances` is 3 there and 4 in the file"):
        yard.up(instances=4)
    assert [i.uid for i in yard.target.observe().instances] == [i.uid for i in before.instances]


def test_a_shift_restarts_only_the_slot_that_changes(yard: Yard) -> None:
    """One slot takes the candidate and gives it back; the processes of the others are the same throughout."""
    before = by_id(yard.up())
    candidate = yard.admit(yard.release("two"))
    yard.shift(1, candidate, 1)
    view = yard.on(candidate, 1)
    (canary,) = [i for i in view.instances if i.loaded == candidate]
    assert get(view.listeners["candidate"])["name"] == "two"
    assert get(view.listeners["stable"])["name"] == "one"
    assert {i.uid for i in view.instances} & {i.uid for i in before.values()} == {i.uid for i in before.values() if i.id != canary.id}
    yard.shift(2)
    after = by_id(yard.on(candidate, 0))
    assert {i for i in after if after[i].uid == before[i].uid} == set(before) - {canary.id}
    assert after[canary.id].uid not in (canary.uid, before[canary.id].uid)


def test_more_exposure_keeps_those_already_on_the_candidate(yard: Yard) -> None:
    """Growing from one to two leaves the first canary alone, and a promotion makes all of them stable."""
    yard.up()
    candidate = yard.admit(yard.release("two"))
    yard.shift(1, candidate, 1)
    (canary,) = [i for i in yard.on(candidate, 1).instances if i.loaded == candidate]
    yard.shift(2, candidate, 2)
    assert by_id(yard.on(candidate, 2))[canary.id].uid == canary.uid
    yard.shift(3, stable=candidate)
    assert by_id(yard.on(candidate, 3))[canary.id].uid == canary.uid
    assert {get(yard.target.observe().listeners["stable"])["name"] for _ in range(6)} == {"two"}


def test_a_configuration_is_reloaded_by_signal_and_read_back(yard: Yard) -> None:
    """With `reload` a new configuration is loaded by the same process, which counts as loaded only when it says so."""
    before = by_id(yard.up(config="first.json", reload={"signal": "HUP", "within": "10s"}))
    candidate = yard.admit(config=yard.config("second", {"name": "second"}))
    yard.shift(1, candidate, 1)
    after = by_id(yard.on(candidate, 1))
    assert {i: after[i].uid for i in after} == {i: before[i].uid for i in before}
    assert {get(yard.target.observe().listeners["candidate"])["name"] for _ in range(4)} == {"second"}


def test_a_configuration_that_is_not_loaded_in_time_restarts_the_instance(yard: Yard) -> None:
    """A process that ignores the signal is restarted, and then runs the new configuration."""
    yard.release("deaf", deaf=True)
    before = by_id(yard.up(config="first.json", release="releases/deaf", reload={"within": "200ms"}))
    stable = before["0"].assigned
    candidate = Version(stable.release, yard.target.client.admit("config", yard.config("second", {"name": "second"})))
    yard.shift(1, candidate, 1)
    after = by_id(yard.on(candidate, 1))
    assert [after[i].uid == before[i].uid for i in after].count(False) == 1


def test_a_process_that_dies_of_its_new_configuration_counts_against_it(yard: Yard) -> None:
    """An exit while the new configuration is being loaded is one of the candidate; the next process starts with it."""
    yard.release("fragile", fragile=True)
    before = by_id(yard.up(config="first.json", release="releases/fragile", reload={"within": "20s"}))
    candidate = Version(before["0"].assigned.release, yard.target.client.admit("config", yard.config("second", {"name": "second"})))
    yard.shift(1, candidate, 1)
    (canary,) = [i for i in yard.on(candidate, 1).instances if i.loaded == candidate]
    assert canary.exit is not None
    assert (canary.exits, canary.exit.code, canary.exit.was_ready) == (1, 3, True)


def test_a_crash_at_the_start_is_counted_with_its_last_lines(yard: Yard) -> None:
    """An instance that ends by itself before it was ready shows how often, with what code, and what it said last."""
    yard.up()
    candidate = yard.admit(yard.release("broken", exit=7))
    yard.shift(1, candidate, 1)
    seen = eventually(lambda: next((i for i in yard.target.observe().instances if i.exits >= 2), None))
    assert seen is not None
    assert seen.exit is not None
    assert (seen.assigned, seen.ready, seen.exit.code, seen.exit.was_ready) == (candidate, False, 7, False)
    assert seen.exit.tail[-1] == "cannot go on: the flaw says so"
    yard.shift(2)
    assert [i.exits for i in yard.on(candidate, 0).instances] == [0, 0, 0]


def test_an_instance_that_is_never_ready_gets_no_users(yard: Yard) -> None:
    """It is up and has loaded the candidate, but stays out of the routes, and is left as it is."""
    view = yard.up()
    candidate = yard.admit(yard.release("dull", unready=True))
    yard.shift(1, candidate, 1)
    (canary,) = eventually(lambda: [i for i in yard.target.observe().instances if i.loaded == candidate])
    assert not canary.ready
    assert canary.exits == 0
    assert {get(view.listeners["all"])["name"] for _ in range(9)} == {"one"}


def test_a_missing_command_refuses_the_instance_and_does_not_spin(yard: Yard) -> None:
    """A release without the program is refused with the reason, and nothing is tried again and again."""
    release = yard.release("with")
    (release / "run").write_text(f"#!/bin/sh\nexec {sys.executable} {'$DEPLOYGUARD_RELEASE'}/app.py\n")
    (release / "run").chmod(0o755)
    yard.up(command=["{release}/run"], release="releases/with")
    candidate = yard.admit(yard.release("without"))
    yard.shift(1, candidate, 1)
    (canary,) = eventually(lambda: [i for i in yard.target.observe().instances if i.refused])
    assert "command not found" in canary.refused
    assert (canary.assigned, canary.exits, canary.ready) == (candidate, 0, False)


def test_a_command_that_does_not_exist_is_found_before_anything_changes(yard: Yard) -> None:
    """`up` with an unknown program is an error of the user and leaves no directory behind."""
    with pytest.raises(UserError, match="command not found") as caught:
        yard.up(command=["no-such-program-here"])
    assert caught.value.exit_code == 2
    assert not yard.root.exists()


def test_a_path_that_is_none_is_found_before_anything_changes(yard: Yard) -> None:
    """`up` with a JSONPath that cannot be read names it; otherwise nothing would ever count as loaded."""
    with pytest.raises(UserError, match=r"`loaded.config`.*\$\.\.config"):
        yard.up(loaded={"get": "/version", "config": "$..config"})
    assert not yard.root.exists()


def test_an_outdated_fence_or_basis_is_refused(yard: Yard) -> None:
    """A lower fence, and the same fence from an old view or for more exposure, are stale and change nothing."""
    yard.up()
    candidate = yard.admit(yard.release("two"))
    old = yard.target.observe().basis
    yard.shift(5, candidate, 1)
    view = yard.on(candidate, 1)
    assert view.told is not None
    for desired, basis in (
        (msgspec.structs.replace(view.told, fence=4), view.basis),
        (msgspec.structs.replace(view.told, count=0), old),
        (msgspec.structs.replace(view.told, count=2), view.basis),
        (msgspec.structs.replace(view.told, fence=6), old),
    ):
        with pytest.raises(StaleView):
            yard.target.shift(desired, basis)
    yard.target.shift(view.told, view.basis)
    assert yard.target.observe() == view
    yard.target.shift(msgspec.structs.replace(view.told, count=0), view.basis)
    assert yard.on(candidate, 0).basis != view.basis


def test_a_slow_request_on_a_slot_that_changes_is_finished(yard: Yard) -> None:
    """A slot leaves the routes first and ends its process only when the last request is answered."""
    view = yard.up()
    candidate = yard.admit(yard.release("two"))
    folder = yard.folder / "slow"
    folder.mkdir()
    with ThreadPoolExecutor(6) as pool:
        try:
            slow = [pool.submit(get, f"{view.listeners['all']}/slow?in={folder}") for _ in range(6)]
            eventually(lambda: len(list(folder.glob("started-*"))) == 3)
            yard.shift(1, candidate, 1)
            (canary,) = [i for i in yard.target.observe().instances if i.assigned == candidate]
            eventually(lambda: canary.id not in {get(view.listeners["all"])["instance"] for _ in range(9)})
            assert by_id(yard.target.observe())[canary.id].uid == canary.uid
        finally:
            (folder / "go").touch()
        assert {answer.result()["name"] for answer in slow} == {"one"}
    yard.on(candidate, 1)


def test_a_candidate_that_never_becomes_ready_stops_at_the_batch(yard: Yard) -> None:
    """With a batch of one, a second slot changes only when the first one serves again; on the way back nothing blocks."""
    before = by_id(yard.up())
    candidate = yard.admit(yard.release("dull", unready=True))
    yard.shift(1, candidate, 3, batch=1)
    eventually(lambda: [i for i in yard.target.observe().instances if i.loaded == candidate])
    assert {get(yard.target.observe().listeners["all"])["name"] for _ in range(6)} == {"one"}
    after = by_id(yard.target.observe())
    assert sum(after[i].uid != before[i].uid for i in before) == 1
    yard.shift(2)
    assert sum(i.uid != before[i.id].uid for i in yard.on(candidate, 0).instances) == 1


def test_a_restart_happens_once_for_each_fence(yard: Yard) -> None:
    """An instance named in `restart` gets a new process with the same version, and not another one when it is named again."""
    before = by_id(yard.up())
    yard.shift(1, restart=("1",))
    eventually(lambda: by_id(yard.target.observe())["1"].uid != before["1"].uid)
    once = by_id(yard.on(before["1"].assigned, 3))
    assert [once[i].uid == before[i].uid for i in ("0", "1", "2")] == [True, False, True]
    yard.shift(1, restart=("1", "2"))
    eventually(lambda: by_id(yard.target.observe())["2"].uid != before["2"].uid)
    assert by_id(yard.on(before["1"].assigned, 3))["1"].uid == once["1"].uid
