"""What kustomize and Helm print is piped in: what is guarded is rolled out if it changed, all else is listed as the user's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster import manifests
from tests.e2e.kube_others.stage import QUICK, Helm, Yard, chart

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]


def test_rendered_manifests_are_taken_from_standard_input(yard: Callable[..., Yard], helm: Helm) -> None:
    """Unchanged output of kustomize is nothing to do; a new version in it is a rollout; Helm's of the same version is nothing again."""
    place = yard(replicas=1)
    base = place.folder / "base"
    base.mkdir()

    def kustomized(version: int) -> str:
        written = place.manifest(version)
        place.file(written, name="base/web.yaml")
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"}, "spec": {"template": written["spec"]["template"]}}
        place.file(manifests.service("web"), job, name="base/rest.yaml")
        (base / "kustomization.yaml").write_text(
            "resources: [web.yaml, rest.yaml]\nconfigMapGenerator: [{name: more, literals: [COLOUR=blue]}]\n"
        )
        return place.cluster.kubectl("kustomize", str(base)).stdout

    first = kustomized(1)
    place.kubectl("apply", "-f", base / "web.yaml")
    place.settled()
    guard = place.guard(QUICK)
    before = place.pods()
    unchanged = place.piped(first, "run", "-f", guard, "--manifest", "-", "-o", "json")
    assert (unchanged.code, unchanged.data["outcome"], place.pods()) == (0, "unchanged", before), unchanged.err
    note = unchanged.err.partition("yours to apply: ")[2].partition("\n")[0]
    assert "Service: web" in note
    assert "Job: migrate" in note
    assert "ConfigMap: more-" in note
    second = kustomized(2)
    planned = place.piped(second, "plan", "-f", guard, "--manifest", "-")
    assert "deployguard-shop:1 -> localhost/deployguard-shop:2" in planned.out, planned.out + planned.err
    assert "yours to apply: " in planned.out
    done = place.piped(second, "run", "-f", guard, "--manifest", "-", "-o", "json", "--stay", "0s")
    assert (done.code, place.image(), set(place.pods().values())) == (0, "2", {"2"}), done.err
    rendered = helm("template", "web", str(chart(place.folder, place.manifest(1))), "--set-string", "version=2", "-n", place.namespace)
    again = place.piped(rendered.stdout, "run", "-f", guard, "--manifest", "-", "-o", "json")
    assert (again.code, again.data["outcome"]) == (0, "unchanged"), again.err
    here = place.api.items(f"/apis/batch/v1/namespaces/{place.namespace}/jobs")
    assert here == []
