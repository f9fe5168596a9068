"""What deployguard may do in a namespace, one rule for each thing it does, with the reason beside it. Pure data.

No rule is limited to names. Names can be demanded of get, update, patch and delete, but not of create and list; and canaries and copies
are called after digests that nobody knows in advance. What follows for Secrets stands at their rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("Deployment", "StatefulSet", "DaemonSet")
KEY = "deployguard-key"
"""The Secret with the key of the digests of Secrets, made at first need."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources of one API group, and why. `kinds`: only where workloads of these kinds are guarded."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    kinds: tuple[str, ...] = KINDS

    def fields(self) -> dict[str, Any]:
        """The rule as a Role has it."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


PIPELINE = (
    Rule(
        "apps",
        ("deployments",),
        ("get", "list", "create", "patch", "delete"),
        "the guarded Deployment, and the canary Deployment beside it; a create cannot be limited to names",
        ("Deployment",),
    ),
    Rule("apps", ("replicasets",), ("get",), "which pod template a pod really runs", ("Deployment",)),
    Rule("apps", ("statefulsets",), ("get", "list", "patch"), "the guarded StatefulSet", ("StatefulSet",)),
    Rule("apps", ("daemonsets",), ("get", "list", "patch"), "the guarded DaemonSet", ("DaemonSet",)),
    Rule("apps", ("controllerrevisions",), ("get", "list"), "the pod template behind each revision", ("StatefulSet", "DaemonSet")),
    Rule("", ("pods",), ("get", "list"), "which version runs where, and how it fares"),
    Rule("", ("pods",), ("delete",), "pods that are replaced in place, or did not take a version back: one by one, each by its uid"),
    Rule("", ("pods/log",), ("get",), "the last words of an instance that died, and checks on logs"),
    Rule(
        "",
        ("pods/proxy",),
        ("get", "create"),
        "metrics and probes of pods, through the API server: a pipeline does not reach them by itself; create is a probe's POST",
    ),
    Rule("", ("services",), ("get", "list"), "the Service that users come by"),
    Rule("", ("services/proxy",), ("get", "create"), "probes of the Service as a whole; create is a probe's POST"),
    Rule("", ("events",), ("list",), "why a pod does not start: some reasons are told by events alone"),
    Rule("", ("events",), ("create",), "what deployguard did, on the workload, for `kubectl describe`"),
    Rule(
        "",
        ("configmaps",),
        ("get", "list", "create", "update", "patch", "delete"),
        "the guarded ConfigMaps, immutable copies of their contents, and what deployguard saves: state, ledger, requests",
    ),
    Rule("autoscaling", ("horizontalpodautoscalers",), ("list",), "whether an autoscaler sizes the workload"),
    Rule("batch", ("cronjobs",), ("list",), "whether a reaper is there, for `plan` and `--require-reaper`"),
)
"""What `run`, `plan`, `status` and the commands that ask need in the namespace of the workload."""

NODES = Rule("", ("nodes",), ("list",), "the pools of nodes that change one after the other", ("DaemonSet",))
"""What `target.pool` of a DaemonSet needs besides. Nodes belong to no namespace, so this one is of a ClusterRole."""

REAPER = (
    Rule(
        "apps",
        ("deployments",),
        ("get", "list", "patch", "delete"),
        "canaries that nobody drives, and the mark on their Deployment that they were taken back",
        ("Deployment",),
    ),
    Rule("apps", ("statefulsets",), ("get", "list", "patch"), "StatefulSets whose candidates nobody drives", ("StatefulSet",)),
    Rule("apps", ("daemonsets",), ("get", "list", "patch"), "DaemonSets whose candidates nobody drives", ("DaemonSet",)),
    Rule("apps", ("controllerrevisions",), ("get",), "which of their pods are candidates", ("StatefulSet", "DaemonSet")),
    Rule("", ("pods",), ("list", "delete"), "candidates that are ended one by one, each by its uid", ("StatefulSet", "DaemonSet")),
    Rule("", ("configmaps",), ("get",), "the stable template that comes back", ("StatefulSet", "DaemonSet")),
)
"""What `reap` needs."""


def secret_rules(names: Sequence[str]) -> tuple[Rule, ...]:
    """What guarding these Secrets takes beside the rest; nothing for none.

    Copies are called after the digest of their content, so their names cannot be said in advance, and no rule can be limited to them.
    """
    if not names:
        return ()
    return (
        Rule(
            "",
            ("secrets",),
            ("get", "create", "patch", "delete"),
            f"the guarded Secrets ({', '.join(names)}), {KEY}, and immutable copies whose names carry a digest: no list of names can hold "
            "them. Never list, so that names must be known. Who may change a Deployment can mount, and so read, every Secret of its "
            "namespace anyhow: keep others elsewhere",
        ),
    )


def pipeline_rules(kinds: Iterable[str], secrets: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules of the namespace for workloads of these kinds, with these Secrets guarded."""
    wanted = set(kinds)
    return (*(rule for rule in PIPELINE if wanted & set(rule.kinds)), *secret_rules(secrets))


def reaper_rules(kinds: Iterable[str]) -> tuple[Rule, ...]:
    """The rules of a reaper for workloads of these kinds."""
    wanted = set(kinds)
    return tuple(rule for rule in REAPER if wanted & set(rule.kinds))


def allows(rules: Iterable[Rule], verb: str, group: str, resource: str) -> bool:
    """Whether the rules permit a request in their namespace, as the API server decides it."""
    return any(verb in rule.verbs and group == rule.group and resource in rule.resources for rule in rules)
