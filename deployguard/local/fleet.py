"""A local fleet from the outside: started, looked at, ended.

What can be wrong with a fleet file on this machine (no such command, a port in use) is found here, before anything runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployguard import clock
from deployguard.errors import UserError, WorldError
from deployguard.local import assign, launch, logfile, places
from deployguard.local.client import FleetClient
from deployguard.local.content import Content
from deployguard.local.layout import Layout, fleet_root, locked, read_bytes, write_durably
from deployguard.local.processes import alive, end_leftovers, wait_ended
from deployguard.local.records import Assignments, Identity, Places, supervisor_of
from deployguard.model.base import decode, encode
from deployguard.model.target import TargetView
from deployguard.model.version import Version

if TYPE_CHECKING:
    # The fleet file is pydantic, which `status` must not pay for.
    from deployguard.model.fleet import Fleet, FleetFile

Progress = Callable[[TargetView], None]
_START = 30.0
_POLL = 0.05
_PATIENCE = 10.0
"""Seconds for which a supervisor that is just ending is waited for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A fleet that this state directory knows."""

    name: str
    running: bool
    directory: Path


def up(
    fleet_file_model: FleetFile,
    base: Path,
    state: Path,
    *,
    foreground: bool = False,
    on_progress: Progress = lambda _view: None,
) -> TargetView:
    """The fleet runs and it is known of every instance whether it became ready; with `foreground`, it has run and ended.

    `base` is the directory that the file's paths are relative to. A fleet that already runs with the same file is left
    alone. One that followed a rollout before keeps its versions: the file's release is the first one, not the newest.
    Raises `UserError`, with nothing left running, when the command, an address, or a running fleet is in the way.
    """
    file = _with_absolute_paths(fleet_file_model, base)
    layout = Layout(fleet_root(state.resolve(), file.metadata.name))
    if running(layout):
        _must_be_same(layout, file)
        _not_twice(layout, foreground)
        return FleetClient(layout.root).observe()
    _check_command(file.spec)
    _check_paths(file.spec)
    if not layout.root.exists():
        # A fleet that is new here has no leftovers that could hold its ports: what is taken is found before a byte is written.
        places.choose(file.spec, None)
    layout.prepare()
    with locked(layout.root / "up.lock", f"the fleet {layout.name} is being started by somebody else"):
        _clear(layout)
        _lay_out(layout, file)
        return _start(layout, file.spec, foreground, on_progress)


def up_from_disk(name: str, state: Path, *, foreground: bool = False, on_progress: Progress = lambda _view: None) -> TargetView:
    """The fleet runs as its own disk says, with no file, no guard and no network; what an earlier supervisor left is gone."""
    from deployguard.model.fleet import FleetFile

    layout = _existing(name, state)
    if running(layout):
        _not_twice(layout, foreground)
        return FleetClient(layout.root).observe()
    data = read_bytes(layout.fleet)
    if data is None or not layout.assignments.exists():
        raise UserError(f"the fleet {name} was never started", hint="start it with `deployguard local up -f FILE`")
    with locked(layout.root / "up.lock", f"the fleet {name} is being started by somebody else"):
        return _start(layout, FleetFile.model_validate_json(data).spec, foreground, on_progress)


def _not_twice(layout: Layout, foreground: bool) -> None:
    """Raise `UserError` when a fleet that is up already was to run with this very process."""
    if foreground:
        raise UserError(
            f"the fleet {layout.name} is up already", hint="end it first with `deployguard local down`, or leave out `--foreground`"
        )


def down(name: str, state: Path) -> None:
    """Nothing of the fleet runs any more. Its versions, logs and fence stay on the disk."""
    layout = _existing(name, state)
    record = supervisor_of(layout)
    if record is not None and alive(record.identity):
        try:
            FleetClient(layout.root).down()
        except WorldError:
            _ask_to_end(record.identity)
        if wait_ended([record.identity], _ending_time(layout)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)
            wait_ended([record.identity], _START)
    _clear(layout)


def status(name: str, state: Path) -> TargetView:
    """What runs where now. Raises `WorldError` when the supervisor does not answer."""
    return FleetClient(_existing(name, state).root).observe()


def log_path(name: str, instance: str, state: Path) -> Path:
    """The log of one instance, also when the fleet does not run. Raises `UserError` when there is no such instance."""
    layout = _existing(name, state)
    data = read_bytes(layout.places)
    known = decode(data, Places).ports if data is not None else {}
    if instance not in known:
        raise UserError(f"the fleet {name} has no instance {instance}", hint=f"its instances are {', '.join(known) or 'none'}")
    return layout.log(instance)


def fleets(state: Path) -> tuple[Listed, ...]:
    """Every fleet of this state directory, by name."""
    roots = sorted((state / "fleets").glob("*/fleet.json"))
    return tuple(Listed(path.parent.name, running(Layout(path.parent)), path.parent) for path in roots)


def running(layout: Layout) -> bool:
    """Whether the supervisor of the fleet runs."""
    record = supervisor_of(layout)
    return record is not None and alive(record.identity)


def _existing(name: str, state: Path) -> Layout:
    layout = Layout(fleet_root(state.resolve(), name))
    if not layout.fleet.exists():
        known = ", ".join(fleet.name for fleet in fleets(state)) or "none"
        raise UserError(
            f"there is no local fleet {name} in {state}; known are: {known}", hint="start it with `deployguard local up -f FILE`"
        )
    return layout


def _clear(layout: Layout) -> None:
    """Nothing of an earlier supervisor runs. Raises `UserError` when one does."""
    with locked(layout.root / "supervisor.lock", f"the fleet {layout.name} has a supervisor that is starting or ending", _PATIENCE):
        end_leftovers(layout)


def _with_absolute_paths(file: FleetFile, base: Path) -> FleetFile:
    spec = file.spec
    paths = {name: str((base / path).resolve()) for name, path in (("release", spec.release), ("config", spec.config)) if path is not None}
    return file.model_copy(update={"spec": spec.model_copy(update=paths)})


def _must_be_same(layout: Layout, file: FleetFile) -> None:
    there = json.loads(read_bytes(layout.fleet) or b"{}").get("spec", {})
    here = file.model_dump(mode="json", by_alias=True)["spec"]
    different = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    if different:
        facts = ", ".join(
            f"`{name}` is {json.dumps(there.get(name))} there and {json.dumps(here.get(name))} in the file" for name in different
        )
        raise UserError(
            f"the fleet {layout.name} already runs with another file: {facts}",
            hint=f"end it first with `deployguard local down {layout.name}`; releases and configurations change with `deployguard run`",
        )


def _check_command(spec: Fleet) -> None:
    """The program exists, as far as it can be seen from where the release lies now."""
    release = Path(spec.release) if spec.release is not None else None
    if release is not None and not release.exists():
        raise UserError(f"there is no release {release}", hint="`release` is relative to the fleet file")
    if spec.config is not None and not Path(spec.config).exists():
        raise UserError(f"there is no configuration {spec.config}", hint="`config` is relative to the fleet file")
    directory = release if release is not None and release.is_dir() else release.parent if release is not None else Path("/")
    facts = {"release": str(release or directory), "config": spec.config or "", "host": spec.host}
    path = launch.fill({**_environment(spec), **spec.env}["PATH"], facts)
    if fault := launch.program_fault(launch.fill(spec.command[0], facts), directory, path):
        raise UserError(f"cannot start the fleet: {fault}", hint="`command` is a list: the program, then its arguments; no shell is used")


def _check_paths(spec: Fleet) -> None:
    """Where an instance says what it has loaded can be read."""
    from deployguard.local import asking

    for name in ("config", "release"):
        path = getattr(spec.loaded, name, None)
        try:
            asking.pick({}, path or "$")
        except ValueError as error:
            raise UserError(
                f"`loaded.{name}` cannot be used: {error}", hint="write a plain path such as $.config or $.loaded[0].digest"
            ) from error


def _environment(spec: Fleet) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in spec.inherit_env if name in os.environ}
    return {"PATH": os.defpath, **inherited}


def _lay_out(layout: Layout, file: FleetFile) -> None:
    """The directory holds everything that the supervisor starts from. Fences, and a stable that was earned, are kept."""
    spec = file.spec
    data = read_bytes(layout.places)
    chosen = places.choose(spec, decode(data, Places) if data is not None else None)
    content = Content(layout.versions)
    version = Version(
        content.admit("release", Path(spec.release) if spec.release is not None else None),
        content.admit("config", Path(spec.config) if spec.config is not None else None),
    )
    saved = read_bytes(layout.assignments)
    present = decode(saved, Assignments) if saved is not None else None
    if present is None or present.told is None:
        write_durably(layout.assignments, encode(assign.first(version, spec.instances)))
    write_durably(layout.environment, json.dumps(_environment(spec), sort_keys=True).encode())
    write_durably(layout.places, encode(chosen))
    write_durably(layout.fleet, file.model_dump_json(by_alias=True, indent=1).encode())


def _start(layout: Layout, spec: Fleet, foreground: bool, on_progress: Progress) -> TargetView:
    """A supervisor runs, and the first readiness of every instance is known."""
    layout.supervisor.unlink(missing_ok=True)
    mine, its = os.pipe()
    command = [sys.executable, "-m", "deployguard.local.supervisor", "--dir", str(layout.root), "--ready-fd", str(its)]
    log = logfile.open_log(layout.supervisor_log)
    try:
        process = subprocess.Popen(
            [*command, *(["--foreground"] if foreground else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.root,
            pass_fds=(its,),
            start_new_session=not foreground,
        )
    finally:
        os.close(its)
        os.close(log)
    if foreground:
        _forward(process)
    else:
        process.wait()
    try:
        _await_start(layout, mine)
    except (UserError, WorldError):
        if foreground:
            process.terminate()
            process.wait()
        raise
    finally:
        os.close(mine)
    view = _await_ready(FleetClient(layout.root), spec, on_progress, process if foreground else None)
    if foreground:
        _stay(process)
    return view


def _await_start(layout: Layout, descriptor: int) -> None:
    deadline = clock.monotonic() + _START
    heard = b""
    while not heard.endswith(b"\n") and (left := deadline - clock.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            data = os.read(descriptor, 65536)
            if not data:
                break
            heard += data
    said = json.loads(heard) if heard.endswith(b"\n") else {}
    if said.get("ready"):
        return
    if "failed" in said:
        kind = UserError if said.get("user") else WorldError
        raise kind(f"the fleet {layout.name} was not started: {said['failed']}", hint=said.get("hint", ""))
    last = " | ".join(logfile.tail(layout.supervisor_log, 0)[-3:])
    raise WorldError(f"the supervisor of fleet {layout.name} did not start: {last}", hint=f"see {layout.supervisor_log}")


def _await_ready(client: FleetClient, spec: Fleet, on_progress: Progress, process: subprocess.Popen[bytes] | None) -> TargetView:
    """The first view in which something is known of every instance, or the last one before a fleet in the foreground ended."""
    deadline = clock.monotonic() + spec.ready.within.total_seconds()
    view = client.observe()
    on_progress(view)
    while not all((i.ready and i.loaded == i.assigned) or i.refused or i.waiting or i.exits > 1 for i in view.instances):
        if clock.monotonic() > deadline:
            break
        clock.sleep(_POLL)
        try:
            view = client.observe()
        except WorldError:
            if process is not None and process.wait() == 0:
                break
            raise
        on_progress(view)
    return view


def _forward(process: subprocess.Popen[bytes]) -> None:
    """A request to end that reaches this process ends the fleet."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))


def _stay(process: subprocess.Popen[bytes]) -> None:
    """The supervisor has ended; an interrupt from the terminal reaches it as well."""
    while True:
        try:
            process.wait()
            return
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)


def _ask_to_end(identity: Identity) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(identity.pid, signal.SIGTERM)


def _ending_time(layout: Layout) -> float:
    """Seconds in which a healthy supervisor has ended everything."""
    from deployguard.model.fleet import FleetFile

    stop = FleetFile.model_validate_json(read_bytes(layout.fleet) or b"").spec.stop
    return stop.drain.total_seconds() + stop.kill_after.total_seconds() + 10.0
