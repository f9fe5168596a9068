"""Where the state of guards lives, and how what they guard is reached: a directory of this machine, or a namespace of a cluster.

Commands know a `Home` and what it gives them; which one it is, is decided once, by the command line.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deployguard.errors import UserError
from deployguard.ports import Inbox, Store

if TYPE_CHECKING:
    from deployguard.kube.client import Kube
    from deployguard.model.document import Document
    from deployguard.model.rollout import Entry, Rollout
    from deployguard.model.target import TargetView
    from deployguard.stores.chain import Verification
    from deployguard.stores.ledger import Summary
    from deployguard.wiring.guard import Rig


def usual_directory() -> Path:
    """Where state lives on this machine unless somebody says otherwise: $XDG_STATE_HOME/deployguard, or ~/.local/state/deployguard."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "deployguard"


class GuardStore(Store, Protocol):
    """Everything that is saved for one guard. `directory` is where this machine keeps its recordings and its driver's log."""

    guard: str
    directory: Path

    def inbox(self) -> Inbox:
        """Requests of people to the guard."""
        ...

    def entries(self, rollout: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """The entries of the ledger, oldest first: of one rollout if named, and only the newest `limit` if given."""
        ...

    def told(self, rollout: str, present: Rollout | None) -> list[Entry]:
        """All entries of `rollout`, oldest first: those in the ledger, and those of the `present` rollout that are not there yet."""
        ...

    def history(self) -> list[Summary]:
        """What became of every rollout in the ledger, the newest first."""
        ...

    def verify(self) -> Verification:
        """Whether the ledger is as it was written."""
        ...

    def stopped(self) -> str:
        """Why every promotion is frozen where this guard is at home; empty when none is."""
        ...


class Home(Protocol):
    """Where guards are at home. `where` names it in messages, `hint` says how another one is named."""

    hint: str

    @property
    def where(self) -> str:
        """What messages call it."""
        ...

    @property
    def kube(self) -> Kube:
        """The cluster that the command line speaks of; connected at first need. Raises `UserError`."""
        ...

    def guards(self) -> list[str]:
        """The names of all guards with anything saved here, sorted."""
        ...

    def store(self, guard: str) -> GuardStore:
        """What is saved for a guard, whether or not anything is yet."""
        ...

    def stopped(self) -> str:
        """Why every promotion is frozen; empty when none is."""
        ...

    def stop(self, who: str, reason: str) -> None:
        """Every promotion is frozen."""
        ...

    def clear(self) -> None:
        """Promotions are free again."""
        ...

    def view(self, document: Document) -> TargetView | None:
        """What runs now; None when the target does not answer, or when nothing was ever rolled out."""
        ...

    def resumed(self, document: Document) -> Rig:
        """What drives the saved rollout, from the saved state alone. Raises `UserError` when there is none."""
        ...

    def flags(self) -> list[str]:
        """The options by which another process finds this home."""
        ...

    def select(self, labels: str) -> None:
        """From now on only guards of workloads that carry these labels are known. Raises `UserError` where there are no labels."""
        ...


class FileHome:
    """A state directory of this machine."""

    hint = "name another `--state`"

    def __init__(self, root: Path, connect: Callable[[], Kube]) -> None:
        """`connect` reaches the cluster of guards whose state is here but whose workload is there."""
        self.root = root
        self._connect = connect

    @property
    def where(self) -> str:
        """What messages call it."""
        return str(self.root)

    @functools.cached_property
    def kube(self) -> Kube:
        """The cluster that the command line speaks of."""
        return self._connect()

    def guards(self) -> list[str]:
        """The names of all guards with anything saved here, sorted."""
        from deployguard.stores.file import guards

        return guards(self.root)

    def store(self, guard: str) -> GuardStore:
        """What is saved for a guard, whether or not anything is yet."""
        from deployguard.stores.file import FileStore

        return FileStore(self.root, guard)

    def stopped(self) -> str:
        """Why every promotion is frozen; empty when none is."""
        from deployguard.stores import stop

        return stop.stopped(self.root)

    def stop(self, who: str, reason: str) -> None:
        """Every promotion is frozen."""
        from deployguard.stores import stop

        stop.stop(self.root, who, reason)

    def clear(self) -> None:
        """Promotions are free again."""
        from deployguard.stores import stop

        stop.clear(self.root)

    def view(self, document: Document) -> TargetView | None:
        """What runs now; None when the target does not answer."""
        from deployguard.errors import DeployguardError

        rollout = document.rollout
        if rollout is None:
            return None
        try:
            if rollout.place:
                from deployguard.wiring.cluster import placed

                return placed(rollout.place, self.kube).observe()
            from deployguard.local.client import FleetClient

            return FleetClient(self.root / "fleets" / rollout.target, timeout=1.0).observe()
        except DeployguardError:
            return None

    def resumed(self, document: Document) -> Rig:
        """What drives the saved rollout, from the saved state alone. Raises `UserError` when there is none."""
        from deployguard.wiring.guard import resumed

        return resumed(self, document)

    def flags(self) -> list[str]:
        """The options by which another process finds this home."""
        return ["--state", str(self.root)]

    def select(self, labels: str) -> None:
        """Fleets carry no labels."""
        raise UserError(f"`-l {labels}` is for guards of a cluster", hint="name a guard of this machine with `--guard`")


def only_guard(home: Home, given: str | None) -> str:
    """The guard that was named, or the only one of its home. Raises `UserError` that lists them."""
    known = home.guards()
    if given is not None:
        if given not in known:
            raise UserError(
                f"there is no guard `{given}` in {home.where}", hint=f"it knows {', '.join(known)}" if known else "no guard has run yet"
            )
        return given
    if len(known) == 1:
        return known[0]
    if not known:
        raise UserError(f"no guard has run in {home.where} yet", hint=f"begin with `deployguard run -f guard.yaml`, or {home.hint}")
    raise UserError(f"{len(known)} guards in {home.where}", hint=f"name one of {', '.join(known)}")
