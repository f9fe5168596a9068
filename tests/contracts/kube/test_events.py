"""Events on the guarded workload: what `kubectl describe` shows of a rollout."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

import pytest

from deployguard.announce.events import ToEvents
from deployguard.errors import WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube, connect
from deployguard.kube.errors import NotFound
from deployguard.model.rollout import Entry
from tests.cluster import manifests
from tests.cluster.fixtures import Cluster

pytestmark = pytest.mark.cluster

STORY = [
    ("transition", "waiting", "for a freeze until Monday"),
    ("transition", "advancing", "stage 1/3: 1 of 4 instances"),
    ("transition", "analyzing", "stage 1/3 in place"),
    ("transition", "advancing", "stage 2/3: 2 of 4 instances"),
    ("transition", "holding", "(blind) no scrape answered"),
    ("request", "holding", "maria asks to abort: INC-912"),
    ("transition", "rolling_back", "errors 4.9 % — limit 5 %"),
    ("overdue", "rolling_back", "not complete within 2m"),
    ("transition", "rolled_back", "the relapse watch is over"),
]
REASONS = [
    "Normal RolloutWaiting",
    "Normal CanaryExposed",
    "Normal StageInPlace",
    "Normal StageAdvanced",
    "Warning Held",
    "Normal Requested",
    "Warning RollingBack",
    "Warning RollbackOverdue",
    "Warning RolledBack",
]


def entry(n: int, event: str = "transition", phase: str = "advancing", text: str = "stage 1/3: 1 of 4 instances") -> Entry:
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=n)
    return Entry("r1", n, at, "shop", event, phase, text, {"secret": "no"})


@pytest.fixture
def web(kube: Kube, namespace: str) -> dict[str, str]:
    """A Deployment without pods, as an owner reference names it."""
    made = kube.create(paths.workloads("Deployment", namespace), manifests.shop("Deployment", "web", replicas=0))
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": made["metadata"]["uid"], "controller": "false"}


def test_describe_tells_the_story(cluster: Cluster, kube: Kube, namespace: str, web: dict[str, str]) -> None:
    """Each entry is one event on the workload, in order, with a reason of its own; bad news are warnings."""
    sink = ToEvents(kube, namespace, web)
    for n, (event, phase, text) in enumerate(STORY, 1):
        sink.announce(entry(n, event, phase, text))
        sink.announce(entry(n, event, phase, text))
    about = {"fieldSelector": f"involvedObject.uid={web['uid']}"}
    found = sorted((e for e in kube.list(paths.events(namespace), about) if e["source"].get("component") == "deployguard"), key=when)
    assert [f"{each['type']} {each['reason']}" for each in found] == REASONS
    assert found[6]["message"] == "errors 4.9 % — limit 5 % (guard shop, r1/7)"
    said = cluster.kubectl("-n", namespace, "describe", "deployment", "web").stdout
    shown = [line.split()[1] for line in said.splitlines() if "deployguard" in line and line.split()[0] in ("Normal", "Warning")]
    assert shown == [each.split()[1] for each in REASONS]


def when(event: dict[str, str]) -> str:
    return event["lastTimestamp"]


def test_a_long_text_is_cut(kube: Kube, namespace: str, web: dict[str, str]) -> None:
    """A text longer than the server takes is cut at a character, not refused."""
    ToEvents(kube, namespace, web).announce(entry(1, text="ü" * 900))
    found = next(e for e in kube.list(paths.events(namespace)) if e["source"].get("component") == "deployguard")
    assert found["message"] == "ü" * 510 + "…"


def test_without_the_right_the_rollout_goes_on(
    cluster: Cluster, kube: Kube, namespace: str, web: dict[str, str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A driver that may not create events says so once and names the rule; what is only unreachable is tried again."""
    weak = connect(kubeconfig=str(cluster.kubeconfig), as_user="nobody", timeout=20.0)
    sink = ToEvents(weak, namespace, web)
    with caplog.at_level(logging.WARNING):
        sink.announce(entry(1))
        sink.announce(entry(2))
    assert caplog.text.count("could not create events") == 1
    assert 'resources: ["events"], verbs: ["create"]' in caplog.text
    with pytest.raises(NotFound) as caught:
        ToEvents(kube, "none-such", web).announce(entry(1))
    assert isinstance(caught.value, WorldError)
