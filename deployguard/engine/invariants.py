"""What must hold between any two saved documents. Broken, it is a bug: nothing is written."""

from __future__ import annotations

from deployguard.errors import Bug
from deployguard.model.document import Document
from deployguard.model.rollout import Watching


def check(before: Document, after: Document) -> None:
    """Raise `Bug` when `after` may not follow `before`."""
    old, new = before.rollout, after.rollout
    if after.fence < before.fence:
        raise Bug(f"the fence went back from {before.fence} to {after.fence}")
    if new is None:
        return
    if new.seq > after.fence:
        raise Bug(f"rollout {new.id} has seq {new.seq} above the fence {after.fence}")
    if old is not None and old.id == new.id:
        if old.terminal and new.phase != old.phase:
            raise Bug(f"rollout {new.id} left a terminal phase")
        if new.seq < old.seq:
            raise Bug(f"the seq of rollout {new.id} went back from {old.seq} to {new.seq}")
        if old.latched is not None and new.latched is None:
            raise Bug(f"rollout {new.id} lost its FAIL")
        if new.written < old.written:
            raise Bug(f"rollout {new.id} lost ledger entries")
    if new.latched is not None and isinstance(new.phase, Watching):
        raise Bug(f"rollout {new.id} was promoted after a FAIL")
