"""No right of the printed Role is too many: for each of its verbs, what is no longer done, or no longer seen, without it."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployguard.cli import app as cli
from deployguard.report.rbac import pipeline_rules
from tests.cluster import manifests
from tests.cluster.api import Api, until
from tests.cluster.fixtures import Cluster, Service, ready
from tests.cluster.images import SHOP
from tests.cluster.world import ClusterWorld
from tests.e2e.kube_others import account
from tests.e2e.kube_others.stage import QUICK, WALK, Yard
from tests.e2e.world import Done

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
Right = tuple[str, str, str]
"""A verb, a group and a resource."""
TOGETHER = 4
"""So many are tried at a time, each on a Deployment of its own."""


@dataclass(frozen=True)
class Loss:
    """What goes wrong without a right: in which act, the codes it may end with, and what is said of it, or is missed.

    When neither is given, the refusal itself must be told, with verb and resource. `lead`: the tests without `full` try it too.
    """

    act: str
    codes: tuple[int, ...] = (1,)
    said: str = ""
    missed: str = ""
    lead: bool = False


LOSSES: dict[Right, Loss] = {
    ("get", "apps", "deployments"): Loss("plan", lead=True),
    ("list", "apps", "deployments"): Loss("plan"),
    ("create", "apps", "deployments"): Loss("run", (12, 124)),
    ("patch", "apps", "deployments"): Loss("plan"),
    ("delete", "apps", "deployments"): Loss("crash", (11, 124)),
    ("get", "apps", "replicasets"): Loss("plan", lead=True),
    ("list", "", "pods"): Loss("plan", lead=True),
    ("get", "", "pods/log"): Loss("crash", (10,), missed="told to crash at start", lead=True),
    ("get", "", "pods/proxy"): Loss("run", (12, 124), lead=True),
    ("get", "", "services"): Loss("named"),
    ("list", "", "services"): Loss("plan", lead=True),
    ("get", "", "services/proxy"): Loss("run", (12, 124), lead=True),
    ("list", "", "events"): Loss("mount", (12, 124), missed="cannot be mounted"),
    ("create", "", "events"): Loss("crash", (10,), lead=True),
    ("get", "", "configmaps"): Loss("plan", lead=True),
    ("list", "", "configmaps"): Loss("plan"),
    ("create", "", "configmaps"): Loss("plan"),
    ("update", "", "configmaps"): Loss("crash", (1, 10, 12, 124)),
    ("patch", "", "configmaps"): Loss("plan"),
    ("delete", "", "configmaps"): Loss("crash", (10,)),
    ("list", "autoscaling", "horizontalpodautoscalers"): Loss("plan", (0,), lead=True),
    ("list", "batch", "cronjobs"): Loss("plan", (0,), "whether a reaper runs cannot be seen", lead=True),
    ("get", "", "secrets"): Loss("plan", lead=True),
    ("create", "", "secrets"): Loss("plan"),
    ("patch", "", "secrets"): Loss("plan"),
}
ELSEWHERE: set[Right] = {
    ("create", "", "pods/proxy"),
    ("create", "", "services/proxy"),
    ("delete", "", "secrets"),
    ("get", "", "pods"),
    ("delete", "", "pods"),
}
"""For probes that post, and for what only some rollouts come to."""
HURRIED = {**QUICK, "advance_within": "20s"}


def rights() -> set[Right]:
    """Every right that the Role for a Deployment with a guarded Secret gives."""
    rules = pipeline_rules(["Deployment"], ["keys"])
    return {(verb, rule.group, resource) for rule in rules for verb in rule.verbs for resource in rule.resources}


def test_every_right_is_spoken_of() -> None:
    """The table of losses has the rights that are printed, one and all, and one of each resource is tried every time."""
    assert set(LOSSES) | ELSEWHERE == rights()
    assert {right[1:] for right, loss in LOSSES.items() if loss.lead} == {right[1:] for right in rights()}


@dataclass
class Trials:
    """One namespace with the printed account, without one right at a time."""

    cluster: Cluster
    api: Api
    namespace: str
    folder: Path
    printed: list[dict[str, Any]]

    def account(self, name: str, right: Right | None) -> Path:
        """A kubeconfig for the account without the right."""
        account.applied(self.api, account.renamed(self.printed, name, right))
        return account.kubeconfig(self.cluster, self.api, self.namespace, name, self.folder / f"{name}.kubeconfig")

    def planned(self, act: str, kubeconfig: Path) -> Done:
        """What `plan` says of the Deployment `web`, asked in this process."""
        world = ClusterWorld(self.folder, kubeconfig, self.namespace)
        words = ["plan", "-n", self.namespace, "--kubeconfig", str(kubeconfig), "-f", str(self._guard(world, "web", act))]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run([*words, "--config", f"Secret/keys={self.folder / 'given'}", "--image", f"{SHOP}:2"])
        return Done(code, out.getvalue(), err.getvalue())

    def run(self, act: str, name: str, kubeconfig: Path) -> Done:
        """A rollout of a Deployment of its own."""
        (own := self.folder / name).mkdir()
        world = ClusterWorld(own, kubeconfig, self.namespace)
        world.env |= {"XDG_STATE_HOME": str(own)}
        words: dict[str, tuple[str | Path, ...]] = {
            "run": ("--image", f"{SHOP}:2", "--timeout", "40s"),
            "crash": ("--set", "env.CRASH_AT_START=1", "--timeout", "60s"),
            "mount": ("--manifest", self._mounting(name), "--timeout", "60s"),
        }
        base = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        self.api.create(f"/api/v1/namespaces/{self.namespace}/services", manifests.service(name))
        self.api.create(base, manifests.shop("Deployment", name, env={"VERSION": name}))
        until(f"{name} is ready", lambda: ready(self.api, Service("Deployment", name, self.namespace, "", f"{base}/{name}")))
        try:
            return world.run(self._guard(world, name, act), *words[act])
        finally:
            world.close()
            self.api.delete(f"{base}/{name}")

    def _guard(self, world: ClusterWorld, name: str, act: str) -> Path:
        target: dict[str, Any] = {"target": {"kind": "Deployment", "name": name, "service": name}} if act == "named" else {}
        return world.guard(WALK, name=name, policy=HURRIED, config=("settings", "Secret/keys"), **target)

    def _mounting(self, name: str) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(manifests.shop("Deployment", name, config="nobody-made-this")))
        return path


def lost(right: Right, loss: Loss, done: Done) -> str:
    """What is wrong with how it went without the right; empty when it went as it should."""
    text = done.out + done.err
    if done.code not in loss.codes:
        return f"{right}: {loss.act} ended with {done.code}: {text[-1500:]}"
    if loss.missed:
        return f"{right}: {loss.act} still says {loss.missed!r}: {text[-1500:]}" if loss.missed in text else ""
    verb, _, resource = right
    told = re.search(loss.said or f'cannot {verb} resource "{resource}"', text)
    return "" if told else f"{right}: {loss.act} does not say so: {text[-1500:]}"


def fine(act: str, done: Done) -> str:
    """What is wrong with how it went with every right; empty when nothing is."""
    text = done.out + done.err
    codes, marks = {"crash": 10, "mount": 10}, {"crash": "told to crash at start", "mount": "cannot be mounted"}
    right = done.code == codes.get(act, 0) and marks.get(act, "") in text and not re.search("cannot \\w+ resource", text)
    return "" if right else f"with every right {act} ended with {done.code}: {text[-1500:]}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.full)], ids=["one of each resource", "every verb"])
def test_without_it_something_is_missing(
    yard: Callable[..., Yard], cluster: Cluster, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """An account without one of the rights says which one it needs, or sees less; with all of them nothing is refused."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = yard(replicas=1)
    core = f"/api/v1/namespaces/{place.namespace}"
    api.create(f"{core}/configmaps", manifests.configmap("settings", {"A": "1"}))
    api.create(f"{core}/secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"A": "1"}})
    api.create(place.path.rpartition("/")[0], place.manifest(1))
    (given := tmp_path / "given").mkdir()
    (given / "A").write_text("2")
    printed = list(yaml.safe_load_all(place.command.cli("install", "--ci", "--kinds", "deployment", "--secrets", "keys").out))
    trials = Trials(cluster, api, place.namespace, tmp_path, printed)
    chosen = {f"web-{n}": right for n, right in enumerate(right for right in LOSSES if whole or LOSSES[right].lead)}
    place.settled()
    wrong = [fine("plan", trials.planned("plan", trials.account("web-plan", None)))]
    with cf.ThreadPoolExecutor(TOGETHER) as pool:
        jobs = {}
        for act in ("run", "crash", "mount") if whole else ():
            jobs[act] = pool.submit(trials.run, act, f"with-{act}", trials.account(f"with-{act}", None))
        for name, right in chosen.items():
            if LOSSES[right].act in ("run", "crash", "mount"):
                jobs[name] = pool.submit(trials.run, LOSSES[right].act, name, trials.account(name, right))
        for name, right in chosen.items():
            if name not in jobs:
                wrong.append(lost(right, LOSSES[right], trials.planned(LOSSES[right].act, trials.account(name, right))))
        ended = {name: job.result() for name, job in jobs.items()}
    wrong += [lost(chosen[name], LOSSES[chosen[name]], done) if name in chosen else fine(name, done) for name, done in ended.items()]
    assert not any(wrong), "\n\n".join(filter(None, wrong))
