"""What changed in a workload and its configuration, as people read it."""

from __future__ import annotations

import copy
from typing import Any

from deployguard.report.kube_diff import config_diff, keys_diff, template_diff

WRITTEN: dict[str, Any] = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "shop/web:1.8",
                "ports": [{"containerPort": 8080, "name": "http"}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "API_TOKEN", "value": "hunter2"}],
                "resources": {"limits": {"cpu": 1, "memory": "512Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
                "volumeMounts": [{"name": "settings", "mountPath": "/etc/web"}],
            }
        ],
        "volumes": [{"name": "settings", "configMap": {"name": "web-settings"}}, {"name": "tmp", "emptyDir": {}}],
    },
}


def stored() -> dict[str, Any]:
    """The template as an API server of version 1.36 gives it back."""
    template = copy.deepcopy(WRITTEN)
    template["metadata"] |= {"creationTimestamp": None, "annotations": {"deployguard.dev/config": "sha256:1"}}
    spec = template["spec"]
    spec |= {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    }
    (web,) = spec["containers"]
    web |= {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}
    web["ports"][0]["protocol"] = "TCP"
    web["resources"]["limits"]["cpu"] = "1"
    web["readinessProbe"] |= {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    web["readinessProbe"]["httpGet"]["scheme"] = "HTTP"
    spec["volumes"][0]["configMap"]["defaultMode"] = 420
    return template


def test_what_the_server_fills_in_is_no_change() -> None:
    """A template as it is written and as it is stored are the same to a reader."""
    assert template_diff(stored(), WRITTEN) == []
    assert template_diff(WRITTEN, stored()) == []


def test_each_change_is_one_line_with_its_place() -> None:
    """Images, variables, resources, containers, volumes and marks are told by name, and values that look like secrets are hidden."""
    new = copy.deepcopy(WRITTEN)
    spec = new["spec"]
    web = spec["containers"][0]
    web["image"] = "shop/web:1.9"
    web["env"] = [
        {"name": "LOG_LEVEL", "value": "debug"},
        {"name": "API_TOKEN", "value": "hunter3"},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "web-settings", "key": "mode"}}},
    ]
    web["resources"]["limits"]["memory"] = "1Gi"
    web["ports"].insert(0, {"containerPort": 9090, "name": "metrics"})
    spec["containers"].append({"name": "proxy", "image": "shop/proxy:2"})
    spec["volumes"] = [{"name": "tmp", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "web-settings-2"}}]
    spec["terminationGracePeriodSeconds"] = 60
    new["metadata"]["labels"] = {"app": "web", "tier": "front"}
    assert template_diff(stored(), new) == [
        "label tier added: front",
        "container web: image shop/web:1.8 -> shop/web:1.9",
        "container web: env LOG_LEVEL info -> debug",
        "container web: env API_TOKEN <hidden> -> <hidden>",
        "container web: env MODE added: from ConfigMap/web-settings mode",
        "container web: resources.limits.memory 512Mi -> 1Gi",
        "container web: ports[metrics].containerPort added: 9090",
        "container proxy: added, image shop/proxy:2",
        "pod: volumes[settings].configMap.name web-settings -> web-settings-2",
        "pod: terminationGracePeriodSeconds added: 60",
    ]
    assert template_diff(WRITTEN, {**WRITTEN, "spec": {**spec, "containers": []}}, most=1)[1] == "... 2 more lines"


def test_configuration_is_shown_line_by_line() -> None:
    """Short values stand on one line, long ones as a unified diff, and what looks like a password is hidden."""
    old = {"level": "info", "app.json": '{\n  "a": 1,\n  "password": "hunter2"\n}\n', "gone": "x"}
    new = {"level": "debug", "app.json": '{\n  "a": 2,\n  "password": "hunter3"\n}\n'}
    lines = config_diff("ConfigMap/web-settings", old, new)
    assert "ConfigMap/web-settings: level info -> debug" in lines
    assert '-  "a": 1,' in lines
    assert '+  "a": 2,' in lines
    assert "--- ConfigMap/web-settings/gone" in lines
    assert "hunter" not in "".join(lines)
    assert config_diff("ConfigMap/new", None, {})[0] == "ConfigMap/new added"
    assert config_diff("ConfigMap/same", old, old) == []


def test_of_a_secret_only_the_keys_are_shown() -> None:
    """Neither values nor their sizes nor digests of them."""
    lines = keys_diff("Secret/web-tls", {"a": "hunter2", "b": "x", "c": "y"}, {"a": "hunter3", "b": "x", "d": "z"})
    assert lines == ["Secret/web-tls: a changed", "Secret/web-tls: c removed", "Secret/web-tls: d added"]
