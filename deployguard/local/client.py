"""The supervisor of a fleet, asked from another process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from deployguard.errors import ForeignState, StaleView, UserError, WorldError
from deployguard.local import control
from deployguard.local.control import LINE_LIMIT, Counted, Reply
from deployguard.local.layout import Layout
from deployguard.local.records import supervisor_of
from deployguard.model.base import decode, encode
from deployguard.model.target import Desired, TargetView

if TYPE_CHECKING:
    # Hashing and copying, which whoever only looks at a fleet does not need.
    from deployguard.local.content import Part


class FleetClient:
    """One fleet. Every call makes a connection of its own, so it also finds a supervisor that was started again."""

    def __init__(self, fleet_dir: Path, timeout: float = 5.0) -> None:
        self.layout = Layout(fleet_dir.resolve())
        self._timeout = timeout

    def ping(self) -> int:
        """The process number of the supervisor. Raises `WorldError` when it does not answer."""
        return self._ask(control.Ping()).pid

    def observe(self) -> TargetView:
        """The fleet as it is now."""
        view = self._ask(control.Observe()).view
        if view is None:
            raise ForeignState(f"the supervisor of fleet {self.layout.name} answered without a view", hint="restart it with this version")
        return view

    def counts(self) -> dict[str, Counted]:
        """User requests by process (`uid`), as the balancer has counted them since the process was started."""
        return self._ask(control.Counts()).counts

    def shift(self, desired: Desired, basis: str) -> None:
        """`desired` is saved and on its way. Raises `StaleView`, or `WorldError`, and then nothing has changed."""
        self._ask(control.Shift(desired, basis))

    def renew(self, fence: int, lease: float) -> None:
        """The candidates are kept for `lease` seconds more. Raises `StaleView`."""
        self._ask(control.Renew(fence, lease))

    def restart(self, *instances: str) -> None:
        """These instances, all when none is named, are being restarted with what they run."""
        self._ask(control.Restart(instances))

    def log_path(self, instance: str) -> Path:
        """Where the instance logs. Raises `UserError` when there is no such instance."""
        return Path(self._ask(control.LogPath(instance)).path)

    def down(self) -> None:
        """The fleet has begun to end."""
        self._ask(control.Down())

    def admit(self, part: Part, source: Path | None, expected: str | None = None) -> str:
        """The digest of `source`, of which the fleet now holds an immutable copy. Needs no supervisor."""
        from deployguard.local.content import Content

        if not self.layout.fleet.exists():
            raise self._silent("it has never been started")
        return Content(self.layout.versions).admit(part, source, expected)

    def content(self, part: Part, digest: str) -> Path:
        """Where the immutable copy lies. Raises `WorldError` when there is none."""
        from deployguard.local.content import Content

        store = Content(self.layout.versions)
        if not store.holds(part, digest):
            raise WorldError(
                f"the fleet {self.layout.name} holds no copy of the {part} {digest}", hint="it was never admitted, or was collected"
            )
        return store.path(part, digest)

    def _ask(self, question: control.Question) -> Reply:
        record = supervisor_of(self.layout)
        if record is None:
            raise self._silent("it has never been started" if not self.layout.root.exists() else "it is not running")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(record.socket)
                connection.sendall(encode(question) + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline(LINE_LIMIT)
        except OSError as error:
            raise self._silent(str(error)) from error
        if not line.endswith(b"\n"):
            raise self._silent("it closed the connection")
        return _judged(decode(line, Reply))

    def _silent(self, why: str) -> WorldError:
        return WorldError(
            f"the fleet {self.layout.name}: its supervisor does not answer ({why})", hint="start it with `deployguard local up`"
        )


def _judged(reply: Reply) -> Reply:
    match reply.error:
        case "":
            return reply
        case "stale":
            raise StaleView(reply.message, hint=reply.hint)
        case "user":
            raise UserError(reply.message, hint=reply.hint)
        case _:
            raise WorldError(reply.message, hint=reply.hint)
