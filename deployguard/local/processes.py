"""Processes as things with an identity, and the end of those that an earlier supervisor left behind.

A process number alone may name a stranger after a reboot or a long while, so number and start time are recorded together.
What was started but not yet recorded when a supervisor was killed is found by the mark in its environment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from deployguard import clock
from deployguard.errors import ForeignState
from deployguard.local.layout import Layout, read_bytes
from deployguard.local.records import Identity
from deployguard.model.base import decode

MARK = "DEPLOYGUARD_FLEET"
"""The environment variable that every process of a fleet carries: the fleet's directory."""
_SAME_START = 2.0
_TERM_GRACE = 1.0
_KILL_GRACE = 5.0
_POLL = 0.02

logger = logging.getLogger(__name__)


def identify(pid: int) -> Identity:
    """Who `pid` is now; a start time of 0 when it has already ended."""
    import psutil  # here and below: a client of the fleet needs none of it, and `status` is one

    try:
        return Identity(pid, psutil.Process(pid).create_time())
    except psutil.Error:
        return Identity(pid, 0.0)


def alive(identity: Identity) -> bool:
    """Whether this very process still runs. One that has ended and was not yet collected does not."""
    import psutil

    try:
        process = psutil.Process(identity.pid)
        return abs(process.create_time() - identity.created) < _SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def signal_group(pid: int, number: int) -> None:
    """The process group led by `pid` has been sent the signal, if there is still one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_leftovers(layout: Layout, number: int = signal.SIGTERM) -> int:
    """No process of an earlier supervisor of this fleet runs any more; how many there were.

    Only the holder of the fleet's lock may call this: whatever runs then is nobody's.
    """
    found = {identity.pid: identity for identity in (*_recorded(layout), *_marked(layout))}
    for identity in found.values():
        logger.warning("ending process %d, left behind by an earlier supervisor", identity.pid)
        _signal(identity, number)
    rest = wait_ended(found.values(), _TERM_GRACE)
    for identity in found.values():
        _signal(identity, signal.SIGKILL)
    for identity in wait_ended(rest, _KILL_GRACE):
        logger.error("process %d does not end, even when killed", identity.pid)
    for path in _records(layout):
        path.unlink(missing_ok=True)
    return len(found)


def wait_ended(identities: Iterable[Identity], seconds: float) -> list[Identity]:
    """Those that still run after at most `seconds`."""
    deadline = clock.monotonic() + seconds
    while (rest := [i for i in identities if alive(i)]) and clock.monotonic() < deadline:
        clock.sleep(_POLL)
    return rest


def _signal(identity: Identity, number: int) -> None:
    """Sent to the whole group while it can still be told whose it is: the leader lives, or a marked member does."""
    if not alive(identity):
        return
    try:
        leads = os.getpgid(identity.pid) == identity.pid
        if leads:
            os.killpg(identity.pid, number)
        else:
            os.kill(identity.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _records(layout: Layout) -> list[Path]:
    return [layout.balancer, *sorted((layout.root / "instances").glob("*/process.json"))]


def _recorded(layout: Layout) -> Iterator[Identity]:
    for path in _records(layout):
        if (data := read_bytes(path)) is not None:
            try:
                identity = decode(data, Identity)
            except ForeignState:
                logger.warning("ignoring the damaged record %s", path)
                continue
            if alive(identity):
                yield identity


def _marked(layout: Layout) -> Iterator[Identity]:
    import psutil

    spared = _family()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in spared and process.uids().real == os.getuid() and process.environ().get(MARK) == str(layout.root):
                identity = Identity(process.pid, process.create_time())
                if alive(identity):
                    yield identity


def _family() -> set[int]:
    """This process and its ancestors, which may carry the mark when they were started from inside an instance."""
    import psutil

    try:
        own = psutil.Process()
        return {own.pid, *(process.pid for process in own.parents())}
    except psutil.Error:
        return {os.getpid()}
