"""Fixtures for the tests marked `cluster`. Where no cluster is up they are skipped, and the reason is said once, loudly."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import build, manifests, tools
from tests.cluster.api import Api, fresh_namespace, until
from tests.cluster.load import Load
from tests.cluster.places import OLDEST, ClusterError, Place
from tests.cluster.rig import Rig, main_version
from tests.cluster.world import ClusterWorld

if TYPE_CHECKING:
    from deployguard.kube.client import Kube

NONE = "no cluster: run `make cluster`"
PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}


@dataclass(frozen=True)
class Cluster:
    """The cluster of this test run. `rig` is None for one that is not ours."""

    kubeconfig: Path
    version: str
    has_node: bool
    rig: Rig | None

    def kubectl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl against it."""
        known = build.binary(main_version(), "kubectl")
        words = [str(known) if known.exists() else "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(words, capture_output=True, text=True, check=check, timeout=120)


@dataclass(frozen=True)
class Service:
    """A workload that a test deployed, and the address of the Service before it."""

    kind: str
    name: str
    namespace: str
    address: str
    path: str


@cache
def at_hand() -> Cluster | str:
    """The cluster that is up, or why there is none."""
    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() in ("true", "1"):
        named = os.environ.get("DEPLOYGUARD_KUBECONFIG") or os.environ.get("KUBECONFIG") or "~/.kube/config"
        return _described(Path(named).expanduser(), None)
    try:
        rig = Rig(Place(OLDEST if os.environ.get("DEPLOYGUARD_CLUSTER_OLD") else main_version()))
    except ClusterError as error:
        return str(error)
    return _described(rig.place.kubeconfig, rig) if rig.healthy() else NONE


def _described(kubeconfig: Path, rig: Rig | None) -> Cluster | str:
    import urllib3

    try:
        api = Api(kubeconfig)
        version, nodes = api.get("/version")["gitVersion"].lstrip("v"), api.items("/api/v1/nodes")
    except (urllib3.exceptions.HTTPError, OSError, AssertionError) as error:
        return f"no cluster: the one of {kubeconfig} does not answer ({error})"
    return Cluster(kubeconfig, version, bool(nodes) if rig is None else rig.has_node, rig)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a cluster where there is none; DEPLOYGUARD_REQUIRE_CLUSTER makes that a failure."""
    if item.get_closest_marker("cluster") and isinstance(why_not := at_hand(), str):
        if os.environ.get("DEPLOYGUARD_REQUIRE_CLUSTER"):
            pytest.fail(f"{why_not} (DEPLOYGUARD_REQUIRE_CLUSTER is set)", pytrace=False)
        pytest.skip(why_not)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say once what was not tested."""
    skipped = [report for report in terminalreporter.getreports("skipped") if "no cluster: " in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} TESTS ON A REAL CLUSTER WERE SKIPPED: {NONE}", yellow=True, bold=True)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that is up."""
    found = at_hand()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Api:
    """The API server, asked without deployguard's client."""
    return Api(cluster.kubeconfig)


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    """The API server through deployguard's client."""
    from deployguard.kube.client import connect

    return connect(kubeconfig=str(cluster.kubeconfig), timeout=20.0)


@pytest.fixture
def node(cluster: Cluster) -> Cluster:
    """The cluster, which has a node where containers really run."""
    if not cluster.has_node:
        why_not = f"the cluster {cluster.version} has no node"
        if os.environ.get("DEPLOYGUARD_REQUIRE_CLUSTER") and not os.environ.get("DEPLOYGUARD_CLUSTER_OLD"):
            pytest.fail(f"{why_not}: {cluster.rig.known.get('why_no_node') if cluster.rig else 'look at `kubectl get nodes`'}")
        pytest.skip(why_not)
    return cluster


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own, ready for pods; it goes afterwards, unwaited."""
    with fresh_namespace(api) as name:
        yield name


@pytest.fixture(scope="session")
def helm(cluster: Cluster) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Helm on the cluster: `helm("upgrade", ...)`. Skipped where it was not fetched."""
    program = tools.path("helm")
    if not program.is_file():
        pytest.skip("no Helm: run `python -m tests.cluster tools`")
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    return lambda *words, check=True: subprocess.run(
        [program, *words], env=environment, capture_output=True, text=True, check=check, timeout=120
    )


Deploy = Callable[..., Service]


@pytest.fixture
def deploy(node: Cluster, api: Api, namespace: str) -> Deploy:
    """Deploy the shop (see `deployed` for the arguments) and wait until all its pods are Ready."""
    return lambda name="web", replicas=1, **more: deployed(api, namespace, name, replicas, **more)


def deployed(
    api: Api,
    namespace: str,
    name: str,
    replicas: int = 1,
    *,
    kind: str = "Deployment",
    config: Mapping[str, object] | None = None,
    wait: bool = True,
    **more: Any,
) -> Service:
    """The shop runs as a workload with a Service before it. `config` becomes the ConfigMap NAME-config; more: see `manifests.shop`."""
    base, core = f"/apis/apps/v1/namespaces/{namespace}/{PLURALS[kind]}", f"/api/v1/namespaces/{namespace}"
    mounted = ""
    if config is not None:
        mounted = f"{name}-config"
        api.create(f"{core}/configmaps", manifests.configmap(mounted, {manifests.CONFIG_FILE: manifests.lines(config)}))
    service = api.create(f"{core}/services", manifests.service(name))
    api.create(base, manifests.shop(kind, name, replicas=replicas, config=mounted, **more))
    made = Service(kind, name, namespace, service["spec"]["clusterIP"], f"{base}/{name}")
    if wait:
        until(f"{kind} {name} is ready", lambda: ready(api, made))
    return made


def ready(api: Api, service: Service) -> bool:
    """All pods that are wanted are of the newest template and Ready, and no others are left."""
    found = api.get(service.path)
    status = found["status"]
    if status.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return False
    if service.kind == "DaemonSet":
        names = ["currentNumberScheduled", "updatedNumberScheduled", "numberAvailable"]
        return {status.get(name, 0) for name in names} == {status.get("desiredNumberScheduled", -1)}
    names = ["replicas", "readyReplicas", "availableReplicas", "updatedReplicas"]
    return {status.get(name, 0) for name in names} == {found["spec"]["replicas"]}


@pytest.fixture
def command(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[ClusterWorld]:
    """deployguard's own command, in the test's namespace."""
    made = ClusterWorld(tmp_path.resolve(), cluster.kubeconfig, namespace)
    yield made
    made.close()


@pytest.fixture
def load(node: Cluster) -> Iterator[Callable[..., Load]]:
    """Send users to a Service once it can be reached: `load(service, 50)`; they come until the test ends or `stop`."""
    if node.rig is None:
        pytest.skip("the addresses of Services of a cluster elsewhere are not reached from here")
    with ExitStack() as stack:

        def begin(service: Service, rate: float = 20.0, **more: Any) -> Load:
            until("the node knows the Service", lambda: reachable(service.address, more.get("port", 80)))
            return stack.enter_context(Load(service.address, rate, **more))

        yield begin


def reachable(address: str, port: int) -> bool:
    """Somebody listens there. kube-proxy carries a new Service a moment after its first pod is Ready."""
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True
