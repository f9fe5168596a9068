"""The process that keeps a local fleet: it outlives the guard, and can bring stable back with nobody's help.

What it is told it saves first and does afterwards, so that it can die at any moment and be started again from its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from deployguard import clock
from deployguard.errors import DeployguardError, StaleView, UserError, WorldError
from deployguard.local import assign, control, logfile
from deployguard.local.balance import Balancer
from deployguard.local.balancer.protocol import Limits
from deployguard.local.content import PARTS, Content
from deployguard.local.control import Question, Reply
from deployguard.local.crew import Slots
from deployguard.local.launch import address, reach, split
from deployguard.local.layout import Layout, locked, read_bytes, socket_path, write_durably
from deployguard.local.processes import end_leftovers, identify
from deployguard.local.records import Assignments, Places, SupervisorRecord, Totals
from deployguard.local.serve import serve
from deployguard.model.base import decode, encode
from deployguard.model.fleet import Fleet, FleetFile
from deployguard.model.target import Desired, TargetView
from deployguard.model.version import Version

_HOUSEKEEPING = 1.0

logger = logging.getLogger(__name__)


class Supervisor:
    """One fleet: what is assigned, who runs, and what is answered at the control socket."""

    def __init__(
        self, layout: Layout, spec: Fleet, environment: dict[str, str], places: Places, present: Assignments, totals: Totals
    ) -> None:
        self.stopping = asyncio.Event()
        self._layout = layout
        self._spec = spec
        self._present = present
        self._content = Content(layout.versions)
        self._totals = totals
        limits = spec.balancer
        self._balancer = Balancer(
            layout,
            places.listeners,
            Limits(limits.response_timeout.total_seconds(), limits.idle_timeout.total_seconds(), limits.connections),
            totals.versions,
        )
        self._slots = Slots(spec, layout, environment, places, present, self._balancer)
        self._one_writer = asyncio.Lock()
        self._verified: set[tuple[str, str, tuple[int, int]]] = set()
        self._lease_ends: float | None = None
        self._lease_moved = asyncio.Event()
        self._collect = True

    async def run(self, ready: Callable[[], None]) -> None:
        """Everything that was started has ended; it ran until `stopping` was set. `ready` is called when it can be asked."""
        await self._balancer.open()
        path = socket_path(self._layout)
        server = await serve(path, self.answer)
        own = identify(os.getpid())
        record = SupervisorRecord(own.pid, own.created, str(path), clock.now().isoformat())
        write_durably(self._layout.supervisor, encode(record))
        self._slots.changed()
        ready()
        house = [asyncio.create_task(forever(step)) for step in (self._balancer.step, self._watch_lease, self._keep_house)]
        work = [asyncio.create_task(forever(slot.step)) for slot in self._slots]
        try:
            await self.stopping.wait()
        finally:
            await _cancel(work)
            await self._slots.close(self._spec.stop.drain.total_seconds())
            await _cancel(house)
            self._save_served()
            await self._balancer.close()
            server.close()
            path.unlink(missing_ok=True)
            if path.parent != self._layout.root:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
            self._layout.supervisor.unlink(missing_ok=True)

    async def answer(self, question: Question) -> Reply:
        """What the control socket says. Raises `DeployguardError` for what cannot be done."""
        match question:
            case control.Ping():
                return Reply(pid=os.getpid())
            case control.Observe():
                await self._balancer.refresh()
                self._save_served()
                return Reply(view=self.view())
            case control.Counts():
                await self._balancer.refresh()
                return Reply(counts=self._balancer.counts())
            case control.Shift(desired, basis):
                await self.shift(desired, basis)
            case control.Renew(fence, lease):
                self.renew(fence, lease)
            case control.Restart(instances):
                self._restart(instances)
            case control.LogPath(instance):
                return Reply(path=str(self._layout.log(self._known(instance))))
            case control.Down():
                self.stopping.set()
        return Reply()

    async def shift(self, desired: Desired, basis: str) -> None:
        """`desired` is saved and on its way. Raises `StaleView` or `WorldError`, and then nothing has changed."""
        async with self._one_writer:
            assign.accept(self._present, desired, basis)
            for version in (desired.stable, desired.candidate):
                if version is not None:
                    await self._verify(version)
            # The lease may have run out while the copies were read.
            before = self._present
            after = assign.accept(before, desired, basis)
            if after is before:
                return
            self._save(after)
            self._lease_ends = clock.monotonic() + desired.lease if desired.lease > 0 and after.candidates else None
            self._lease_moved.set()
            again = [slot for slot in desired.restart if before.restarted.get(slot) != desired.fence]
            self._slots.assign(after, desired.batch, again)
            logger.info("follows fence %d: %d on the candidate", after.fence, len(after.candidates))

    def renew(self, fence: int, lease: float) -> None:
        """The candidates are kept for `lease` seconds from now. Raises `StaleView`."""
        if fence != self._present.fence:
            raise StaleView(f"cannot renew for fence {fence}: this fleet follows fence {self._present.fence}")
        if self._present.retreated == fence:
            raise StaleView(f"cannot renew for fence {fence}: it has retreated")
        if lease > 0 and self._present.candidates:
            self._lease_ends = clock.monotonic() + lease
            self._lease_moved.set()

    def view(self) -> TargetView:
        """The fleet as it is now."""
        present = self._present
        return TargetView(
            fence=present.fence,
            basis=present.basis,
            wanted=len(present.slots),
            told=present.told,
            instances=self._slots.views(),
            retreated=present.retreated,
            listeners={name: _url(listener) for name, listener in self._balancer.listeners.items()},
            served=self._balancer.served(),
            adopted=present.adopted,
        )

    def _restart(self, instances: Iterable[str]) -> None:
        names = [self._known(name) for name in instances] or list(self._present.slots)
        self._slots.assign(self._present, None, names)

    def _known(self, instance: str) -> str:
        if instance not in self._present.slots:
            raise UserError(
                f"the fleet {self._layout.name} has no instance {instance}", hint=f"its instances are 0 to {len(self._present.slots) - 1}"
            )
        return instance

    async def _verify(self, version: Version) -> None:
        for part in PARTS:
            digest = version.release if part == "release" else version.config
            if self._content.holds(part, digest) and (part, digest, self._content.stamp(part, digest)) in self._verified:
                continue
            await asyncio.to_thread(self._content.verify, part, digest)
            self._verified.add((part, digest, self._content.stamp(part, digest)))

    def _save(self, after: Assignments) -> None:
        write_durably(self._layout.assignments, encode(after))
        self._present = after
        self._collect = True

    def _save_served(self) -> None:
        """The counts are on disk before anybody sees them, so that they do not go back when this process is killed."""
        totals = Totals(self._balancer.served())
        if totals == self._totals:
            return
        try:
            write_durably(self._layout.served, encode(totals), sync=False)
            self._totals = totals
        except WorldError as error:
            # A full disk must not make the guard blind.
            logger.error("%s", error.message)

    async def _watch_lease(self) -> None:
        ends = self._lease_ends
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if ends is None else max(0.0, ends - clock.monotonic())):
                await self._lease_moved.wait()
        self._lease_moved.clear()
        if self._lease_ends is None or clock.monotonic() < self._lease_ends:
            return
        self._lease_ends = None
        if not self._present.candidates:
            return
        if not assign.may_retreat(self._present):
            logger.warning("the lease of fence %d ran out; most slots run the candidate, so they keep it", self._present.fence)
            return
        logger.warning("the lease of fence %d ran out; the candidates go back to stable", self._present.fence)
        batch = assign.retreat_batch(self._present)
        after = assign.retreat(self._present)
        try:
            self._save(after)
        except WorldError as error:
            # The only act that does not wait for the disk: a restart from the old record would retreat as well.
            logger.error("%s", error.message)
            self._present = after
        self._slots.assign(after, batch)

    async def _keep_house(self) -> None:
        await asyncio.sleep(_HOUSEKEEPING)
        await self._balancer.refresh()
        self._save_served()
        logs = self._spec.logs
        for slot in self._slots:
            logfile.rotate(self._layout.log(slot.name), logs.size, logs.keep)
        logfile.rotate(self._layout.supervisor_log, logs.size, logs.keep)
        if self._collect:
            self._collect = False
            keep = assign.kept(self._present) | self._slots.versions()
            await asyncio.to_thread(self._content.collect, "release", {version.release for version in keep})
            await asyncio.to_thread(self._content.collect, "config", {version.config for version in keep})


async def forever(step: Callable[[], Awaitable[None]]) -> None:
    """Never returns: `step` is taken again and again, also after one that failed for a reason nobody thought of."""
    while True:
        try:
            await step()
        except Exception:
            logger.exception("a step failed and is taken again")
            await asyncio.sleep(1)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def load(layout: Layout) -> Supervisor:
    """The fleet as its disk says, with candidates that nobody watched taken back if they are few."""
    data = read_bytes(layout.fleet)
    saved = read_bytes(layout.assignments)
    places = read_bytes(layout.places)
    if data is None or saved is None or places is None:
        raise UserError(f"there is no fleet in {layout.root}", hint="start it with `deployguard local up -f FILE`")
    spec = FleetFile.model_validate_json(data).spec
    before = decode(saved, Assignments)
    after = assign.reshape(before, spec.instances)
    if assign.may_retreat(after):
        logger.warning("candidates were exposed when the last supervisor ended; they go back to stable")
        after = assign.retreat(after)
    if after is not before:
        write_durably(layout.assignments, encode(after))
    environment = json.loads(read_bytes(layout.environment) or b"{}")
    totals = decode(read_bytes(layout.served) or b"{}", Totals)
    return Supervisor(layout, spec, environment, decode(places, Places), after, totals)


def _url(listener: str) -> str:
    host, port = split(listener)
    return f"http://{address(reach(host), port)}"


class Herald:
    """Tells whoever waits for the start, once, how it went."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, **message: object) -> None:
        """It is told; a second time nothing happens, because the number may name another file by then."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(descriptor, json.dumps(message).encode() + b"\n")
                os.close(descriptor)


async def _supervise(layout: Layout, herald: Herald) -> None:
    supervisor = load(layout)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stopping.set)
    # Handled, not ignored: what is ignored would stay so in the instances, which may reload by this very signal.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    await supervisor.run(lambda: herald.tell(ready=True))


def main(arguments: list[str] | None = None) -> int:
    """The fleet ran until it was told to end; the exit code of the process."""
    parser = argparse.ArgumentParser(prog="deployguard.local.supervisor")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args(arguments)
    if not options.foreground and os.fork():
        # The child belongs to nobody who could take it along.
        os._exit(0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    layout = Layout(options.dir.resolve())
    herald = Herald(options.ready_fd)
    try:
        layout.prepare()
        with locked(layout.root / "supervisor.lock", f"the fleet {layout.name} already has a supervisor"):
            end_leftovers(layout)
            try:
                asyncio.run(_supervise(layout, herald))
            finally:
                # A start that was interrupted may have left a process that no slot knows of.
                end_leftovers(layout)
    except DeployguardError as error:
        logger.error("%s", error.message)
        herald.tell(failed=error.message, hint=error.hint, user=isinstance(error, UserError))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
