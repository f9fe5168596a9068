"""A pipeline with the printed rights and a token alone does everything, and tells no secret anywhere."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from deployguard.targets.kubernetes.settings import ConfigContent, content_digest
from tests.cluster import manifests
from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster
from tests.e2e.kube_others import account
from tests.e2e.kube_others.stage import IN_STAGE, QUICK, WALK, Yard
from tests.e2e.world import Done

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
COUNTED = {
    "name": "errors",
    "source": "scrape",
    "bad": 'http_requests_total{code=~"5.."}',
    "total": "http_requests_total",
    "claims": 100,
    "required": False,
}
LINES = {"name": "lines", "source": "logs", "bad": "ERROR", "required": False}
LISTS = [
    "/api/v1/namespaces/{}/configmaps",
    "/api/v1/namespaces/{}/events",
    "/api/v1/namespaces/{}/pods",
    "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/apps/v1/namespaces/{}/replicasets",
]


def needles(word: str, value: str, content: dict[str, str]) -> dict[str, str]:
    """What gives a value away: itself, in base64, and by its plain hashes; and the plain digest of the Secret's whole content."""
    coded = base64.b64encode(value.encode()).decode()
    whole = ConfigContent(binary={key: base64.b64encode(text.encode()).decode() for key, text in content.items()}, type="Opaque")
    return {
        f"the {word} value": value,
        f"the {word} value in base64": coded.rstrip("="),
        f"the sha256 of the {word} value": hashlib.sha256(value.encode()).hexdigest(),
        f"the sha256 of the {word} value in base64": hashlib.sha256(coded.encode()).hexdigest(),
        f"the plain digest of the {word} Secret": content_digest(whole, None).rpartition(":")[2],
    }


def folder(place: Path, content: dict[str, str]) -> Path:
    """The content as files."""
    place.mkdir()
    for key, text in content.items():
        (place / key).write_text(text)
    return place


@contextmanager
def watched() -> Iterator[set[str]]:
    """The command lines of everything that runs for us meanwhile."""
    found: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(1.0):
            for process in psutil.process_iter(["cmdline"]):
                found.add(" ".join(process.info["cmdline"] or []))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def everything(api: Api, namespace: str, places: list[Path]) -> Iterator[tuple[str, str]]:
    """Whatever lies in the namespace but the data of Secrets, and every file below the places: where, and its text."""
    for path in LISTS:
        for one in api.items(path.format(namespace)):
            yield f"{path.rpartition('/')[2]}/{one['metadata']['name']}", str(one)
    for one in api.items(f"/api/v1/namespaces/{namespace}/secrets"):
        yield f"the metadata of secrets/{one['metadata']['name']}", str(one["metadata"])
    for place in places:
        for file in place.rglob("*"):
            if file.is_file():
                yield str(file.relative_to(place.parent)), file.read_bytes().decode(errors="replace")


def found_in(text: str, wanted: dict[str, str]) -> list[str]:
    """Which of the needles a text holds."""
    return [word for word, needle in wanted.items() if needle in text]


def test_the_printed_role_and_a_token_are_enough_and_no_secret_is_told(
    yard: Callable[..., Yard], cluster: Cluster, api: Api, tmp_path: Path
) -> None:
    """With a ConfigMap and a Secret guarded: promoted, rolled back, aborted and asked; the Secret's values are in Secrets alone."""
    place = yard(replicas=1, config="web-config")
    namespace, command = place.namespace, place.command
    values = {word: f"{word}-{secrets.token_hex(12)}" for word in ("old", "new", "bad")}
    contents = {word: {"PASSWORD": value} | ({"CRASH_AT_START": "1"} if word == "bad" else {}) for word, value in values.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-keys"}, "stringData": contents["old"]}
    api.create(f"/api/v1/namespaces/{namespace}/secrets", secret)
    place.source("CONFIG_VERSION=a\n")
    made = place.manifest(1)
    made["spec"]["template"]["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "web-keys"}}]
    api.create(place.path.rpartition("/")[0], made)
    place.settled()

    printed = list(yaml.safe_load_all(command.cli("install", "--ci", "--kinds", "deployment", "--secrets", "web-keys").out))
    assert not [rule for rule in printed[1]["rules"] if "secrets" in rule["resources"] and {"list", "watch", "*"} & set(rule["verbs"])]
    account.applied(api, printed)
    keys = tmp_path / "credentials"
    keys.mkdir()
    state = tmp_path / "said"
    state.mkdir()
    token = account.kubeconfig(cluster, api, namespace, "deployguard", keys / "kubeconfig")
    command.env |= {"KUBECONFIG": str(token), "XDG_STATE_HOME": str(state), "HOME": str(state)}

    def guard(policy: dict[str, Any]) -> Path:
        return command.guard(WALK, COUNTED, LINES, policy=policy, config=("web-config", "Secret/web-keys"))

    given = tmp_path / "given"
    given.mkdir()
    (given / manifests.CONFIG_FILE).write_text("CONFIG_VERSION=b\n")
    change = ["--config", f"ConfigMap/web-config={given / manifests.CONFIG_FILE}"]
    good, bad = folder(given / "new", contents["new"]), folder(given / "bad", contents["bad"])
    said: list[Done] = []

    def asked(*words: str | Path, code: int = 0) -> Done:
        done = command.cli(*words)
        assert done.code == code, (words, done.err)
        said.append(done)
        return done

    with watched() as lines:
        quick = guard(QUICK)
        asked("plan", "-f", quick, "--config", f"Secret/web-keys={good}", *change)
        asked("run", "-f", quick, "--config", f"Secret/web-keys={good}", *change, "-o", "json", "--report", state / "good.md")
        assert place.held() == "CONFIG_VERSION=b\n"
        asked("plan", "-f", quick, "--config", f"Secret/web-keys={bad}", "-o", "json")
        reports: list[str | Path] = ["--report", state / "bad.json", "--report", state / "bad.xml", "--stay", "0s"]
        asked("run", "-f", quick, "--config", f"Secret/web-keys={bad}", *reports, "-o", "markdown", code=10)
        assert "told to crash at start" in said[-1].out
        going = command.begin(guard(IN_STAGE), "--set", "env.VERSION=3")
        place.at(going, ("analyzing", 0))
        asked("pause", "--reason", "too early")
        asked("abort", "--reason", "not today")
        said.append(going.end())
        for words in (["status"], ["status", "-o", "json"], ["why"], ["why", "-o", "json"], ["history"], ["reap"]):
            asked(*words)
        said.append(place.piped("", "ledger", "verify"))
        assert said[-1].code == 0, said[-1].err
    assert place.canaries() == []
    for done in said:
        assert "forbidden" not in (done.out + done.err).lower(), done.err

    wanted = {key: text for word in values for key, text in needles(word, values[word], contents[word]).items()}
    told = {f"output {n}": done.out + done.err for n, done in enumerate(said)} | {"command lines": "\n".join(lines)}
    for where, text in [*told.items(), *everything(api, namespace, [state])]:
        assert not found_in(text, wanted), f"{where}: {found_in(text, wanted)}"
    copies = [one for one in api.items(f"/api/v1/namespaces/{namespace}/secrets") if "-dg-" in one["metadata"]["name"]]
    assert {base64.b64decode(one["data"]["PASSWORD"]).decode() for one in copies} >= {values["old"], values["new"]}
