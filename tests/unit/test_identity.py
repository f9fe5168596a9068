"""Who drives, as other processes can tell: nobody waits for the dead, and nobody takes a stranger for dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from deployguard.wiring.guard import gone, identity


def test_only_the_dead_of_this_machine_are_gone() -> None:
    """A process that runs is not gone, one that has ended is; a number that another machine or container gave says nothing."""
    mine = identity()
    child = subprocess.run(
        [sys.executable, "-c", "from deployguard.wiring.guard import identity; print(identity())"],
        capture_output=True,
        text=True,
        check=True,
    )
    dead = child.stdout.strip()
    host, number, started, numbered_by = dead.split("/")
    assert host == socket.gethostname()
    assert mine.split("/")[1] == str(os.getpid())
    assert (gone(mine), gone(dead)) == (False, True)
    assert gone(f"{host}/{os.getpid()}/{float(started) - 100:.2f}/{numbered_by}"), "a later process of the same number"
    elsewhere = "another container of the same host name"
    assert not gone(f"{host}/{number}/{started}/{elsewhere}")
    assert not gone(f"other-{host}/{number}/{started}/{numbered_by}")
    assert not gone(f"{host}/{number}/{started}")
