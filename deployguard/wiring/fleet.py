"""A local fleet as the guarded workload."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployguard import clock
from deployguard.errors import UserError, WorldError
from deployguard.local.client import FleetClient
from deployguard.model.target import TargetView
from deployguard.model.version import NOTHING, Version
from deployguard.ports import Sink, Source, Target
from deployguard.signals.balancer import BalancerSource
from deployguard.signals.probe import ProbePool
from deployguard.signals.scrape import ScrapePool
from deployguard.targets.local import LocalTarget
from deployguard.wiring.sources import Ways, page_timeout, sources_of
from deployguard.wiring.workload import Candidate, Change, refuse_cluster_options

if TYPE_CHECKING:
    from deployguard.model.check import LogsCheck
    from deployguard.model.document import Document
    from deployguard.model.policy import Policy
    from deployguard.signals.logs import Logs


def fleet_directory(state: Path, name: str) -> Path:
    """Where the fleet `name` lives below a state directory."""
    return state / "fleets" / name


class FleetWorkload:
    """A fleet of this machine. Nothing is asked before the first look."""

    def __init__(self, state: Path, name: str) -> None:
        self.client = FleetClient(fleet_directory(state, name))
        self.name = name
        self.word = f"the fleet {name}"
        self.target: Target = LocalTarget(self.client.layout.root)

    def observe(self) -> TargetView:
        """What runs where now."""
        return self.client.observe()

    def begun(self, view: TargetView, stable: Version | None) -> Version:
        """The stable version: the fleet keeps its content by itself."""
        del view
        if stable is None:
            raise WorldError(
                f"could not begin a rollout on {self.word}: no version is running that one could go back to",
                hint="start the fleet with a first release: `deployguard local up -f fleet.yaml`",
            )
        return stable

    def names(self, view: TargetView) -> dict[str, str]:
        """What people call the version that the fleet was first started with: the last parts of the paths in its file."""
        first = view.adopted
        if first is None:
            return {}
        try:
            spec = json.loads(self.client.layout.fleet.read_bytes())["spec"]
        except (OSError, ValueError, KeyError):
            return {}
        named = {first.release: spec.get("release"), first.config: spec.get("config")}
        return {digest: Path(path).name for digest, path in named.items() if path and digest != NOTHING}

    def candidate(self, change: Change, stable: Version, document: Document, *, differ: bool = False) -> Candidate:
        """The candidate, its release and configuration both lying in the fleet's own store."""
        del document
        refuse_cluster_options(change, self.word)
        if len(change.configs) > 1:
            raise UserError("a fleet reads one configuration", hint="give `--config` once: a file or a directory")
        config = Path(change.configs[0]) if change.configs else None
        release = change.release
        version = Version(
            self.client.admit("release", release) if release is not None else stable.release,
            self.client.admit("config", config) if config is not None else stable.config,
        )
        names: dict[str, str] = {}
        if release is not None:
            names[version.release] = change.name or release.resolve().name
        if config is not None:
            names[version.config] = (change.name if change.name and release is None else None) or config.resolve().name
        diff = self._diff(stable, release, config) if differ else ()
        return Candidate(version, names, diff)

    def _diff(self, stable: Version, release: Path | None, config: Path | None) -> tuple[str, ...]:
        from deployguard.report.diff import directory_diff

        lines: list[str] = []
        if release is not None:
            lines += directory_diff(self._content("release", stable.release), release)
        if config is not None:
            lines += directory_diff(self._content("config", stable.config), config)
        return tuple(lines)

    def _content(self, part: str, digest: str) -> Path | None:
        try:
            return self.client.content("release" if part == "release" else "config", digest)
        except WorldError:
            return None

    def place(self) -> dict[str, Any]:
        """Empty: a fleet is of one machine, and found by its name."""
        return {}

    def probes(self) -> ProbePool:
        """What walks journeys to the fleet's listeners."""
        return ProbePool()

    def sources(self, policy: Policy, probes: ProbePool) -> dict[str, Source]:
        """The instances' own pages, the balancer's counts, the prober's walks."""
        ways = Ways(
            pool=ScrapePool(timeout=page_timeout(policy)),
            probes=probes,
            logs=self._logs,
            balancer=lambda check: BalancerSource(check, self.client),
        )
        return sources_of(policy, ways)

    def _logs(self, check: LogsCheck) -> Logs:
        del check  # a process has one log
        from deployguard.signals.logs import FileLogs

        return FileLogs(lambda one: self.client.layout.log(one.id))

    def sinks(self) -> Sequence[Sink]:
        """Nobody but those of the guard."""
        return ()

    def traffic(self, policy: Policy, seconds: float) -> float | None:
        """Requests a second, counted by the balancer; None when it has never counted any."""
        del policy
        before, began = self.observe().served, clock.monotonic()
        clock.sleep(seconds)
        after, ended = self.observe().served, clock.monotonic()
        if not after:
            return None
        return (sum(s.requests for s in after.values()) - sum(s.requests for s in before.values())) / (ended - began)

    def remarks(self, policy: Policy, view: TargetView) -> list[dict[str, str]]:
        """What the metrics pages of the instances say of the checks."""
        from deployguard.wiring.remarks import remarks

        return remarks(policy, view.instances, clock.now())

    def collect(self, document: Document) -> None:
        """The supervisor collects by itself what it was not told to keep."""

    def must_have_reaper(self) -> None:
        """The supervisor takes candidates back by itself."""

    def close(self) -> None:
        """Every call made a connection of its own: nothing is left."""
