"""Signals from a real cluster: metrics, logs and journeys through the API server, and what its troubles are not taken for."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from deployguard import clock
from deployguard.kube import paths
from deployguard.kube.client import Kube, connect
from deployguard.model.check import LogsCheck, ProbeCheck, ScrapeCheck
from deployguard.model.reading import Answer, Buckets, Counter, Counters, Missing, Run, Runs
from deployguard.model.target import CANDIDATE, Instance
from deployguard.model.version import Version
from deployguard.signals.logs import LogsSource
from deployguard.signals.podlogs import PodLogs
from deployguard.signals.probe import ProbePool, ProbeSource
from deployguard.signals.scrape import ScrapePool, ScrapeSource
from tests.cluster import manifests
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, Service
from tests.contracts.kube.kubeconfigs import kubeconfig, parts
from tests.contracts.pages import NOW, Servers
from tests.contracts.shop import Shop
from tests.contracts.test_scrape_native import NATIVE

pytestmark = pytest.mark.cluster

VERSION = Version(release="sha256:aa")
ERRORS = ScrapeCheck(name="errors", bad='http_requests_total{code=~"5.."}', total="http_requests_total")
PATIENT = 20.0


def crew(api: Api, service: Service, port: int | None = 8080) -> tuple[Instance, ...]:
    """The pods of a workload as the target shows them."""
    found = api.items(f"/api/v1/namespaces/{service.namespace}/pods?labelSelector=app={service.name}")
    return tuple(_instance(pod, port) for pod in sorted(found, key=lambda pod: str(pod["metadata"]["name"])))


def _instance(pod: dict[str, Any], port: int | None) -> Instance:
    name, running = pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["state"]["running"]
    address = f"kube://{pod['metadata']['namespace']}/{name}" + (f":{port}" if port else "")
    started = dt.datetime.fromisoformat(running["startedAt"])
    return Instance(name, f"{pod['metadata']['uid']}/0", VERSION, VERSION, True, started=started, address=address)


def visit(kube: Kube, one: Instance, count: int, path: str = "/") -> None:
    namespace = one.address.split("/")[2]
    for _ in range(count):
        kube.fetch(paths.pod_proxy(namespace, one.id, 8080, path), timeout=PATIENT)


def read(source: Any, *instances: Instance, arm: str = CANDIDATE, through: dt.datetime | None = None) -> Answer:
    answer: Answer = source.read(arm, instances, through, clock.now())
    return answer


class Relay:
    """Stands between us and the API server, and may fall silent."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._to = (parts.hostname or "", parts.port or 443)
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.host = self._to[0]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.thaw()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(self._to)
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self._open.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            sink.close()


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    server, _ = parts(cluster.kubeconfig)
    relay = Relay(server["server"])
    yield relay
    relay.close()


@pytest.fixture
def relayed(cluster: Cluster, relay: Relay, tmp_path: Path) -> Kube:
    """The API server, reached through the relay."""
    server, user = parts(cluster.kubeconfig)
    path = kubeconfig(tmp_path / "relayed", server | {"server": relay.url, "tls-server-name": relay.host}, user)
    return connect(kubeconfig=path, timeout=PATIENT)


@pytest.fixture
def nobody(cluster: Cluster) -> Kube:
    """The API server, asked by somebody without any right."""
    return connect(kubeconfig=str(cluster.kubeconfig), as_user="nobody", timeout=PATIENT)


@pytest.fixture
def stand_in(node: Cluster, api: Api, namespace: str) -> str:
    """A pod on the node's own network, in whose place servers of the test answer; its address without a port."""
    if node.rig is None:
        pytest.skip("the node of a cluster elsewhere is not this machine")
    pod = {"hostNetwork": True, "containers": [{"name": "pause", "image": "localhost/pause:1", "imagePullPolicy": "IfNotPresent"}]}
    path = f"/api/v1/namespaces/{namespace}/pods"
    api.create(path, {"metadata": {"name": "outside", "labels": {"app": "outside"}}, "spec": pod})
    until("the pod runs", lambda: api.get(f"{path}/outside")["status"].get("podIP"))
    return f"kube://{namespace}/outside"


# Metrics


def test_each_pod_s_own_page_is_read(api: Api, kube: Kube, deploy: Callable[..., Service]) -> None:
    """What each pod served is counted to the last request; a port of the check's own takes the place of the target's."""
    one, two = crew(api, deploy(replicas=2), None)
    pool = ScrapePool(PATIENT, kube)
    source = ScrapeSource(ERRORS.model_copy(update={"port": 8080}), pool)
    visit(kube, one, 3)
    visit(kube, two, 2)
    visit(kube, two, 2, "/nowhere")
    answer = read(source, one, two)
    latency = read(ScrapeSource(ScrapeCheck(name="a", histogram="http_request_duration_seconds", port=8080), pool), one, two)
    without = read(ScrapeSource(ERRORS, pool), one, two)
    pool.close()
    assert isinstance(answer, Counters)
    assert answer.by_instance == {one.uid: Counter(0, 3), two.uid: Counter(0, 4)}
    assert isinstance(latency, Buckets)
    assert {uid: sum(counts) for uid, counts in latency.by_instance.items()} == {one.uid: 3, two.uid: 4}
    assert isinstance(without, Missing)
    assert without.reason == "no_port"


def test_pages_that_cannot_be_reached(api: Api, kube: Kube, nobody: Kube, namespace: str, deploy: Callable[..., Service]) -> None:
    """A closed port is refused, a pod that is gone and a missing right are errors, the latter with the rule that is missing."""
    (one,) = crew(api, deploy())
    gone = Instance("gone", "u-gone", VERSION, VERSION, True, started=one.started, address=f"kube://{namespace}/gone:8080")
    pool = ScrapePool(PATIENT, kube)
    closed = read(ScrapeSource(ERRORS.model_copy(update={"port": 9}), pool), one)
    absent = read(ScrapeSource(ERRORS, pool), gone)
    weak = ScrapePool(PATIENT, nobody)
    forbidden = read(ScrapeSource(ERRORS, weak), one)
    pool.close()
    weak.close()
    assert isinstance(closed, Missing)
    assert (closed.reason, "the pod refused" in closed.detail) == ("refused", True), closed
    assert isinstance(absent, Missing)
    assert (absent.reason, "no such pod" in absent.detail) == ("error", True), absent
    assert isinstance(forbidden, Missing)
    assert (forbidden.reason, 'resources: ["pods/proxy"]' in forbidden.detail) == ("error", True), forbidden


def test_many_pages_at_once_each_asked_once_a_tick(stand_in: str, kube: Kube) -> None:
    """Two checks ask each of thirty pods once, a silent pod delays nobody else, and native histograms come as protobuf."""
    servers, pool = Servers("0.0.0.0"), ScrapePool(6.0, kube)
    silent = socket.create_server(("0.0.0.0", 0))

    def pod(one: Instance) -> Instance:
        return msgspec.structs.replace(one, address=f"{stand_in}:{one.address.rpartition(':')[2]}")

    crowd = [pod(servers.add(b'requests_total{code="500"} 1\nrequests_total{code="200"} 2\n')) for _ in range(30)]
    frozen = Instance("f", "frozen", VERSION, VERSION, True, started=NOW, address=f"{stand_in}:{silent.getsockname()[1]}")
    native = pod(servers.add((NATIVE / "page.txt").read_bytes(), (NATIVE / "page.pb").read_bytes(), "text/plain; version=0.0.4"))
    checks = [ScrapeCheck(name="a", bad=f'requests_total{{code="{code}"}}', total="requests_total") for code in (500, 200)]
    sources = [ScrapeSource(check, pool) for check in checks]
    latency = ScrapeSource(ScrapeCheck(name="h", histogram="plain_seconds"), pool)
    answers = [source.read(CANDIDATE, (*crowd, frozen), None, NOW) for source in sources]
    histogram = latency.read(CANDIDATE, (native,), None, NOW)
    pool.close()
    silent.close()
    servers.close()
    for answer, bad in zip(answers, (1, 2), strict=True):
        assert isinstance(answer, Counters)
        assert set(answer.by_instance.values()) == {Counter(bad, 3)}
        assert (len(answer.by_instance), answer.unread) == (30, ("frozen",))
    assert len(servers.accepted) == 30 + 2
    assert isinstance(histogram, Buckets)
    assert sum(histogram.by_instance[native.uid]) == 1100


def test_an_api_server_that_freezes_is_a_timeout(api: Api, relay: Relay, relayed: Kube, deploy: Callable[..., Service]) -> None:
    """Silence is a timeout, not a fault of the pods; the next poll reads on, and has lost nothing."""
    (one,) = crew(api, deploy())
    pool = ScrapePool(2.0, relayed)
    source = ScrapeSource(ERRORS, pool)
    until("a page is read", lambda: isinstance(read(source, one), Counters))
    relay.freeze()
    silent = read(source, one)
    assert isinstance(silent, Missing)
    assert silent.reason == "timeout"
    relay.thaw()
    until("pages are read again", lambda: isinstance(read(source, one), Counters))
    pool.close()


# Logs


def test_lines_of_pods_are_counted_once(api: Api, kube: Kube, nobody: Kube, deploy: Callable[..., Service]) -> None:
    """Every bad line of every pod counts once, however often the same second is read; without the right the rule is named."""
    service = deploy(replicas=2, env={"ERROR_RATE": 1})
    one, two = crew(api, service)
    check = LogsCheck(name="errors", bad="ERROR", container="shop")
    source = LogsSource(check, PodLogs(kube, service.namespace, check.container, timeout=PATIENT))
    before = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    visit(kube, one, 3)

    def bad() -> list[float]:
        answer = read(source, one, two, through=before)
        assert isinstance(answer, Counters), answer
        return [answer.by_instance[each.uid].bad for each in (one, two)]

    until("three lines", lambda: bad() == [3, 0])
    visit(kube, one, 1)
    visit(kube, two, 2)
    until("three more", lambda: bad() == [4, 2])
    assert bad() == [4, 2]
    weak = LogsSource(check, PodLogs(nobody, service.namespace, timeout=PATIENT))
    forbidden = read(weak, one, through=before)
    assert isinstance(forbidden, Missing)
    assert 'resources: ["pods/log"]' in forbidden.detail
    wrong = LogsSource(check, PodLogs(kube, service.namespace, "sidecar", timeout=PATIENT))
    answer = read(wrong, one, through=before)
    assert isinstance(answer, Missing)
    assert "container sidecar is not valid" in answer.detail
    for each in (source, weak, wrong):
        each.close()


# Journeys


@pytest.fixture
def outside(stand_in: str, api: Api, namespace: str) -> Iterator[tuple[Shop, str, str]]:
    """A service of the test's own that answers in the place of a pod; the pod's address, and its Service's."""
    shop = Shop("0.0.0.0")
    base = f"/api/v1/namespaces/{namespace}"
    api.create(f"{base}/services", manifests.service("outside", shop.port))
    until("the Service has it", lambda: api.ask("GET", f"{base}/endpoints/outside").body.get("subsets"))
    yield shop, f"{stand_in}:{shop.port}", f"kube-service://{namespace}/outside:http"
    shop.close()


def journey(*steps: dict[str, Any], timeout: str = "20s") -> ProbeCheck:
    return ProbeCheck.model_validate({"name": "shop", "steps": list(steps), "every": "100ms", "timeout": timeout})


def walked(source: ProbeSource, path: str, count: int = 1, through: dt.datetime | None = None) -> tuple[Run, ...]:
    """The walks on a path when there are so many."""

    def ask() -> tuple[Run, ...]:
        answer = source.read(path, (), through, clock.now())
        return answer.runs if isinstance(answer, Runs) and len(answer.runs) >= count else ()

    return until(f"{count} walks on {path}", ask)


@pytest.fixture
def probes(kube: Kube) -> Iterator[ProbePool]:
    pool = ProbePool(proxy=kube)
    yield pool
    pool.close()


def test_a_login_with_cookies_and_redirects(outside: tuple[Shop, str, str], probes: ProbePool) -> None:
    """Forms, cookies, redirects of every kind, and pages with links come through the API server's proxy as the service meant them."""
    shop, pod, service = outside
    steps = (
        {"get": "/page", "expect": {"contains": '<a href="/login">'}},
        {"get": "/account", "expect": {"status": 401}},
        {"post": "/login", "form": {"user": "ada"}, "expect": {"json": {"$.user": "ada"}}},
        {"get": "/absolute?x=1", "expect": {"json": {"$.user": "ada"}}},
        {"get": "/canonical", "expect": {"status": 302}},
    )
    source = ProbeSource(journey(*steps), probes)
    probes.paths({"candidate": pod, "all": service})
    for path in ("candidate", "all"):
        first = walked(source, path)[0]
        assert (first.ok, first.detail, first.step) == (True, "", "")
    asked = [path for path, _, _ in shop.requests]
    assert "/absolute?x=1" in asked
    assert all("proxy" not in path for path in asked)


def test_an_arm_is_asked_under_the_name_that_users_know(outside: tuple[Shop, str, str], probes: ProbePool) -> None:
    """An absolute URL goes to the arm with its own Host, and where users come, to where it points, also without any listener."""
    shop, pod, _ = outside
    source = ProbeSource(journey({"get": f"http://127.0.0.1:{shop.port}/home"}, {"get": "http://shop.invalid/page"}), probes)
    probes.paths({"candidate": pod})
    assert walked(source, "candidate")[0].ok
    assert "shop.invalid" in {headers["host"] for path, headers, _ in shop.requests if path == "/page"}
    users = walked(source, "all")[0]
    assert (users.ok, users.step) == (False, "2 GET shop.invalid/page")


def test_each_walk_stays_on_one_pod(api: Api, kube: Kube, probes: ProbePool, deploy: Callable[..., Service]) -> None:
    """With several pods of an arm walks take turns, and all steps of a walk are answered by the same pod."""
    one, two = crew(api, deploy(replicas=2))
    steps = [{"get": "/"}] * 3
    source = ProbeSource(journey(*steps), probes)
    probes.paths({"candidate": f"{one.address},{two.address}"})
    assert all(run.ok for run in walked(source, "candidate", 6))
    pool = ScrapePool(PATIENT, kube)
    probes.close()
    served = read(ScrapeSource(ERRORS, pool), one, two)
    pool.close()
    assert isinstance(served, Counters)
    first, second = (served.by_instance[each.uid].total for each in (one, two))
    # The last walk may have been ended in its middle; all others are whole, in turn.
    assert min(first, second) >= 9
    assert abs(first - second) <= 3
    assert {first % 3, second % 3} <= {0, first % 3 or second % 3}


def test_a_pod_that_does_not_answer_is_red_and_one_that_is_gone_is_not(
    api: Api, namespace: str, probes: ProbePool, deploy: Callable[..., Service]
) -> None:
    """A closed port is the service's fault. A pod that is no more, or a Service without any, says nothing of it."""
    (one,) = crew(api, deploy())
    source = ProbeSource(journey({"get": "/"}, timeout="5s"), probes)
    probes.paths({"stable": one.address, "candidate": one.address.replace(":8080", ":9"), "all": f"kube://{namespace}/gone:8080"})
    assert walked(source, "stable")[0].ok
    assert walked(source, "candidate")[0].detail == "expected 200 to 399, got 502"
    assert _missing(source, "all").reason == "no_instance"


def _missing(source: ProbeSource, path: str) -> Missing:
    def ask() -> Missing | None:
        answer = source.read(path, (), None, clock.now())
        assert not isinstance(answer, Runs) or answer.runs == (), answer
        return answer if isinstance(answer, Missing) and answer.reason != "prober" else None

    found = until(f"{path} is missing", ask)
    assert found is not None
    return found


def test_without_the_right_nothing_is_known(nobody: Kube, api: Api, deploy: Callable[..., Service]) -> None:
    """A missing right is not a red walk."""
    (one,) = crew(api, deploy())
    pool = ProbePool(proxy=nobody)
    source = ProbeSource(journey({"get": "/"}, timeout="2s"), pool)
    pool.paths({"stable": one.address})
    assert _missing(source, "stable").reason == "no_instance"
    pool.close()


def test_an_api_server_that_freezes_turns_nothing_red(api: Api, relay: Relay, relayed: Kube, deploy: Callable[..., Service]) -> None:
    """Walks through a silent API server are neither red nor green; when it answers again, they are green."""
    (one,) = crew(api, deploy())
    pool = ProbePool(proxy=relayed)
    source = ProbeSource(journey({"get": "/"}, timeout="4s"), pool)
    pool.paths({"stable": one.address})
    assert walked(source, "stable")[0].ok
    relay.freeze()
    frozen = clock.now()
    until(
        "the path is missing",
        lambda: isinstance(answer := source.read("stable", (), frozen, clock.now()), Missing) and answer.reason == "no_instance",
    )
    relay.thaw()
    thawed = walked(source, "stable", through=frozen)
    pool.close()
    assert [run.detail for run in thawed if not run.ok] == []


def test_credentials_of_a_journey_do_not_pass(api: Api, probes: ProbePool, deploy: Callable[..., Service]) -> None:
    """The API server would take them for its own: that is said, and nothing is walked red."""
    (one,) = crew(api, deploy())
    source = ProbeSource(journey({"get": "/", "headers": {"authorization": "Bearer x"}}), probes)
    probes.paths({"stable": one.address})
    answer = source.read("stable", (), None, clock.now())
    assert isinstance(answer, Missing)
    assert (answer.reason, "does not pass on" in answer.detail) == ("error", True)
