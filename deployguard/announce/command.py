"""Announcements to a command: the announcement is JSON on its standard input.

The command gets a small environment of its own: what deployguard itself was given may hold tokens of clusters and
pipelines. Input and errors go through files, not pipes, so that a child it leaves behind cannot hold us up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from typing import IO

from deployguard.announce.body import body_bytes
from deployguard.errors import WorldError
from deployguard.model.rollout import Entry

KEEP = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_STDERR_READ = 4096


class ToCommand:
    """Announces by running a program; no shell."""

    def __init__(self, command: list[str], timeout: float = 10.0) -> None:
        self.command = list(command)
        self.timeout = timeout
        self.name = f"command {self.command[0]}"

    def announce(self, entry: Entry) -> None:
        """The command has ended with status 0. After `timeout` seconds it and its children are killed."""
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            stdin.write(body_bytes(entry))
            stdin.seek(0)
            try:
                process = subprocess.Popen(
                    self.command,
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=_environment(entry),
                    start_new_session=True,
                )
            except OSError as error:
                raise WorldError(
                    f"could not announce {entry.id} with {self.name}: {error.strerror or error}",
                    hint="look at `announce` of the guard: the command is a program and its arguments, without a shell",
                ) from error
            self._finish(process, stderr, entry)

    def _finish(self, process: subprocess.Popen[bytes], stderr: IO[bytes], entry: Entry) -> None:
        try:
            code = process.wait(self.timeout)
        except subprocess.TimeoutExpired as error:
            raise WorldError(
                f"could not announce {entry.id} with {self.name}: it ran longer than {self.timeout:g} s and was ended",
                hint="raise `timeout` of this sink, or make the command answer sooner",
            ) from error
        finally:
            if process.poll() is None:
                # Its own session: the group is the command and what it started, never us.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code:
            raise WorldError(
                f"could not announce {entry.id} with {self.name}: it ended with {_status(code)}{_last_line(stderr)}",
                hint="the announcement is tried again; receivers drop repeated ids",
            )


def _environment(entry: Entry) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEEP if name in os.environ}
    return kept | {"DEPLOYGUARD_ID": entry.id, "DEPLOYGUARD_GUARD": entry.guard, "DEPLOYGUARD_EVENT": entry.event}


def _status(code: int) -> str:
    return f"status {code}" if code > 0 else f"signal {-code}"


def _last_line(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_READ))
    lines = [line for line in stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()[:300]}" if lines else ""
