"""A Deployment, StatefulSet or DaemonSet as the guarded workload.

Signals and files are imported where they are needed: `status` looks at a workload too, and needs neither.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployguard import clock
from deployguard.errors import RefusedError, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import Forbidden
from deployguard.model.document import GENERATIONS
from deployguard.model.reading import Counters
from deployguard.model.target import STABLE, TargetView
from deployguard.model.version import NOTHING, Version
from deployguard.ports import Sink, Source, Target
from deployguard.targets.kubernetes.marks import WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.workload import Live, workload_target
from deployguard.wiring.cluster_listeners import ListeningTarget
from deployguard.wiring.workload import Candidate, Change

if TYPE_CHECKING:
    from deployguard.model.check import LogsCheck
    from deployguard.model.document import Document
    from deployguard.model.policy import Policy
    from deployguard.signals.logs import Logs
    from deployguard.signals.probe import ProbePool

REAPER_LABEL = "deployguard.dev/reaper"


@dataclass(frozen=True, slots=True)
class Guarded:
    """What a guard says of its workload."""

    ref: WorkloadRef
    config: tuple[ConfigRef, ...] = ()
    port: int | str | None = None
    service: str | None = None
    capacity: str = "surge"
    pool: str | None = None

    @classmethod
    def read(cls, place: dict[str, Any]) -> Guarded:
        """What `written` wrote."""
        return cls(
            ref=WorkloadRef(place["kind"], place["namespace"], place["name"]),
            config=tuple(ConfigRef(one["kind"], one["name"]) for one in place.get("config", ())),
            port=place.get("port"),
            service=place.get("service"),
            capacity=place.get("capacity", "surge"),
            pool=place.get("pool"),
        )

    def written(self) -> dict[str, Any]:
        """The same as JSON, for a saved rollout."""
        return {
            "kind": self.ref.kind,
            "namespace": self.ref.namespace,
            "name": self.ref.name,
            "config": [{"kind": one.kind, "name": one.name} for one in self.config],
            "port": self.port,
            "service": self.service,
            "capacity": self.capacity,
            "pool": self.pool,
        }


class ClusterWorkload:
    """A workload of a cluster, and everything that is asked of it through one connection."""

    def __init__(self, kube: Kube, guarded: Guarded) -> None:
        self.kube = kube
        self.guarded = guarded
        self.name = f"{guarded.ref.kind}/{guarded.ref.name}"
        self.word = str(guarded.ref)
        self.followed = workload_target(kube, guarded.ref, guarded.config, port=guarded.port, capacity=guarded.capacity, pool=guarded.pool)
        self.target: Target = ListeningTarget(kube, self.followed, guarded.service)

    def observe(self) -> TargetView:
        """What runs where now."""
        return self.target.observe()

    @functools.cached_property
    def owner(self) -> dict[str, Any]:
        """The reference by which an object belongs to the workload, without being managed by it. Raises `KubeError`."""
        ref = self.guarded.ref
        found = self.kube.get(paths.workload(ref.kind, ref.namespace, ref.name))
        return {"apiVersion": "apps/v1", "kind": ref.kind, "name": ref.name, "uid": found["metadata"]["uid"]}

    @functools.cached_property
    def live(self) -> Live:
        """What the workload is at the first time that this is asked."""
        return self.followed.live()

    def begun(self, view: TargetView, stable: Version | None) -> Version:
        """The stable version; its template and its configuration are kept in the cluster before anything is exposed."""
        if stable is None:
            raise WorldError(f"could not begin a rollout on {self.word}: it shows no version that one could go back to")
        if view.wanted == 0:
            raise WorldError(
                f"could not begin a rollout on {self.word}: it is scaled to 0, so there is nothing to compare a candidate with",
                hint="scale it up first; a workload that serves nobody needs no canary",
            )
        contents = self.followed.contents()
        live = self.live
        if stable.release == live.version.release:
            contents.admit_template(live.template)
        if stable.config == live.version.config and stable.config != NOTHING:
            contents.admit_config(live.contents)
        contents.template(stable.release)
        contents.config(stable.config)
        return stable

    def names(self, view: TargetView) -> dict[str, str]:
        """What people call the version that was found running: its images, and its configuration's sources."""
        del view
        from deployguard.wiring.cluster_change import config_name, short_image

        live = self.live
        return {live.version.release: short_image(live.template)} | config_name(live.contents, live.version.config)

    def candidate(self, change: Change, stable: Version, document: Document, *, differ: bool = False) -> Candidate:
        """The candidate, its template and its configuration kept in the cluster."""
        from deployguard.wiring.cluster_change import made

        return made(self, change, stable, document, differ=differ)

    def place(self) -> dict[str, Any]:
        """Where the workload lives, and what it reads."""
        return self.guarded.written()

    def probes(self) -> ProbePool:
        """What walks journeys, to pods and Services through the API server where they are not reached straight."""
        from deployguard.signals.probe import ProbePool

        return ProbePool(proxy=self.kube)

    def sources(self, policy: Policy, probes: ProbePool) -> dict[str, Source]:
        """The pods' own pages, straight or through the API server; a Prometheus; the pods' logs; the prober's walks."""
        from deployguard.signals.scrape import ScrapePool
        from deployguard.wiring.sources import Ways, page_timeout, sources_of

        ways = Ways(
            pool=ScrapePool(timeout=page_timeout(policy), proxy=self.kube),
            probes=probes,
            logs=self._logs,
            namespace=self.guarded.ref.namespace,
        )
        return sources_of(policy, ways)

    def _logs(self, check: LogsCheck) -> Logs:
        from deployguard.signals.podlogs import PodLogs

        return PodLogs(self.kube, self.guarded.ref.namespace, check.container)

    def sinks(self) -> Sequence[Sink]:
        """Events on the workload: `kubectl describe` tells the story."""
        from deployguard.announce.events import ToEvents

        return (ToEvents(self.kube, self.guarded.ref.namespace, self.owner),)

    def traffic(self, policy: Policy, seconds: float) -> float | None:
        """Requests a second, counted on the pods' own pages by the first check that counts; None when no check does."""
        from deployguard.signals.scrape import ScrapePool, ScrapeSource

        check = next((c for c in policy.checks if c.source == "scrape" and c.kind == "counts"), None)
        if check is None or check.source != "scrape":
            return None
        pool = ScrapePool(timeout=2.0, proxy=self.kube)
        try:
            source, view = ScrapeSource(check, pool), self.observe()
            ready = tuple(one for one in view.instances if one.ready)
            first, began = source.read(STABLE, ready, None, clock.now()), clock.monotonic()
            clock.sleep(seconds)
            last, ended = source.read(STABLE, ready, None, clock.now()), clock.monotonic()
        finally:
            pool.close()
        if not isinstance(first, Counters) or not isinstance(last, Counters):
            return None
        before = {uid: counter.total for uid, counter in first.by_instance.items()}
        grown = sum(counter.total - before[uid] for uid, counter in last.by_instance.items() if uid in before)
        return max(grown, 0.0) / (ended - began)

    def remarks(self, policy: Policy, view: TargetView) -> list[dict[str, str]]:
        """What the pods' pages say of the checks, and what cannot be guarded, or costs more than one would think."""
        from deployguard.wiring.remarks import remarks

        found = remarks(policy, view.instances, clock.now(), proxy=self.kube, namespace=self.guarded.ref.namespace)
        notes = [*self.live.warnings, *self._reaper()]
        return found + [{"check": "", "text": text} for text in notes]

    def _reaper(self) -> list[str]:
        missing = self._without_reaper()
        return [missing] if missing else []

    def _without_reaper(self) -> str:
        """Why nobody takes a canary back that its guard has left behind; empty when somebody does."""
        try:
            found = self.kube.list(paths.grouped("batch/v1", self.guarded.ref.namespace, "cronjobs"), {"labelSelector": REAPER_LABEL})
        except Forbidden:
            return "whether a reaper runs cannot be seen: listing CronJobs is forbidden to this account"
        running = [one for one in found if not one.get("spec", {}).get("suspend")]
        what = f"no reaper runs in {self.guarded.ref.namespace}: a canary whose job is killed stays until the next command"
        return "" if running else f"{what}; `deployguard install --ci --reaper` prints one"

    def collect(self, document: Document) -> None:
        """Copies of versions that the document no longer names are gone, and at once those of a candidate that FAIL has condemned."""
        rollout = document.rollout
        keep = [known.version for known in document.stable[:GENERATIONS]]
        if rollout is None:
            return
        condemned = rollout.latched is not None and rollout.candidate not in keep
        self.followed.contents().collect(
            [*keep, rollout.stable, *([] if condemned else [rollout.candidate])], [rollout.candidate] if condemned else []
        )

    def must_have_reaper(self) -> None:
        """Raise `RefusedError` when nobody would take a canary back that its guard has left behind."""
        if missing := self._without_reaper():
            raise RefusedError(missing, hint="apply what `deployguard install --ci --reaper` prints, or leave out `--require-reaper`")

    def close(self) -> None:
        """The connections are closed."""
        self.followed.close()
        self.kube.close()
