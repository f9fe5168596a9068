"""The manifests that `install` prints: who a pipeline is in a cluster and what it may do, and the job that reaps what nobody drives."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployguard.report.rbac import KINDS, NODES, Rule, pipeline_rules, reaper_rules

REAPER_LABEL = "deployguard.dev/reaper"
"""By which `plan` finds the CronJob."""
REAPER_NAME = "deployguard-reaper"
_WIDTH = 110
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Who a pipeline is in a namespace, and which kinds of workloads and which Secrets it guards. `pools`: DaemonSets pool by pool."""

    namespace: str
    account: str
    kinds: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    pools: bool = False


def pipeline_manifests(wanted: Pipeline) -> str:
    """ServiceAccount, Role and RoleBinding of a pipeline, as YAML with the reason of every rule."""
    head = [
        f"# What a pipeline needs to guard {_kinds(wanted.kinds)} in the namespace {wanted.namespace}, and nothing more.",
        "# A token for it: kubectl create token " + f"{wanted.account} -n {wanted.namespace} --duration 2h",
    ]
    own = _account(wanted.account, wanted.namespace, pipeline_rules(wanted.kinds, wanted.secrets))
    nodes = _of_cluster(wanted) if wanted.pools else []
    return "\n".join([*head, *own, *nodes]) + "\n"


def reaper_manifests(namespace: str, image: str, kinds: Iterable[str] = KINDS) -> str:
    """The CronJob that runs `reap` all the time, with an account of its own, as YAML."""
    head = [
        "# Takes back every canary that nobody drives any more: the pipeline that began it was killed, or cannot reach the cluster.",
        "# Each run looks every 5 s for 55 s. Two at once do no harm: every write is conditional.",
    ]
    return "\n".join([*head, *_account(REAPER_NAME, namespace, reaper_rules(kinds)), "---", *_cron_job(namespace, image)]) + "\n"


def _kinds(kinds: Sequence[str]) -> str:
    *first, last = [f"{kind}s" for kind in kinds]
    return f"{', '.join(first)} and {last}" if first else last


def _account(name: str, namespace: str, rules: Iterable[Rule]) -> list[str]:
    metadata = f"metadata: {{name: {name}, namespace: {namespace}}}"
    lines = ["apiVersion: v1", "kind: ServiceAccount", metadata]
    return lines + _granted("Role", metadata, rules, name, name, namespace)


def _of_cluster(wanted: Pipeline) -> list[str]:
    """What belongs to no namespace. The name holds the namespace, so that several pipelines do not share one."""
    name = f"{wanted.account}-{wanted.namespace}-nodes"
    return _granted("ClusterRole", f"metadata: {{name: {name}}}", (NODES,), name, wanted.account, wanted.namespace)


def _granted(kind: str, metadata: str, rules: Iterable[Rule], name: str, account: str, namespace: str) -> list[str]:
    """A role with these rules, and its binding to the account."""
    lines = ["---", "apiVersion: rbac.authorization.k8s.io/v1", f"kind: {kind}", metadata, "rules:"]
    for rule in rules:
        lines += [f"  # {line}" for line in textwrap.wrap(f"{rule.why[0].upper()}{rule.why[1:]}.", _WIDTH)]
        groups, resources, verbs = (json.dumps(part) for part in rule.fields().values())
        lines.append(f"  - {{apiGroups: {groups}, resources: {resources}, verbs: {verbs}}}")
    lines += ["---", "apiVersion: rbac.authorization.k8s.io/v1", f"kind: {kind}Binding", metadata]
    lines.append(f"roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {name}}}")
    lines.append(f"subjects: [{{kind: ServiceAccount, name: {account}, namespace: {namespace}}}]")
    return lines


def _cron_job(namespace: str, image: str) -> list[str]:
    return f"""\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {REAPER_NAME}
  namespace: {namespace}
  labels: {{{REAPER_LABEL}: "true"}}  # by this `plan` and `--require-reaper` find it
spec:
  schedule: "* * * * *"
  concurrencyPolicy: Allow  # one that hangs must not keep the next one from looking
  startingDeadlineSeconds: 30
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 1
  jobTemplate:
    spec:
      backoffLimit: 0  # the next minute's job is the repetition
      activeDeadlineSeconds: 90
      template:
        metadata:
          labels: {{app.kubernetes.io/name: {REAPER_NAME}}}
        spec:
          serviceAccountName: {REAPER_NAME}
          restartPolicy: Never
          securityContext: {{runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {{type: RuntimeDefault}}}}
          containers:
            - name: reap
              image: {json.dumps(image)}
              command: [deployguard, reap, --namespace, {namespace}, --for, 55s, --every, 5s]
              securityContext: {json.dumps(_RESTRICTED)}
              resources: {{requests: {{cpu: 10m, memory: 64Mi}}, limits: {{memory: 256Mi}}}}""".splitlines()
