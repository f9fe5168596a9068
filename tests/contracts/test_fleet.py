"""The local fleet keeps its promises: with real processes, real sockets and a balancer between."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import pytest

from deployguard.errors import StaleView, UserError, WorldError
from deployguard.local import asking, fleet, logfile
from deployguard.local.content import Content
from deployguard.local.processes import MARK
from deployguard.model.fleet import FleetFile
from deployguard.model.target import Desired, Instance, TargetView
from deployguard.model.version import NOTHING, Version
from deployguard.targets.local import LocalTarget

T = TypeVar("T")
APP = Path(__file__).with_name("fleet_app.py")


def eventually(check: Callable[[], T], seconds: float = 30.0) -> T:
    """The first true answer of `check`; the last one is shown when there was none in time."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {found!r}"
        time.sleep(0.02)
    return found


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: dict[str, Any] = json.loads(answer.read())
        return body


class Yard:
    """One fleet named `web`, its state, and what a release and a configuration are made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.root = self.state / "fleets" / "web"
        self.release("one")
        self.config("first", {"name": "one"})

    def release(self, name: str, **flaws: object) -> Path:
        path = self.folder / "releases" / name
        path.mkdir(parents=True)
        shutil.copy(APP, path / "app.py")
        (path / "flaws.json").write_text(json.dumps({"name": name, **flaws}))
        return path

    def config(self, name: str, content: dict[str, object]) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    def file(self, **changes: object) -> FleetFile:
        spec = {
            "instances": 3,
            "command": [sys.executable, "{release}/app.py"],
            "release": "releases/one",
            "listen": {"all": "127.0.0.1:0"},
            "ready": {"get": "/ready", "every": "100ms", "within": "20s"},
            "loaded": {"get": "/version", "config": "$.config", "release": "$.release.digests[0]"},
            "restart": {"first": "50ms", "most": "200ms"},
            "stop": {"drain": "20s", "kill_after": "5s"},
            **changes,
        }
        return FleetFile.model_validate({"metadata": {"name": "web"}, "spec": spec})

    def up(self, **changes: object) -> TargetView:
        return fleet.up(self.file(**changes), self.folder, self.state)

    @property
    def target(self) -> LocalTarget:
        return LocalTarget(self.root)

    def admit(self, release: Path | None = None, config: Path | None = None) -> Version:
        client = self.target.client
        return Version(
            client.admit("release", release or self.folder / "releases" / "one"), client.admit("config", config) if config else NOTHING
        )

    def shift(self, fence: int, candidate: Version | None = None, count: int = 0, **rest: Any) -> None:
        view = self.target.observe()
        stable = rest.pop("stable", view.adopted)
        self.target.shift(Desired(fence, stable, candidate, count, **rest), view.basis)

    def on(self, version: Version, count: int, *, of: int = 3) -> TargetView:
        """The view in which `count` instances run and serve `version` and all others are ready as well."""

        def settled() -> TargetView | None:
            view = self.target.observe()
            good = [i for i in view.instances if i.ready and i.loaded == i.assigned]
            return view if len(good) == of and sum(i.loaded == version for i in good) == count else None

        found = eventually(settled)
        assert found is not None
        return found

    def supervisor(self) -> psutil.Process:
        return psutil.Process(json.loads((self.root / "supervisor.json").read_text())["pid"])

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this fleet, but its supervisor."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path.resolve())
    yield yard
    if yard.root.exists():
        with contextlib.suppress(UserError):
            fleet.down("web", yard.state)
    left = yard.processes()
    for process in left:
        process.kill()
    # The immutable copies are read-only, also for whoever cleans up.
    for path in yard.state.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    assert not left


def by_id(view: TargetView) -> dict[str, Instance]:
    return {instance.id: instance for instance in view.instances}


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


def test_the_fence_survives_the_end_of_the_fleet(yard: Yard) -> None:
    """After `down` and `up` the fence is the same and a lower one is still refused."""
    yard.up()
    yard.shift(5)
    fleet.down("web", yard.state)
    assert yard.up().fence == 5
    with pytest.raises(StaleView):
        yard.shift(4)


def test_a_lease_that_runs_out_takes_the_candidate_back(yard: Yard) -> None:
    """Without renewal the canary returns to stable by itself, and the same fence cannot expose it again."""
    first = yard.up()
    candidate = yard.admit(yard.release("two"))
    yard.shift(1, candidate, 1, lease=60.0)
    told = yard.on(candidate, 1)
    yard.target.renew(1, 0.2)
    eventually(lambda: yard.target.observe().retreated == 1)
    view = yard.on(candidate, 0)
    assert {i.loaded for i in view.instances} == {first.adopted}
    assert (view.fence, view.told) == (1, told.told)
    assert view.basis != told.basis
    for refused in (lambda: yard.shift(1, candidate, 1, lease=60.0), lambda: yard.target.renew(1, 60.0)):
        with pytest.raises(StaleView, match="retreated"):
            refused()
    yard.shift(2, candidate, 1)
    yard.on(candidate, 1)


def test_a_lease_that_runs_out_above_half_of_the_fleet_holds(yard: Yard) -> None:
    """A guard that fell silent late must not flip the fleet: the candidates stay, and an instance comes back with what it ran."""
    yard.up()
    candidate = yard.admit(yard.release("two"))
    yard.shift(1, candidate, 2, lease=60.0)
    view = yard.on(candidate, 2)
    yard.target.renew(1, 0.1)
    eventually(lambda: "so they keep it" in (yard.root / "supervisor.log").read_text())
    canary = next(i for i in view.instances if i.loaded == candidate)
    os.kill(get(f"http://{canary.address}/")["pid"], signal.SIGKILL)
    eventually(lambda: by_id(yard.target.observe())[canary.id].uid != canary.uid)
    after = yard.on(candidate, 2)
    assert (after.retreated, after.basis) == (None, view.basis)
    assert by_id(after)[canary.id].exits == 1


def test_a_killed_supervisor_leaves_nothing_and_stable_comes_back_from_disk(yard: Yard) -> None:
    """What a killed supervisor left is ended first; then the fleet starts from its disk with the canary taken back."""
    before = yard.up()
    candidate = yard.admit(yard.release("two"))
    yard.shift(1, candidate, 1)
    listeners = yard.on(candidate, 1).listeners
    left = yard.processes()
    yard.supervisor().kill()
    eventually(lambda: not fleet.fleets(yard.state)[0].running)
    with pytest.raises(WorldError, match="supervisor does not answer"):
        fleet.status("web", yard.state)
    view = fleet.up_from_disk("web", yard.state)
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert {i.loaded for i in view.instances} == {before.adopted}
    assert (view.retreated, view.fence, view.listeners) == (1, 1, listeners)
    assert {get(view.listeners["all"])["name"] for _ in range(6)} == {"one"}


def test_a_killed_balancer_comes_back_on_the_same_addresses(yard: Yard) -> None:
    """Users find the fleet where it was, and what was served before still counts."""
    view = yard.up()
    get(view.listeners["all"])
    eventually(lambda: sum(s.requests for s in yard.target.observe().served.values()) == 1)
    pid = json.loads((yard.root / "balancer.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)

    def answered() -> bool:
        with contextlib.suppress(OSError):
            return get(view.listeners["all"])["name"] == "one"
        return False

    eventually(answered)
    after = yard.target.observe()
    assert after.listeners == view.listeners
    assert [i.uid for i in after.instances] == [i.uid for i in view.instances]
    eventually(lambda: sum(s.requests for s in yard.target.observe().served.values()) == 2)


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


def test_only_the_owner_may_enter(yard: Yard) -> None:
    """The fleet's directories have mode 0700, its files and its socket 0600, and copies cannot be written."""
    yard.up()

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.lstat().st_mode)

    control = Path(json.loads((yard.root / "supervisor.json").read_text())["socket"])
    assert (mode(control), mode(control.parent)) == (0o600, 0o700)
    assert {mode(path) for path in (yard.root, yard.root / "instances" / "0", yard.root / "logs", yard.root / "versions")} == {0o700}
    files = [path for path in yard.root.iterdir() if path.is_file()]
    assert {mode(path) for path in (*files, *(yard.root / "logs").iterdir())} == {0o600}
    assert {mode(path) & 0o222 for path in (yard.root / "versions").glob("*/*/content/**/*")} == {0}


def test_a_long_state_path_still_has_a_socket(yard: Yard) -> None:
    """A directory too deep for a Unix socket gets its socket elsewhere, in a directory of its owner alone."""
    yard.state = yard.folder / ("deep" * 20)
    yard.root = yard.state / "fleets" / "web"
    yard.up(instances=1)
    control = Path(json.loads((yard.root / "supervisor.json").read_text())["socket"])
    assert yard.root not in control.parents
    assert stat.S_IMODE(control.parent.stat().st_mode) == 0o700
    fleet.down("web", yard.state)
    assert not control.exists()


def test_a_listener_in_use_is_an_error_and_nothing_is_left_running(yard: Yard) -> None:
    """`up` on an address that somebody holds names it and starts nothing."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(UserError, match=f"{port} is taken") as caught:
            yard.up(listen={"all": f"127.0.0.1:{port}"})
    assert caught.value.exit_code == 2
    assert not yard.processes()
    assert not fleet.running(yard.target.client.layout)


def test_a_balancer_that_cannot_listen_ends_the_start(yard: Yard) -> None:
    """An address taken between the check and the start is found by the balancer; `up` says so and nothing is left."""
    yard.up(instances=1)
    fleet.down("web", yard.state)
    places = json.loads((yard.root / "places.json").read_text())
    with (
        socket.create_server(("127.0.0.1", int(places["listeners"]["all"].rpartition(":")[2]))),
        pytest.raises(UserError, match="cannot listen"),
    ):
        fleet.up_from_disk("web", yard.state)
    assert not yard.processes()


def test_an_instance_whose_port_is_taken_waits_and_names_it(yard: Yard) -> None:
    """A stranger on an instance's port is trouble of the environment: the instance waits, and starts when the port is free."""
    yard.up(instances=1)
    port = json.loads((yard.root / "places.json").read_text())["ports"]["0"]
    fleet.down("web", yard.state)
    with socket.create_server(("127.0.0.1", port)):
        (instance,) = fleet.up_from_disk("web", yard.state).instances
        assert str(port) in instance.waiting
        assert (instance.exits, instance.refused) == (0, "")
    eventually(lambda: yard.target.observe().instances[0].ready)


def test_a_copy_that_does_not_match_its_digest_is_refused(yard: Yard) -> None:
    """A copy that was altered on the disk is not exposed, and the fleet stays as it was."""
    before = yard.up()
    candidate = yard.admit(yard.release("two"))
    copy = yard.target.client.content("release", candidate.release) / "flaws.json"
    copy.chmod(0o600)
    copy.write_text("{}")
    with pytest.raises(WorldError, match="digest mismatch"):
        yard.shift(1, candidate, 1)
    assert yard.target.observe() == before


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


def test_copies_that_nothing_names_are_collected(yard: Yard) -> None:
    """An old copy goes when nothing names it; the last three stable versions and what was told to be kept stay."""
    yard.up(instances=1)
    versions = [yard.admit(yard.release(name)) for name in ("two", "three", "four", "kept", "loose", "fresh")]
    releases = yard.root / "versions" / "release"
    for version in versions[:-1]:
        os.utime(releases / version.release.removeprefix("sha256:"), (0, 0))
    for fence, version in enumerate(versions[:3], start=1):
        yard.shift(fence, stable=version, keep=(versions[3],))
    held = {version.release for version in versions if version != versions[4]}
    loose = releases / versions[4].release.removeprefix("sha256:")
    eventually(lambda: not loose.exists())
    assert held <= {"sha256:" + path.name for path in releases.iterdir()}


def test_logs_are_rotated_and_their_end_can_be_read(tmp_path: Path) -> None:
    """A full log moves aside, as many old ones are kept as wanted, and a tail holds the last lines of one process only."""
    log = tmp_path / "0.log"
    for text in ("first\n", "second\n", "third\n"):
        os.write(descriptor := logfile.open_log(log), text.encode() * 300)
        os.close(descriptor)
        assert logfile.rotate(log, 1024, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.log", "0.log.1", "0.log.2"]
    assert (tmp_path / "0.log.1").read_text().startswith("third")
    assert not logfile.rotate(log, 1024, 2)
    log.write_text("of another process\nmine\n")
    assert logfile.tail(log, len("of another process\n")) == ("mine",)


def test_a_path_picks_its_value() -> None:
    """`$.a.b[0]` finds what it says, nothing where there is nothing, and a path that is none is an error."""
    document = {"a": {"b": ["x", {"c d": 1}]}}
    found = [asking.pick(document, path) for path in ("$.a.b[0]", "$.a.b[1]['c d']", "$.a.z[0]", "$.a.b[7]", "$")]
    assert found == ["x", 1, None, None, document]
    with pytest.raises(ValueError, match="not a path"):
        asking.pick(document, "$..a")


def test_content_is_named_by_what_it_holds(tmp_path: Path) -> None:
    """Equal content has one digest and one copy; another byte, an unexpected digest or a link outside is refused or differs."""
    store = Content(tmp_path / "versions")
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "file").write_text("content")
        (folder / "link").symlink_to("sub/file")
    (second / "__pycache__").mkdir()
    digest = store.admit("release", first)
    assert store.admit("release", second, digest) == digest
    assert (store.path("release", digest) / "link").read_text() == "content"
    (second / "sub" / "file").write_text("other")
    with pytest.raises(UserError, match="has the digest"):
        store.admit("release", second, digest)
    (second / "out").symlink_to("../a")
    with pytest.raises(UserError, match="leads out of"):
        store.admit("release", second)
    assert store.admit("config", None) == NOTHING
    assert len(list((tmp_path / "versions" / "release").iterdir())) == 1
    shutil.rmtree(first)


def test_down_ends_everything_and_later_calls_say_so(yard: Yard) -> None:
    """After `down` no process runs, and whoever asks is told how to start the fleet."""
    yard.up()
    fleet.down("web", yard.state)
    assert not yard.processes()
    with pytest.raises(WorldError, match="supervisor does not answer") as caught:
        yard.target.observe()
    assert "local up" in caught.value.hint
    assert fleet.log_path("web", "0", yard.state).read_text().startswith("starting")
