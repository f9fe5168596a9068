"""Looking at a Deployment and all that belongs to it: as few reads as can be, side by side."""

from __future__ import annotations

import concurrent.futures as cf
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from deployguard import clock
from deployguard.errors import WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import KubeError, NotFound
from deployguard.model.version import Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.content import Contents
from deployguard.targets.kubernetes.doom import statuses
from deployguard.targets.kubernetes.marks import Json, WorkloadRef
from deployguard.targets.kubernetes.references import ConfigRef, pinned
from deployguard.targets.kubernetes.settings import ConfigContent, config_digest
from deployguard.targets.kubernetes.template import config_of, digest

T = TypeVar("T")
THREADS = 6
MOST_IN_TROUBLE = 4
"""Pods of whom events are read in one look; the others are in the same trouble."""
EVENTS_EVERY = 1.0
"""Seconds for which the events of a pod are remembered."""
MOST_SHAPES = 64
"""Templates that are remembered in short."""
TAIL_LINES = 20
_NO_LOG = ("unable to retrieve container logs for ", "failed to try resolving symlinks in path ")
"""What a node answers, as if it were the log, when a container and its log are gone."""
TAIL_BYTES = 2048
LOG_PAUSE = 0.2
"""Seconds after which a log that has just gone is asked for once more."""


@dataclass(frozen=True, slots=True)
class Source:
    """A config source as it is now: the object, None when there is none, and the digest of its content."""

    ref: ConfigRef
    obj: Json | None
    digest: str


@dataclass(frozen=True, slots=True)
class Scene:
    """The objects that decide what is to be written: the workload, all canaries of it, and the config sources."""

    workload: Json
    canaries: tuple[Json, ...]
    sources: Mapping[ConfigRef, Source]

    @property
    def config(self) -> str:
        """The digest of what the sources hold now."""
        return config_digest({ref: source.digest for ref, source in self.sources.items()})


@dataclass(frozen=True, slots=True)
class Made:
    """A ReplicaSet, as far as it can never change: whose it is, and the template of its pods in short."""

    owner: str
    shape: marks.Shape


def shape_of(template: Mapping[str, Any], contents: Contents) -> marks.Shape:
    """A template in short. One that names copies is taken for what it was before it was pinned to them."""
    whole = msgspec.json.encode(template)
    if (seen := contents.shapes.get(whole)) is not None:
        return seen
    config, pins = config_of(template) or "", {}
    if config:
        try:
            pins = contents.pins(config)
        except KubeError:
            raise
        except WorldError:
            return marks.Shape(digest(template), config)  # kept no more: then it names none of them, or nobody can tell
    shape = marks.Shape(digest(pinned(template, {ConfigRef(ref.kind, copy): ref.name for ref, copy in pins.items()})), config)
    if len(contents.shapes) >= MOST_SHAPES:
        contents.shapes.clear()
    contents.shapes[whole] = shape
    return shape


class Eyes:
    """Reads for one workload. Safe for threads; what cannot change it reads once."""

    def __init__(self, kube: Kube, ref: WorkloadRef, config: tuple[ConfigRef, ...], contents: Contents) -> None:
        self._kube = kube
        self._ref = ref
        self._config = config
        self._contents = contents
        self._lock = threading.Lock()
        self._pool: cf.ThreadPoolExecutor | None = None
        self._made: dict[str, Made] = {}
        self._digests: dict[tuple[ConfigRef, str, str], str] = {}
        self._selector: str | None = None
        self._events: dict[str, tuple[float, list[Json]]] = {}
        self._tails: dict[str, tuple[str, ...]] = {}

    def scene(self) -> Scene:
        """What decides about writes, as it is now. Raises `WorldError`."""
        workload = self._start(self._workload)
        canaries = self._start(self._canaries)
        sources = [self._start(self._source, ref) for ref in self._config]
        return Scene(workload.result(), tuple(canaries.result()), {s.ref: s for s in (job.result() for job in sources)})

    def all(self) -> tuple[Scene, list[Json]]:
        """The scene and every pod that the workload or its canaries select."""
        if self._selector is None:
            scene = self.scene()
            self._selector = selector(scene.workload)
            return scene, self._pods(self._selector)
        known = self._selector
        pods = self._start(self._pods, known)
        scene = self.scene()
        self._selector = selector(scene.workload)
        return scene, pods.result() if self._selector == known else self._pods(self._selector)

    def made(self, pods: Iterable[Json]) -> dict[str, Made]:
        """What made each of these pods, by the uid of its ReplicaSet; without those that nobody can tell any more."""
        owners = {owner["uid"]: owner["name"] for owner in map(marks.owner, pods) if owner.get("kind") == "ReplicaSet"}
        jobs = {uid: self._start(self._replicaset, name, uid) for uid, name in owners.items() if uid not in self._made}
        for uid, job in jobs.items():
            found = job.result()
            if found is not None:
                self._made[uid] = found
        self._made = {uid: made for uid, made in self._made.items() if uid in owners}
        return dict(self._made)

    def events(self, pods: Iterable[Json]) -> dict[str, list[Json]]:
        """The events of pods in trouble, by uid: a few pods, and not at every look."""
        now, found = clock.monotonic(), {}
        jobs: dict[str, cf.Future[list[Json]]] = {}
        for pod in list(pods)[:MOST_IN_TROUBLE]:
            uid = marks.uid(pod)
            read, known = self._events.get(uid, (now - EVENTS_EVERY, []))
            if now - read >= EVENTS_EVERY:
                jobs[uid] = self._start(self._events_of, uid)
            else:
                found[uid] = known
        for uid, job in jobs.items():
            try:
                found[uid] = job.result()
            except KubeError:
                found[uid] = []  # without the right to read events a look is poorer, not impossible
            self._events[uid] = (now, found[uid])
        for uid in [uid for uid, (read, _events) in self._events.items() if now - read > 60]:
            del self._events[uid]
        return found

    def tails(self, pods: Iterable[Json]) -> dict[str, tuple[str, ...]]:
        """The last lines that a container of each pod logged before it last ended, by the pod's uid; read once for every end."""
        jobs, found = {}, {}
        for pod in pods:
            ended = _ended(pod)
            if ended is None:
                continue
            container, number, previous = ended
            key = f"{marks.uid(pod)}/{container}/{number}"
            if key in self._tails:
                found[marks.uid(pod)] = self._tails[key]
            else:
                jobs[marks.uid(pod), key] = self._start(self._last_words, marks.name(pod), container, number, previous)
        for (uid, key), job in jobs.items():
            found[uid] = self._tails[key] = job.result()
        if len(self._tails) > 1000:
            self._tails.clear()
        return found

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = None

    def _start(self, function: Callable[..., T], *arguments: Any) -> cf.Future[T]:
        with self._lock:
            if self._pool is None:
                self._pool = cf.ThreadPoolExecutor(THREADS, thread_name_prefix="look")
            return self._pool.submit(function, *arguments)

    def _workload(self) -> Json:
        return self._kube.get(paths.workload(self._ref.kind, self._ref.namespace, self._ref.name))

    def _canaries(self) -> list[Json]:
        if self._ref.kind != "Deployment":
            return []  # candidates of other kinds have no workload of their own
        wanted = {"labelSelector": f"{marks.CANARY}={marks.label_value(self._ref.name)}"}
        return self._kube.list(paths.workloads("Deployment", self._ref.namespace), wanted)

    def _pods(self, selector: str) -> list[Json]:
        return self._kube.list(paths.pods(self._ref.namespace), {"labelSelector": selector})

    def _source(self, ref: ConfigRef) -> Source:
        try:
            found = self._kube.get(paths.content(ref.kind, self._ref.namespace, ref.name))
        except NotFound:
            return Source(ref, None, "")
        key = (ref, marks.uid(found), found["metadata"]["resourceVersion"])
        if key not in self._digests:
            self._digests = {k: v for k, v in self._digests.items() if k[0] != ref}
            self._digests[key] = self._contents.digest_of(ref, ConfigContent.of({"kind": ref.kind, **found}))
        return Source(ref, found, self._digests[key])

    def _replicaset(self, name: str, uid: str) -> Made | None:
        try:
            found = self._kube.get(paths.replicaset(self._ref.namespace, name))
        except NotFound:
            return None
        if marks.uid(found) != uid:
            return None
        return Made(marks.owner(found).get("uid", ""), shape_of(found["spec"]["template"], self._contents))

    def _events_of(self, uid: str) -> list[Json]:
        return self._kube.list(paths.events(self._ref.namespace), {"fieldSelector": f"involvedObject.uid={uid}"})

    def _last_words(self, pod: str, container: str, ends: int, previous: bool) -> tuple[str, ...]:
        """What a container logged before it ended, for the time that `ends` says."""
        said = self._words(pod, container, ends, previous)
        if said is None:
            clock.sleep(LOG_PAUSE)
            said = self._words(pod, container, ends, previous)
        return said or ()

    def _words(self, pod: str, container: str, ends: int, previous: bool) -> tuple[str, ...] | None:
        """The same, or None where the node does not know for the moment which log that is.

        A node starts a container again at once the first time: if it has done so since the pod was read, its log is the new one's. When
        the new one ends too, the old one's log goes, and what the new one said stands for both.
        """
        now = None if previous else self._log(pod, container, False)
        if not previous and ends > 1:
            return now
        before = self._log(pod, container, True)
        if before is None:
            return self._log(pod, container, False) if previous else now
        return before if previous else before or now

    def _log(self, pod: str, container: str, previous: bool) -> tuple[str, ...] | None:
        """The last lines of a container's log; none where there is none to be had, None where it has just gone."""
        wanted = {"container": container, "tailLines": str(TAIL_LINES), "previous": str(previous).lower()}
        try:
            found = self._kube.fetch(paths.pod_log(self._ref.namespace, pod), wanted, limit=64 * TAIL_BYTES)
        except KubeError:
            return ()
        if found.status >= 400:
            return ()
        text = found.body[-TAIL_BYTES:].decode("utf-8", "replace")
        return None if text.startswith(_NO_LOG) else tuple(line for line in text.splitlines() if line.strip())[-TAIL_LINES:]


def selector(workload: Mapping[str, Any]) -> str:
    """A workload's selector as a query."""
    wanted = workload["spec"]["selector"]
    parts = [f"{key}={value}" for key, value in (wanted.get("matchLabels") or {}).items()]
    for one in wanted.get("matchExpressions") or []:
        key, values = one["key"], ",".join(one.get("values") or [])
        match one["operator"]:
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case _:
                parts.append(f"!{key}")
    return ",".join(sorted(parts))


@dataclass(frozen=True, slots=True)
class Ground:
    """What tells the version of a pod from its template: the config digest of those that carry none, and a template of somebody else."""

    base: str
    foreign: marks.Foreign | None = None

    def version(self, shape: marks.Shape) -> Version:
        """The version that pods of a template run."""
        if self.foreign is not None and shape == self.foreign.shape:
            return Version(shape.release, self.foreign.config)
        return effective(shape, self.base)


def effective(shape: marks.Shape, base: str) -> Version:
    """The version that pods of a template run; `base` is the config digest of those whose template carries none."""
    return Version(shape.release, shape.config or base)


def _ended(pod: Json) -> tuple[str, int, bool] | None:
    """The container of a pod that ended last: its name, its starts, and whether another one has started since."""
    ends = []
    for one in statuses(pod):
        now, before = (one.get("state") or {}).get("terminated"), (one.get("lastState") or {}).get("terminated")
        last = now or before
        if last is not None and (last.get("exitCode") or before is not None):
            ends.append((last.get("finishedAt") or "", one.get("name", ""), int(one.get("restartCount") or 0), now is None))
    if not ends:
        return None
    _at, name, starts, previous = max(ends)
    return name, starts + (not previous), previous
