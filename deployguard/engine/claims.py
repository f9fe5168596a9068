"""Who drives: a claim in the document, renewed with every checkpoint, lapsed after its time.

Leader election is for thrift; the fence is for safety: taking over raises it, so that a driver that comes back from a long
sleep is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import msgspec

from deployguard.engine.record import noted
from deployguard.model.document import Claim, Document

CLAIM = dt.timedelta(seconds=30)


def held_by_other(document: Document, me: str, now: dt.datetime, gone: Callable[[str], bool]) -> Claim | None:
    """The claim of another driver that has not lapsed; None when `me` may drive.

    `gone` says of a holder that it certainly does not run any more: nobody waits for the dead.
    """
    claim = document.claim
    if claim is None or claim.holder == me or claim.until <= now or gone(claim.holder):
        return None
    return claim


def claimed(document: Document, me: str, now: dt.datetime) -> Document:
    """The document driven by `me`. Taking over an unfinished rollout raises its fence and leaves an entry."""
    claim = Claim(me, now + CLAIM)
    before, rollout = document.claim, document.rollout
    if before is not None and before.holder == me:
        return msgspec.structs.replace(document, claim=claim)
    if rollout is None or rollout.terminal or rollout.written == 0:
        return msgspec.structs.replace(document, claim=claim)
    fence = max(document.fence, rollout.seq) + 1
    rollout = msgspec.structs.replace(rollout, seq=fence)
    after = f" from {before.holder}" if before else ""
    rollout = noted(rollout, "claim", f"{me} took over{after}", now)
    return msgspec.structs.replace(document, claim=claim, rollout=rollout, fence=fence)


def released(document: Document, me: str) -> Document:
    """The document without the claim of `me`."""
    if document.claim is None or document.claim.holder != me:
        return document
    return msgspec.structs.replace(document, claim=None)
