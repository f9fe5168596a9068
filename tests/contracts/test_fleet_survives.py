"""The local fleet keeps its promises when a guard falls silent, a process is killed, a port or a copy is not what it should be."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployguard.errors import StaleView, UserError, WorldError
from deployguard.local import asking, fleet, logfile
from deployguard.local.content import Content
from deployguard.model.version import NOTHING
from tests.contracts.fleet_yard import Yard, a_yard, by_id, eventually, get


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with a_yard(tmp_path) as yard:
        yield yard


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
    with pytest.raises(StaleView, match="retreated"):
        yard.shift(1, candidate, 1, lease=60.0)
    with pytest.raises(StaleView, match="retreated"):
        yard.target.renew(1, 60.0)
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
            return bool(get(view.listeners["all"])["name"] == "one")
        return False

    eventually(answered)
    after = yard.target.observe()
    assert after.listeners == view.listeners
    assert [i.uid for i in after.instances] == [i.uid for i in view.instances]
    eventually(lambda: sum(s.requests for s in yard.target.observe().served.values()) == 2)


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


def test_a_killed_supervisor_does_not_flip_a_fleet_that_mostly_runs_the_candidate(yard: Yard) -> None:
    """Above half of the fleet the assignments on disk stay as they are, and the guard that comes back may go on."""
    yard.up()
    candidate = yard.admit(yard.release("two"))
    yard.shift(1, candidate, 2, lease=60.0)
    before = yard.on(candidate, 2)
    yard.supervisor().kill()
    eventually(lambda: not fleet.fleets(yard.state)[0].running)
    fleet.up_from_disk("web", yard.state)
    after = yard.on(candidate, 2)
    assert {i.id: i.assigned for i in after.instances} == {i.id: i.assigned for i in before.instances}
    assert (after.retreated, after.basis) == (None, before.basis)
    yard.target.renew(1, 60.0)


def test_what_an_instance_started_ends_with_it(yard: Yard) -> None:
    """When an instance is killed, nothing of its process group is left when the next one starts."""
    yard.release("parent", child=True)
    yard.up(instances=1, release="releases/parent")
    (before,) = yard.target.observe().instances
    leader = psutil.Process(get(f"http://{before.address}/")["pid"])
    (child,) = leader.children()
    leader.kill()
    eventually(lambda: yard.target.observe().instances[0].uid != before.uid)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_fleet_in_the_foreground_ends_with_its_terminal(yard: Yard) -> None:
    """With `foreground` the call lasts as long as the fleet, and a request to end it ends everything."""
    (yard.folder / "fleet.json").write_text(yard.file().model_dump_json(by_alias=True))
    script = (
        "import sys; from pathlib import Path; from deployguard.local import fleet; from deployguard.model.fleet import FleetFile; "
        "base = Path(sys.argv[1]); file = FleetFile.model_validate_json((base / 'fleet.json').read_text()); "
        "fleet.up(file, base, base / 'state', foreground=True, on_progress=lambda _: print('seen', flush=True))"
    )
    command = [sys.executable, "-c", script, str(yard.folder)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as terminal:
        assert terminal.stdout is not None
        assert terminal.stdout.readline() == "seen\n"
        assert len(fleet.status("web", yard.state).instances) == 3
        assert terminal.poll() is None
        terminal.send_signal(signal.SIGTERM)
        assert terminal.wait(timeout=30) == 0
    assert not yard.processes()
