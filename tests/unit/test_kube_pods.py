"""What a pod is to the engine. Most pods here are recorded: a real kubelet was asked for each kind of doom (`data/pods.jsonl`)."""

from __future__ import annotations

import copy
import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployguard.engine.health import doom
from deployguard.model.target import Exit, Instance
from deployguard.model.version import Version
from deployguard.targets.kubernetes.pods import UNKNOWN, address_of, instance, leaving, port_of, unborn

NEW = Version("sha256:new")
NOW = dt.datetime(2026, 11, 21, 21, 0, tzinfo=dt.UTC)
WARMUP = dt.timedelta(seconds=30)
RECORDED = [json.loads(line) for line in (Path(__file__).parent / "data" / "pods.jsonl").read_text().splitlines()]


def recorded(case: str, nth: int = 0) -> dict[str, Any]:
    """A deep copy of the nth recording of a case."""
    return copy.deepcopy([one for one in RECORDED if one["case"] == case][nth])


def seen(found: dict[str, Any], **more: Any) -> Instance:
    return instance(found["pod"], NEW, **({"events": found["events"], "address": "", "seen_ready": False, "now": NOW} | more))


def test_a_pod_that_serves_is_an_instance_with_its_version() -> None:
    """It is ready since the moment its condition says, and started when its container did; a restart changes its uid, not its id."""
    found = recorded("good")
    one = seen(found, address="http://10.0.0.1:8080")
    meta, status = found["pod"]["metadata"], found["pod"]["status"]
    started = status["containerStatuses"][0]["state"]["running"]["startedAt"]
    assert (one.id, one.uid) == (meta["name"], f"{meta['uid']}/0")
    assert (one.assigned, one.loaded, one.ready, one.exits, one.exit) == (NEW, NEW, True, 0, None)
    assert one.started == dt.datetime.fromisoformat(started)
    assert one.ready_since is not None
    assert one.ready_since >= one.started
    assert (one.refused, one.waiting, one.address) == ("", "", "http://10.0.0.1:8080")
    status["containerStatuses"][0]["restartCount"] = 2
    assert seen(found).uid == f"{meta['uid']}/2"


def test_a_pod_of_which_nobody_knows_the_version_runs_no_version() -> None:
    """It is assigned a version that equals no other, and has loaded none."""
    one = instance(recorded("good")["pod"], None, address="", seen_ready=False, now=NOW)
    assert (one.assigned, one.loaded, one.ready) == (UNKNOWN, None, True)


@pytest.mark.parametrize(
    ("case", "nth", "words"),
    [
        ("image-never", 0, "its image is not on the node"),
        ("image-invalid", 0, "must be lowercase"),
        ("command-not-found", 0, 'exec: "/nothing": stat /nothing: no such file or directory'),
        ("command-not-found", 1, 'exec: "/nothing": stat /nothing: no such file or directory'),
        ("env-key-missing", 0, "couldn't find key nope in ConfigMap pods-rec/settings"),
        ("env-from-missing", 0, 'secret "nothing" not found'),
        ("volume-missing", 0, 'configmap "nothing" not found'),
        ("volume-key-missing", 0, "non-existent config key: nope"),
        ("run-as-non-root", 0, "image will run as root"),
    ],
)
def test_what_names_the_version_is_refused(case: str, nth: int, words: str) -> None:
    """It is doomed at the first look, for a reason in the kubelet's own words, and is no exit."""
    one = seen(recorded(case, nth))
    assert words in one.refused
    assert (one.waiting, one.exits, one.exit, one.ready, one.started, one.loaded) == ("", 0, None, False, None, None)
    assert doom(one, WARMUP)


@pytest.mark.parametrize(
    ("case", "nth", "exits", "code", "was_ready", "words"),
    [
        ("crash-at-start", 0, 2, 1, False, "exited 2 times by itself, last with code 1"),
        ("crash-at-start", 1, 2, 1, False, "exited 2 times by itself"),
        ("oom", 0, 2, 137, False, "it used more memory than its limit"),
        ("crash-later", 0, 1, 3, True, "exited with code 3 3.0 s after its start"),
        ("crash-later", 1, 2, 3, True, "exited 2 times"),
        ("init-fails", 0, 1, 1, False, "exited with code 1 before it was ready"),
        ("init-fails", 1, 2, 1, False, "exited 2 times"),
        ("sidecar-crashes", 0, 2, 3, True, "exited 2 times"),
        ("liveness", 0, 1, 0, True, "exited with code 0 4.0 s after its start: its liveness probe failed"),
        ("startup", 0, 1, 0, False, "exited with code 0 before it was ready: its startup probe failed"),
        ("post-start", 0, 1, 0, False, "its postStart hook failed"),
    ],
)
def test_a_container_that_ends_is_an_exit(case: str, nth: int, exits: int, code: int, was_ready: bool, words: str) -> None:
    """Of the app, of an init container and of a sidecar alike; one that a probe killed counts although its code is 0."""
    one = seen(recorded(case, nth))
    assert one.exit is not None
    assert (one.exits, one.exit.code, one.exit.was_ready) == (exits, code, was_ready)
    assert (one.refused, one.waiting) == ("", "")
    assert words in doom(one, WARMUP)


def test_the_last_lines_of_an_exit_are_kept() -> None:
    """Those that were fetched, else those that the kubelet kept as the termination message."""
    found = recorded("crash-at-start")
    last = seen(found).exit
    assert last is not None
    assert last.tail[-1].endswith("ERROR told to crash at start")
    fetched = seen(found, tail=("one", "two")).exit
    assert fetched is not None
    assert fetched.tail == ("one", "two")


def test_a_kill_that_no_event_tells_of_is_no_good_end_where_a_probe_may_have_done_it() -> None:
    """Events are kept an hour and may be lost: code 0 of a container with a liveness probe counts then, without one it needs a second."""
    found = recorded("liveness")
    found["events"] = []
    assert "it ended by itself or a probe of it failed" in doom(seen(found), WARMUP)
    del found["pod"]["spec"]["containers"][0]["livenessProbe"]
    assert doom(seen(found), WARMUP) == ""
    found["pod"]["status"]["containerStatuses"][0]["restartCount"] = 2
    assert "exited 2 times" in doom(seen(found), WARMUP)


def test_an_end_that_came_with_the_node_is_no_exit() -> None:
    """A container whose end nobody saw was lost with its node; it comes back, and nothing is held against the version."""
    found = recorded("crash-later")
    ended = found["pod"]["status"]["containerStatuses"][0]["lastState"]["terminated"]
    ended |= {"reason": "Unknown", "exitCode": 255}
    one = seen(found)
    assert (one.exits, one.exit, doom(one, WARMUP)) == (0, None, "")


def test_an_init_container_that_did_its_work_is_no_exit() -> None:
    """Ended with code 0 it has done what it is for; one failure before that was an exit."""
    found = recorded("init-fails")
    status = found["pod"]["status"]["initContainerStatuses"][0]
    failed = status["lastState"]
    status |= {"restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "lastState": {}}
    assert (seen(found).exits, seen(found).refused, seen(found).waiting) == (0, "", "")
    status |= {"restartCount": 1, "lastState": failed}
    assert seen(found).exits == 1


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ('failed to resolve reference "registry.example.com/shop:9": registry.example.com/shop:9: not found', True),
        ("pull access denied, repository does not exist or may require authorization: server message: insufficient_scope", True),
        ("unexpected status from HEAD request to https://registry.example.com/v2/shop/manifests/9: 403 Forbidden", True),
        ("no match for platform in manifest: not found", True),
        ("unexpected status from HEAD request to https://registry.example.com/v2/shop/manifests/9: 503 Service Unavailable", False),
        ("dial tcp: lookup registry.example.com: no such host", False),
        ("unexpected status code 429 Too Many Requests: toomanyrequests: you have reached your pull rate limit", False),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", False),
        ("failed to extract layer: unexpected end of the archive", False),
    ],
)
def test_a_registry_that_says_no_refuses_and_one_that_says_nothing_is_waited_for(message: str, refused: bool) -> None:
    """Absent and denied name the version at the first attempt; a network, a limit or a busy registry do not, however often."""
    found = recorded("image-absent")
    found["pod"]["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ErrImagePull", "message": message}}
    found["events"] = []
    assert (bool(seen(found).refused), bool(seen(found).waiting)) == (refused, not refused)
    assert message.rsplit(": ", maxsplit=1)[-1] in seen(found).refused + seen(found).waiting


def test_another_failure_to_pull_counts_from_the_second_on() -> None:
    """What is neither an answer nor a network's trouble is waited for once; where the kubelet says only that it backs off, events tell."""
    found = recorded("image-absent")
    image = found["pod"]["status"]["containerStatuses"][0]["image"]
    waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
    found["pod"]["status"]["containerStatuses"][0]["state"] = {"waiting": waiting}
    told = {"reason": "Failed", "message": f'Failed to pull image "{image}": broken archive', "count": 1}
    found["events"] = [told]
    assert "broken archive" in seen(found).waiting
    found["events"] = [told | {"count": 2}]
    assert "broken archive" in seen(found).refused
    found["events"] = [told | {"involvedObject": {"fieldPath": "spec.containers{other}"}, "count": 2}]
    assert seen(found).waiting
    found["events"] = [told | {"message": f'Failed to pull image "{image}": manifest unknown'}]
    assert "manifest unknown" in seen(found).refused


def test_a_registry_that_cannot_be_reached_is_the_environments() -> None:
    """Recorded with no registry behind the name: the connection is refused, so the version is not."""
    assert "connection refused" in seen(recorded("image-absent")).waiting
    assert doom(seen(recorded("image-absent")), WARMUP) == ""


@pytest.mark.parametrize(("case", "words"), [("too-large", "1 Insufficient cpu"), ("pvc-missing", 'persistentvolumeclaim "nothing"')])
def test_a_pod_without_a_node_waits(case: str, words: str) -> None:
    """No room, or a volume that is not there yet: the environment's, in the scheduler's words."""
    one = seen(recorded(case))
    assert one.waiting.startswith("Unschedulable: ")
    assert words in one.waiting
    assert (one.refused, one.started) == ("", None)


def test_a_pod_that_never_becomes_ready_runs_and_has_no_trouble_to_tell() -> None:
    """Nothing in it is final: the deadline judges it, because it has started and does not wait for anything."""
    one = seen(recorded("never-ready"))
    assert (one.ready, one.waiting, one.refused, one.exits) == (False, "", "", 0)
    assert one.started is not None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}, "Evicted: The node was low"),
        ({"phase": "Failed", "reason": "NodeShutdown"}, "NodeShutdown"),
        ({"reason": "NodeLost", "message": "Node a which was running pod b is unresponsive"}, "NodeLost"),
        ({"phase": "Failed"}, "the pod is failed"),
    ],
)
def test_what_the_environment_ends_is_never_an_exit(status: dict[str, str], words: str) -> None:
    """Eviction, a lost or a closed node: waited for, and nothing is held against the version."""
    found = recorded("good")
    found["pod"]["status"] |= status | {"containerStatuses": []}
    one = seen(found)
    assert words in one.waiting
    assert (one.refused, one.exits, doom(one, WARMUP)) == ("", 0, "")
    assert leaving(found["pod"]) == (status.get("phase") == "Failed")


def test_a_pod_on_a_silent_node_and_one_that_is_preempted_wait() -> None:
    """The node controller takes the pod's readiness and leaves its containers'; a preempted pod carries a condition."""
    found = recorded("good")
    ready = next(c for c in found["pod"]["status"]["conditions"] if c["type"] == "Ready")
    ready["status"] = "False"
    assert seen(found).waiting == "its node does not answer"
    found["pod"]["spec"]["readinessGates"] = [{"conditionType": "example.com/gate"}]
    assert seen(found).waiting == ""
    taken = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}
    found["pod"]["status"]["conditions"].append(taken)
    assert seen(found).waiting == "PreemptionByScheduler: preempted"


def test_a_pod_that_is_deleted_or_over_is_leaving() -> None:
    """It is no instance any more; one that runs is."""
    found = recorded("good")["pod"]
    assert not leaving(found)
    found["metadata"]["deletionTimestamp"] = "2026-11-21T20:00:00Z"
    assert leaving(found)


def test_a_container_that_waits_for_its_environment_is_not_refused() -> None:
    """The start of a container can fail because the node has no room left, or because its caches are not filled yet."""
    found = recorded("env-key-missing")
    state = found["pod"]["status"]["containerStatuses"][0]["state"]["waiting"]
    state["message"] = "failed to sync configmap cache: timed out waiting for the condition"
    assert (seen(found).refused, "timed out waiting" in seen(found).waiting) == ("", True)
    state |= {"reason": "RegistryUnavailable", "message": "the registry is away"}
    assert "the registry is away" in seen(found).waiting
    state |= {"reason": "ContainerCreating", "message": ""}
    sandbox = {"reason": "FailedCreatePodSandBox", "message": "plugin type=bridge failed: no free address"}
    mount = {"reason": "FailedMount", "message": "Unable to attach or mount volumes: timed out waiting for the condition"}
    assert "no free address" in seen(found, events=[sandbox]).waiting
    assert seen(found, events=[mount]).waiting.startswith("a volume cannot be mounted")


def test_a_volume_that_was_mounted_in_the_end_is_no_trouble() -> None:
    """The event of the first try stays for an hour; a later one that says the pod got further takes it back."""
    found = recorded("volume-missing")
    stamp = max(event["lastTimestamp"] for event in found["events"] if event["reason"] == "FailedMount")
    found["events"].insert(0, {"reason": "Pulling", "message": "Pulling image", "lastTimestamp": stamp})
    assert (seen(found).refused, seen(found).waiting) == ("", "")


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ('pods "web-" is forbidden: insufficient quota to match these scopes', False),
        ('pods "quota-1" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi', True),
        ('admission webhook "policy.example.com" denied the request: no root', True),
        ('Internal error occurred: failed calling webhook "policy.example.com": dial tcp: connection refused', False),
        ('pods "web-" is forbidden: unable to create new content in namespace shop because it is being terminated', False),
    ],
)
def test_a_pod_that_admission_refuses_names_the_version_and_a_quota_does_not(message: str, refused: bool) -> None:
    """What the template asks for is its own; quota, a webhook that does not answer and a namespace that goes are not."""
    (one,) = unborn((), (), 1, (), place="web", version=NEW, events=[{"reason": "FailedCreate", "message": message}])
    assert (bool(one.refused), bool(one.waiting)) == (refused, not refused)


@pytest.mark.parametrize(("case", "refused"), [("no-service-account", True), ("privileged", True), ("quota", False)])
def test_pods_that_cannot_be_created_are_instances_all_the_same(case: str, refused: bool) -> None:
    """What the template may not have is refused, a quota is waited for; as many as are missing, each without a version loaded."""
    found = recorded(case)
    missing = unborn(found["workload"], found["replicaset"], 3, ("web-1",), place="web-dg-1", version=NEW)
    assert [i.id for i in missing] == ["web-dg-1-?1", "web-dg-1-?2"]
    assert all(
        (i.assigned, i.loaded, i.ready, bool(i.refused), bool(i.waiting)) == (NEW, None, False, refused, not refused) for i in missing
    )
    assert unborn(found["workload"], found["replicaset"], 1, ("web-1",), place="web", version=NEW) == ()
    told = [{"reason": "FailedCreate", "message": found["replicaset"][0]["message"]}]
    assert unborn((), (), 3, ("web-1",), place="web-dg-1", version=NEW, events=told) == missing


def test_pods_that_are_only_late_are_not_made_up() -> None:
    """Without a reason nothing is said of a pod that is not there."""
    fine = [{"type": "ReplicaFailure", "status": "False", "message": "was so"}, {"type": "Progressing", "status": "True"}]
    assert unborn(fine, (), 3, (), place="web", version=NEW, events=[{"reason": "SuccessfulCreate"}]) == ()


@pytest.mark.parametrize(
    ("ports", "annotations", "wanted", "found"),
    [
        ([("http", 8080)], {}, 9, 9),
        ([("http", 8080), ("admin", 9000)], {}, "admin", 9000),
        ([("http", 8080)], {}, "nothing", None),
        ([("http", 8080)], {"prometheus.io/port": "9102"}, None, 9102),
        ([("http", 8080), ("metrics", 9000)], {"prometheus.io/port": "{{ port }}"}, None, 9000),
        ([("web", 1), ("http", 2)], {}, None, 2),
        ([("", 7)], {}, None, 7),
        ([("a", 7), ("b", 8)], {}, None, None),
        ([], {}, None, None),
    ],
)
def test_the_port_for_metrics_is_the_one_asked_for_or_the_one_that_looks_like_it(
    ports: list[tuple[str, int]], annotations: dict[str, str], wanted: int | str | None, found: int | None
) -> None:
    """By number or name, then by annotation, by name, and the only one; nothing where several are and nothing tells."""
    declared = [{"name": name, "containerPort": number} for name, number in ports]
    udp = [{"containerPort": 53, "protocol": "UDP"}]
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app", "ports": declared}, {"ports": udp}]}}
    assert port_of(template, wanted) == found


def test_an_address_is_direct_or_by_way_of_the_api_server() -> None:
    """None of both without a port, or before the pod has an address."""
    pod = {"metadata": {"namespace": "shop", "name": "web-1"}, "status": {"podIP": "10.0.0.1"}}
    assert address_of(pod, 8080, direct=True) == "http://10.0.0.1:8080"
    assert address_of(pod, 8080, direct=False) == "kube://shop/web-1:8080"
    assert address_of(pod | {"status": {"podIP": "fd00::1"}}, 8080, direct=True) == "http://[fd00::1]:8080"
    assert address_of(pod | {"status": {}}, 8080, direct=True) == address_of(pod, None, direct=False) == ""


def test_an_exit_with_a_cause_is_no_good_one() -> None:
    """Code 0 alone needs a second exit; with a cause it dooms before the first readiness and within the warmup, and not after it."""
    last = Exit(NOW, 0, 4.0, was_ready=True)
    one = Instance("web-1", "u/1", NEW, None, ready=False, exits=1, exit=last)
    assert doom(one, WARMUP) == ""
    killed = msgspec.structs.replace(last, cause="its liveness probe failed")
    assert doom(msgspec.structs.replace(one, exit=killed), WARMUP).endswith("4.0 s after its start: its liveness probe failed")
    late = msgspec.structs.replace(killed, uptime=300.0)
    assert doom(msgspec.structs.replace(one, exit=late), WARMUP) == ""
