"""The components as processes: started in sessions of their own, found again by pid and start time, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.cluster.places import ClusterError, Place

PARTS = ("etcd", "apiserver", "manager", "scheduler", "containerd", "kubelet", "proxy")


class Processes:
    """The processes of one cluster. A pid alone may name a stranger, so the start time is kept beside it."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def find(self, name: str) -> psutil.Process | None:
        """The running process of a component, or None."""
        try:
            known = json.loads(self._record(name).read_text())
            process = psutil.Process(known["pid"])
            alive = process.create_time() == known["started"] and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if alive else None

    def start(self, name: str, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> bool:
        """The component runs afterwards with this very command; True if it had to be started."""
        words = [str(word) for word in command]
        if (running := self.find(name)) is not None:
            if json.loads(self._record(name).read_text())["command"] == words:
                return False
            print(f"  {name} runs with other options than wanted: started anew ({running.pid})", flush=True)
            self.stop(name)
        log = self.place.logs / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as out:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        record = {"pid": child.pid, "started": psutil.Process(child.pid).create_time(), "command": words}
        self._record(name).parent.mkdir(parents=True, exist_ok=True)
        self._record(name).write_text(json.dumps(record))
        return True

    def stop(self, name: str, patience: float = 10.0) -> None:
        """The component does not run afterwards; it was asked first."""
        process = self.find(name)
        if process is not None:
            for sign in (signal.SIGCONT, signal.SIGTERM):
                _tell(process, sign)
            try:
                process.wait(patience)
            except psutil.TimeoutExpired:
                _tell(process, signal.SIGKILL)
                process.wait(patience)
        self._record(name).unlink(missing_ok=True)

    def last_words(self, name: str, lines: int = 6) -> str:
        """The end of a component's log."""
        log = self.place.logs / f"{name}.log"
        text = log.read_text(errors="replace").strip().splitlines()[-lines:] if log.exists() else []
        return "\n    ".join(line[:300] for line in text)

    def must_run(self, name: str) -> None:
        """Raises ClusterError with the component's last words if it has ended."""
        if self.find(name) is None:
            log = self.place.logs / f"{name}.log"
            raise ClusterError(f"{name} has ended; its last words ({log}):\n    {self.last_words(name)}")

    def _record(self, name: str) -> Path:
        return self.place.folder / "run" / f"{name}.json"


def _tell(process: psutil.Process, sign: signal.Signals) -> None:
    try:
        process.send_signal(sign)
    except psutil.NoSuchProcess:
        return
