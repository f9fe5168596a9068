"""No right of the printed Role is too many: for each of its verbs, what is no longer done, or no longer seen, without it."""

from __future__ import annotations

import concurrent.futures as cf
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

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
    ("list", "", "events"): Loss("mount", (12, 124), missed="FailedMount"),
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


class Trial:
    """One right taken away, tried on a Deployment of its own."""

    def __init__(self, world: ClusterWorld, name: str, folder: Path) -> None:
        self.world, self.name, self.folder = world, name, folder

    def act(self, act: str) -> Done:
        """What deployguard does without it."""
        words: dict[str, tuple[str | Path, ...]] = {
            "plan": ("--config", f"Secret/keys={self.folder}", "--image", f"{SHOP}:2"),
            "run": ("--image", f"{SHOP}:2", "--timeout", "40s"),
            "named": ("--image", f"{SHOP}:2"),
            "crash": ("--set", "env.CRASH_AT_START=1", "--timeout", "60s"),
            "mount": ("--manifest", self._mounting(), "--timeout", "60s"),
        }
        target = {"target": {"kind": "Deployment", "name": self.name, "service": self.name}} if act == "named" else {}
        guard = self.world.guard(WALK, name=self.name, policy=HURRIED, config=("settings", "Secret/keys"), **target)
        if act in ("plan", "named"):
            return self.world.cli("plan", "-f", guard, *words[act])
        return self.world.run(guard, *words[act])

    def _mounting(self) -> Path:
        made = manifests.shop("Deployment", self.name, config="nobody-made-this")
        path = self.folder.parent / f"{self.name}.yaml"
        path.write_text(json.dumps(made))
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


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.full)], ids=["one of each resource", "every verb"])
def test_without_it_something_is_missing(yard: Callable[..., Yard], cluster: Cluster, api: Api, tmp_path: Path, whole: bool) -> None:
    """An account without one of the rights says which one it needs, or sees less; with all of them nothing is refused."""
    place = yard(replicas=1)
    namespace, core = place.namespace, f"/api/v1/namespaces/{place.namespace}"
    api.create(f"{core}/configmaps", manifests.configmap("settings", {"A": "1"}))
    api.create(f"{core}/secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"A": "1"}})
    (given := tmp_path / "given").mkdir()
    (given / "A").write_text("2")
    printed = list(yaml.safe_load_all(place.command.cli("install", "--ci", "--kinds", "deployment", "--secrets", "keys").out))
    tried: dict[str, Right | None] = {f"web-{n}": right for n, right in enumerate(right for right in LOSSES if whole or LOSSES[right].lead)}
    acts = {name: LOSSES[right].act for name, right in tried.items() if right is not None}
    tried |= {f"with-{act}": None for act in ("plan", "run", "crash", *(("named", "mount") if whole else ()))}

    def trial(name: str) -> Trial:
        account.applied(api, account.renamed(printed, name, tried[name]))
        path = account.kubeconfig(cluster, api, namespace, name, tmp_path / f"{name}.kubeconfig")
        (own := tmp_path / name).mkdir()
        world = ClusterWorld(own, path, namespace)
        world.env |= {"XDG_STATE_HOME": str(own)}
        api.create(f"{core}/services", manifests.service(name))
        return Trial(world, name, given)

    def deployed(names: Iterable[str]) -> None:
        base = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        wanted = list(names)
        for name in wanted:
            api.create(base, manifests.shop("Deployment", name, env={"VERSION": name}))
        for name in wanted:
            until(f"{name} is ready", lambda name=name: ready(api, Service("Deployment", name, namespace, "", f"{base}/{name}")))

    def tell(name: str) -> str:
        one, right = trial(name), tried[name]
        act = acts[name] if right is not None else name.removeprefix("with-")
        try:
            done = one.act(act)
        finally:
            one.world.close()
            api.delete(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        if right is not None:
            return lost(right, LOSSES[right], done)
        fine = done.code == {"crash": 10, "mount": 12}.get(act, 0) and not re.search("cannot \\w+ resource", done.out + done.err)
        marks = {"crash": "told to crash at start", "mount": "FailedMount"}
        return "" if fine and marks.get(act, "") in done.out + done.err else f"with every right, {act} ended with {done.code}: {done.err}"

    names = sorted(tried, key=lambda name: tried[name] is not None)
    wrong: list[str] = []
    with cf.ThreadPoolExecutor(TOGETHER) as pool:
        for at in range(0, len(names), TOGETHER):
            deployed(names[at : at + TOGETHER])
            wrong += filter(None, pool.map(tell, names[at : at + TOGETHER]))
    assert not wrong, "\n\n".join(wrong)
