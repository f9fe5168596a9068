"""Paths, their words, and the parts of patches: pure."""

from __future__ import annotations

import pytest

from deployguard.kube import patches, paths
from deployguard.kube.errors import refusal, what


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("PATCH", paths.workload("StatefulSet", "shop", "web"), "patch statefulsets/web in shop"),
        ("GET", paths.workloads("Deployment", ""), "list deployments"),
        ("GET", paths.workloads("DaemonSet", "shop"), "list daemonsets in shop"),
        ("GET", paths.replicaset("shop", "web-1"), "read replicasets/web-1 in shop"),
        ("GET", paths.revision("shop", "web-1"), "read controllerrevisions/web-1 in shop"),
        ("DELETE", paths.pod("shop", "web-1"), "delete pods/web-1 in shop"),
        ("GET", paths.pod_log("shop", "web-1"), "read pods/web-1/log in shop"),
        ("GET", paths.pod_proxy("shop", "web-1", 8080, "/metrics?x=1"), "reach pods/web-1:8080/proxy in shop"),
        ("GET", paths.service_proxy("shop", "web", "http"), "reach services/web:http/proxy in shop"),
        ("GET", paths.content("Secret", "shop", "key"), "read secrets/key in shop"),
        ("GET", paths.configmaps(""), "list configmaps"),
        ("POST", paths.events("shop"), "create events in shop"),
        ("GET", paths.namespace("shop"), "read namespaces/shop"),
        ("GET", paths.autoscalers("shop"), "list horizontalpodautoscalers in shop"),
        ("GET", "/readyz", "read /readyz"),
    ],
)
def test_a_path_can_be_said(method: str, path: str, words: str) -> None:
    """What is attempted on a path comes out as a person would say it."""
    assert what(method, path) == words


def test_names_never_leave_their_place() -> None:
    """A name with a slash stays one part of the path."""
    assert paths.configmap("shop", "../secrets/x") == "/api/v1/namespaces/shop/configmaps/..%2Fsecrets%2Fx"


def test_pointers_are_escaped() -> None:
    """Keys with a slash or a tilde, as labels have, point where they should."""
    assert patches.pointer("metadata", "labels", "deployguard.dev/fence", 0, "a~b") == "/metadata/labels/deployguard.dev~1fence/0/a~0b"


def test_nobody_is_told_of_credentials() -> None:
    """Who reached the server without credentials is not told of a missing rule."""
    body = (
        b'{"kind":"Status","message":"pods is forbidden: User \\"system:anonymous\\" cannot list resource \\"pods\\" in API group \\"\\""}'
    )
    assert "no credentials reached the API server" in refusal("GET", paths.pods("shop"), 403, body).hint
