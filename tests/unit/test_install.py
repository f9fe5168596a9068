"""What `install` prints: manifests that say what they allow and why, and a job that runs a command that is there."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from deployguard.cli import app as cli
from deployguard.report.install import REAPER_LABEL, Pipeline, pipeline_manifests, reaper_manifests
from deployguard.report.rbac import KINDS, PIPELINE, Rule, allows, pipeline_rules
from deployguard.targets.kubernetes.content import KEY_SECRET
from deployguard.wiring import cluster_workload
from tests.unit.test_docs import fault


def objects(text: str) -> dict[str, dict[str, Any]]:
    """The printed objects by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_a_role_has_the_rules_of_the_kinds_that_are_guarded_and_the_reason_of_each() -> None:
    """Nothing of other kinds, nothing of Secrets unless one is named, and never the right to list them."""
    text = pipeline_manifests(Pipeline("shop", "ci", ("Deployment",)))
    made = objects(text)
    assert made["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": "ci", "namespace": "shop"}]
    given = [Rule(r["apiGroups"][0], tuple(r["resources"]), tuple(r["verbs"]), "") for r in made["Role"]["rules"]]
    assert allows(given, "create", "apps", "deployments")
    assert not allows(given, "patch", "apps", "statefulsets")
    assert not any("secrets" in rule.resources for rule in given)
    for rule in PIPELINE:
        assert (rule.why[:40].lower() in text.lower().replace("\n  # ", " ")) is ("Deployment" in rule.kinds)
    with_secret = pipeline_rules(KINDS, ["web-tls"])
    assert allows(with_secret, "get", "", "secrets")
    assert not allows(with_secret, "list", "", "secrets")
    assert KEY_SECRET in pipeline_manifests(Pipeline("shop", "ci", KINDS, ("web-tls",)))
    assert "ClusterRole" not in made
    pooled = objects(pipeline_manifests(Pipeline("shop", "ci", KINDS, pools=True)))
    assert pooled["ClusterRoleBinding"]["roleRef"]["name"] == pooled["ClusterRole"]["metadata"]["name"]
    assert [rule["resources"] for rule in pooled["ClusterRole"]["rules"]] == [["nodes"]]


def test_the_reaper_is_found_by_the_plan_and_runs_a_command_that_is_there() -> None:
    """Label, command and account fit what reads them; the pod asks for no privilege."""
    made = objects(reaper_manifests("shop", "registry.example/deployguard:1"))
    assert REAPER_LABEL == cluster_workload.REAPER_LABEL
    job = made["CronJob"]
    assert REAPER_LABEL in job["metadata"]["labels"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][0] == "deployguard"
    assert not fault(container["command"][1:])
    assert pod["serviceAccountName"] == made["ServiceAccount"]["metadata"]["name"] == made["RoleBinding"]["subjects"][0]["name"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    fewer = objects(reaper_manifests("shop", "registry.example/deployguard:1", ["Deployment"]))
    assert [rule["resources"] for rule in fewer["Role"]["rules"]] == [["deployments"]]
    assert ["controllerrevisions"] in [rule["resources"] for rule in made["Role"]["rules"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to print was named"),
        (["--reaper", "-n", "shop"], "the reaper's CronJob needs an image"),
        (["--ci", "-n", "Shop"], "no name that a namespace can have"),
        (["--ci", "-n", "shop", "--kinds", "job"], "cannot be guarded"),
        (["--ci", "-n", "shop", "--secrets", "a: b"], "no name that an object can have"),
    ],
)
def test_what_cannot_be_printed_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The option is named, and nothing comes out that could be applied."""
    assert cli.run(["install", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
