"""The pipeline's account as `install --ci` prints it, with a token that is its only credential."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster

PLURALS = {"ServiceAccount": "serviceaccounts", "Role": "roles", "RoleBinding": "rolebindings"}


def applied(api: Api, objects: Iterable[Mapping[str, Any]]) -> None:
    """Printed objects are there."""
    for one in objects:
        root = "/api/v1" if one["apiVersion"] == "v1" else f"/apis/{one['apiVersion']}"
        api.create(f"{root}/namespaces/{one['metadata']['namespace']}/{PLURALS[one['kind']]}", one)


def renamed(objects: Iterable[Mapping[str, Any]], name: str, without: tuple[str, str, str] | None = None) -> list[dict[str, Any]]:
    """The same account under another name; `without` is a verb, a group and a resource that its Role does not have."""
    made: list[dict[str, Any]] = json.loads(json.dumps(list(objects)).replace('"name": "deployguard"', json.dumps({"name": name})[1:-1]))
    for role in (one for one in made if one["kind"] == "Role" and without is not None):
        verb, group, resource = without or ("", "", "")
        split = []
        for rule in role["rules"]:
            for thing in rule["resources"]:
                theirs = (group, resource) == (rule["apiGroups"][0], thing)
                verbs = [one for one in rule["verbs"] if not (theirs and one == verb)]
                split += [{"apiGroups": rule["apiGroups"], "resources": [thing], "verbs": verbs}] if verbs else []
        role["rules"] = split
    return made


def kubeconfig(cluster: Cluster, api: Api, namespace: str, account: str, path: Path) -> Path:
    """A kubeconfig that holds a token of the account, and no other credential."""
    known = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    if "certificate-authority" in known:
        authority = Path(known.pop("certificate-authority"))
        known["certificate-authority-data"] = base64.b64encode(authority.read_bytes()).decode()
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    answer = api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", asked)
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "ci",
        "clusters": [{"name": "here", "cluster": known}],
        "users": [{"name": account, "user": {"token": answer["status"]["token"]}}],
        "contexts": [{"name": "ci", "context": {"cluster": "here", "user": account, "namespace": namespace}}],
    }
    path.write_text(json.dumps(whole))
    return path
