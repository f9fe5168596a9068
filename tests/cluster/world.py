"""deployguard's command on a cluster, asked as a person asks it: a guard file, a namespace, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.world import QUICK, Done, Going

POD_ERRORS = {"name": "errors", "source": "scrape", "bad": 'http_requests_total{code=~"5.."}', "total": "http_requests_total"}
"""The check that finds the shop's errors, with its defaults."""


@dataclass
class ClusterWorld:
    """A folder for files and output, and the namespace that every command works in."""

    folder: Path
    kubeconfig: Path
    namespace: str
    made: int = 0
    going: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = {
            "KUBECONFIG": str(self.kubeconfig),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "NO_COLOR": "1",
            "DEPLOYGUARD_DEBUG": "1",
        }
        # Without a state directory of one's own the state is kept in the cluster, as a person has it.
        self.env = {key: value for key, value in os.environ.items() if key != "DEPLOYGUARD_STATE"} | own

    def guard(
        self,
        *checks: dict[str, Any],
        name: str = "web",
        kind: str = "Deployment",
        config: tuple[str, ...] = (),
        policy: Any = QUICK,
        **more: Any,
    ) -> Path:
        """A guard file of a workload; `config` names its ConfigMaps, or `KIND/NAME`; `more` holds fields of the spec."""
        spec: dict[str, Any] = {"target": {"kind": kind, "name": name}, "policy": policy, "checks": list(checks), **more}
        if config:
            pairs = [("ConfigMap/" + source).rsplit("/", 2)[-2:] for source in config]
            spec["config"] = [{"kind": kind, "name": source} for kind, source in pairs]
        whole = {"apiVersion": "deployguard.dev/v1alpha1", "kind": "Guard", "metadata": {"name": name}, "spec": spec}
        path = self.folder / f"{self._fresh('guard')}.yaml"
        path.write_text(json.dumps(whole))
        return path

    def start(self, *arguments: str | Path) -> Going:
        """Start the command and do not wait for it."""
        place = self.folder / self._fresh("command")
        first, *rest = map(str, arguments)
        words = [sys.executable, "-m", "deployguard", first, "--namespace", self.namespace, *rest]
        with place.with_suffix(".out").open("wb") as out, place.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self.env, cwd=self.folder)
        self.going.append(process)
        return Going(process, place)

    def cli(self, *arguments: str | Path) -> Done:
        """Run the command to its end."""
        return self.start(*arguments).end()

    def begin(self, guard: Path, *arguments: str | Path) -> Going:
        """Start `run`."""
        return self.start("run", "-f", guard, "--stay", "0s", "-o", "json", *arguments)

    def run(self, guard: Path, *arguments: str | Path) -> Done:
        """`run` to its end."""
        return self.begin(guard, *arguments).end()

    def close(self) -> None:
        """No command that was started here runs afterwards."""
        for process in self.going:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def _fresh(self, word: str) -> str:
        self.made += 1
        return f"{word}-{self.made}"
