"""A Deployment of the shop in a namespace of its own, and what the tests of its target do to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.model.target import Desired, TargetView
from deployguard.model.version import Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.marks import WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent
from deployguard.targets.kubernetes.workload import KubeTarget, workload_target
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Service, deployed
from tests.cluster.manifests import CONFIG_FILE, lines

WRITES = ("create", "replace", "patch", "merge", "delete")
SETTINGS = ConfigRef("ConfigMap", "web-config")


class Crash(BaseException):
    """The driver dies here. Not an `Exception`, so that nothing takes it for an answer of the world."""


class Watched:
    """An API server whose writes are counted. After `left` of them the caller dies; `nap` is what happens before a write of it."""

    def __init__(self, kube: Kube, left: int | None = None, nap: tuple[int, Callable[[], Any]] | None = None) -> None:
        self._kube = kube
        self._lock = threading.Lock()
        self.left = left
        self.nap = nap
        self.writes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._kube, name)
        if name not in WRITES:
            return real

        def counted(path: str, *arguments: Any, **more: Any) -> Any:
            if self.left is not None and len(self.writes) >= self.left:
                raise Crash
            if self.nap is not None and len(self.writes) == self.nap[0]:
                self.nap[1]()
            with self._lock:
                self.writes.append(f"{name} {paths.place(path).resource}/{paths.place(path).name}")
            return real(path, *arguments, **more)

        return counted


@dataclass
class Stage:
    """The shop as a guarded workload; `fence` and `by` belong to the rollout that the test plays."""

    kube: Kube
    api: Api
    service: Service
    config: tuple[ConfigRef, ...] = ()
    fence: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    open: list[KubeTarget] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.service.namespace

    def target(self, kube: Any = None) -> KubeTarget:
        """A driver that knows nothing yet."""
        ref = WorkloadRef(self.service.kind, self.namespace, "web")
        made = workload_target(kube or self.kube, ref, self.config, **self.options)
        self.open.append(made)
        return made

    def stable(self) -> Version:
        """What runs, kept."""
        target = self.target()
        live = target.live()
        return Version(target.contents().admit_template(live.template), target.contents().admit_config(live.contents))

    def candidate(self, stable: Version, env: dict[str, object] | None = None, image: str = "", config: str | None = None) -> Version:
        """Another version, kept."""
        target = self.target()
        contents, template = target.contents(), msgspec.json.decode(msgspec.json.encode(target.contents().template(stable.release)))
        container = template["spec"]["containers"][0]
        if env:
            kept = [one for one in container.get("env") or [] if one["name"] not in env]
            container["env"] = kept + [{"name": key, "value": str(value)} for key, value in env.items()]
        if image:
            container["image"] = image
        release = contents.admit_template(template) if env or image else stable.release
        if config is None:
            return Version(release, stable.config)
        return Version(release, contents.admit_config({SETTINGS: ConfigContent(data={CONFIG_FILE: config})}))

    def wish(self, stable: Version, candidate: Version | None = None, count: int = 0, **more: Any) -> Desired:
        """The next word of the rollout, under a fence of its own."""
        self.fence += 1
        lease = 60.0 if candidate is not None else 0.0
        known = {"keep": tuple(sorted({stable, candidate or stable})), "by": "web/r1", "lease": lease, "fence": self.fence}
        return Desired(**{**known, "stable": stable, "candidate": candidate, "count": count, **more})  # type: ignore[arg-type]

    def tell(self, desired: Desired, target: KubeTarget | None = None) -> KubeTarget:
        """A driver that tells it once, from what it sees."""
        target = target or self.target()
        target.shift(desired, target.observe().basis)
        return target

    def drive(self, desired: Desired, settled: Callable[[TargetView], Any], target: KubeTarget | None = None) -> TargetView:
        """A driver that looks and, as long as writes are left, tells it again; the view once nothing is left and it is as wanted."""
        target = target or self.target()

        def tick() -> TargetView | None:
            view = target.observe()
            if view.told != desired or view.pending:
                target.shift(desired, view.basis)
                return None
            return view if settled(view) else None

        return until(f"what was told: {desired}", tick)

    def see(self, what: str, is_so: Callable[[TargetView], Any]) -> TargetView:
        """The view in which something is so."""
        target = self.target()

        def look() -> TargetView | None:
            view = target.observe()
            return view if is_so(view) else None

        return until(what, look)

    def workload(self) -> dict[str, Any]:
        return self.api.get(self.service.path)

    def canaries(self) -> list[dict[str, Any]]:
        return [d for d in self.api.items(f"/apis/apps/v1/namespaces/{self.namespace}/deployments") if marks.CANARY in marks.labels(d)]

    def pods(self) -> dict[str, tuple[str, int]]:
        """The workload's own pods that are not on their way out: their uids and restarts by name."""
        return {
            p["metadata"]["name"]: (p["metadata"]["uid"], sum(c["restartCount"] for c in p["status"].get("containerStatuses", [])))
            for p in self.api.items(f"/api/v1/namespaces/{self.namespace}/pods")
            if marks.CANARY not in marks.labels(p) and not p["metadata"].get("deletionTimestamp")
        }

    def source(self) -> str:
        found = self.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{SETTINGS.name}")
        return str(found["data"][CONFIG_FILE])

    def edit(self, text: str) -> None:
        self.api.merge(f"/api/v1/namespaces/{self.namespace}/configmaps/{SETTINGS.name}", {"data": {CONFIG_FILE: text}})


def runs(version: Version, count: int) -> Callable[[TargetView], bool]:
    """Whether as many instances run a version, all of them ready, and no more."""

    def so(view: TargetView) -> bool:
        mine = view.running(version)
        return len(mine) == count and all(i.ready and i.loaded == i.assigned == version for i in mine)

    return so


@contextmanager
def staged(
    kube: Kube, api: Api, namespace: str, replicas: int = 2, config: dict[str, object] | None = None, **more: Any
) -> Iterator[Stage]:
    """A stage with pods that are ready."""
    options = more.pop("options", {})
    service = deployed(api, namespace, "web", replicas, config=config, **more)
    stage = Stage(kube, api, service, (SETTINGS,) if config is not None else (), options=options)
    try:
        yield stage
    finally:
        for target in stage.open:
            target.close()


def conf(**settings: object) -> str:
    """The text of the shop's config file."""
    return lines(settings)
