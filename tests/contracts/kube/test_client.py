"""The client on a real API server: what is refused, and how; who we are; pages, patches and threads."""

from __future__ import annotations

import base64
import concurrent.futures as cf
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from deployguard.errors import Bug
from deployguard.kube import client, config, patches, paths
from deployguard.kube.client import Kube, connect
from deployguard.kube.credentials import Pem
from deployguard.kube.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Unauthorized,
    Unreachable,
)
from tests.cluster.fixtures import Cluster
from tests.contracts.kube.kubeconfigs import kubeconfig, parts, plugin

pytestmark = pytest.mark.cluster

REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def configmap(kube: Kube, namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    return kube.create(paths.configmaps(namespace), {"metadata": {"name": name}, "data": data or {"x": "1"}})


def me(kube: Kube) -> dict[str, Any]:
    """Who the server takes us for."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found: dict[str, Any] = kube.create(REVIEW, body)["status"]["userInfo"]
    return found


def token(kube: Kube, namespace: str, account: str) -> str:
    """A token of a service account, which is made if need be."""
    base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    with contextlib.suppress(AlreadyExists):
        kube.create(base, {"metadata": {"name": account}})
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    found: str = kube.create(f"{base}/{account}/token", body)["status"]["token"]
    return found


@pytest.fixture
def as_user(cluster: Cluster, namespace: str, tmp_path: Path) -> Callable[..., Kube]:
    """Connects to the cluster as a user given as in a kubeconfig."""
    server, _ = parts(cluster.kubeconfig)
    return lambda user, **more: connect(kubeconfig=kubeconfig(tmp_path / "kubeconfig", server, user, namespace), timeout=20.0, **more)


@pytest.mark.parametrize(
    ("attempt", "kind", "status", "words"),
    [
        (lambda k, ns, _: k.get(paths.configmap(ns, "none")), NotFound, 404, "could not read configmaps/none in NS: "),
        (lambda k, ns, _: k.list(f"/apis/apps/v1/namespaces/{ns}/sheep"), NotFound, 404, "could not list sheep in NS: "),
        (lambda k, ns, _: configmap(k, ns), AlreadyExists, 409, 'could not create configmaps in NS: configmaps "a" already exists'),
        (lambda k, ns, old: k.replace(paths.configmap(ns, "a"), old), Conflict, 409, "could not replace configmaps/a in NS: "),
        (
            lambda k, ns, _: k.patch(paths.configmap(ns, "a"), [patches.test("/data/x", "1"), patches.remove("/data/x")]),
            FailedPrecondition,
            422,
            "could not patch configmaps/a in NS: it is no longer what it was read as",
        ),
        (
            lambda k, ns, _: k.merge(paths.configmap(ns, "a"), {"metadata": {"labels": {"a": "!"}}}),
            Invalid,
            422,
            "could not patch configmaps/a in NS: ",
        ),
        (
            lambda k, ns, old: k.merge(paths.configmap(ns, "a"), {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}),
            Conflict,
            409,
            "NS",
        ),
        (lambda k, ns, _: k.delete(paths.configmap(ns, "a"), uid="another"), Conflict, 409, "could not delete configmaps/a in NS: "),
        (
            lambda k, ns, old: k.delete(
                paths.configmap(ns, "a"), uid=old["metadata"]["uid"], resource_version=old["metadata"]["resourceVersion"]
            ),
            Conflict,
            409,
            "could not delete configmaps/a in NS: ",
        ),
    ],
    ids=["absent", "unknown kind", "exists", "old put", "test", "invalid", "old merge", "other uid", "old delete"],
)
def test_every_refusal_has_a_class_and_names_the_attempt(
    kube: Kube, namespace: str, attempt: Callable[[Kube, str, dict[str, Any]], object], kind: type[KubeError], status: int, words: str
) -> None:
    """Each kind of refusal comes as its own class, with its status, and says what was attempted on what."""
    old = configmap(kube, namespace)
    kube.patch(paths.configmap(namespace, "a"), [patches.replace("/data/x", "2")])
    with pytest.raises(KubeError) as caught:
        attempt(kube, namespace, old)
    assert (type(caught.value), caught.value.status, caught.value.uncertain) == (kind, status, False)
    assert words.replace("NS", namespace) in caught.value.message
    assert kube.get(paths.configmap(namespace, "a"))["data"] == {"x": "2"}


def test_a_missing_right_is_named(kube: Kube, namespace: str, as_user: Callable[..., Kube]) -> None:
    """A service account without rights is told which rule it lacks; a token that means nothing, where it came from."""
    weak = as_user({"token": token(kube, namespace, "weak")})
    with pytest.raises(Forbidden) as caught:
        weak.patch(paths.workload("Deployment", namespace, "web"), [patches.remove("/x")])
    assert caught.value.message.startswith(f'could not patch deployments/web in {namespace}: forbidden (User "system:serviceaccount:')
    assert 'apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"]' in caught.value.hint
    assert "deployguard install --ci" in caught.value.hint
    with pytest.raises(Unauthorized) as refused:
        as_user({"token": "nonsense"}).get(paths.pods(namespace))
    assert "context test" in refused.value.hint


def test_a_quota_is_no_missing_right(kube: Kube, namespace: str) -> None:
    """What admission refuses is told apart from what no rule allows, though both answer 403."""
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/configmaps": "0"}}}
    kube.create(f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    refused: list[Forbidden] = []
    for n in range(200):
        # The quota holds as soon as a controller has counted what is there.
        try:
            configmap(kube, namespace, f"a{n}")
        except Forbidden as error:
            refused.append(error)
            break
    assert "exceeded quota" in refused[0].message or "status unknown for quota" in refused[0].message
    assert "quota or an admission policy" in refused[0].hint


def test_impersonation_reaches_the_server(cluster: Cluster, as_user: Callable[..., Kube]) -> None:
    """`--as` and every `--as-group` are what the server sees, and so is what a kubeconfig says of it."""
    path = str(cluster.kubeconfig)
    asked = connect(kubeconfig=path, as_user="bob", as_groups=["blue", "green"], timeout=20.0)
    assert (me(asked)["username"], me(asked)["groups"][:2]) == ("bob", ["blue", "green"])
    configured = as_user(parts(cluster.kubeconfig)[1] | {"as": "eve", "as-groups": ["red"], "as-user-extra": {"team": ["a", "b"]}})
    found = me(configured)
    assert (found["username"], found["groups"][0], found["extra"]) == ("eve", "red", {"team": ["a", "b"]})


def test_a_token_file_is_followed(kube: Kube, namespace: str, as_user: Callable[..., Kube], tmp_path: Path) -> None:
    """A token that rotates in its file is used from the next request on; an empty file, half way through, changes nothing."""
    file = tmp_path / "token"
    file.write_text(token(kube, namespace, "one") + "\n")
    rotating = as_user({"tokenFile": str(file), "token": "ignored beside a file"})
    assert me(rotating)["username"].endswith(":one")
    file.write_text("")
    assert me(rotating)["username"].endswith(":one")
    file.write_text(token(kube, namespace, "two"))
    assert me(rotating)["username"].endswith(":two")


def test_a_plugin_runs_once_until_it_expires_or_is_refused(
    kube: Kube, namespace: str, as_user: Callable[..., Kube], tmp_path: Path
) -> None:
    """A credential program runs once for all connections of a process, again when its token has expired, and once when it is refused."""
    good, soon = {"token": token(kube, namespace, "one")}, {"expirationTimestamp": "2020-01-01T00:00:00Z"}
    lasting, log = plugin(tmp_path / "lasting", good)
    assert [me(as_user({"exec": lasting}))["username"].rpartition(":")[2] for _ in range(3)] == ["one"] * 3
    assert log.read_text() == "run\n"
    expiring, log = plugin(tmp_path / "expiring", good | soon)
    short = as_user({"exec": expiring})
    assert me(short)["username"] == me(short)["username"]
    assert len(log.read_text().splitlines()) >= 2
    revoked, log = plugin(tmp_path / "revoked", {"token": "revoked"}, good)
    assert me(as_user({"exec": revoked}))["username"].endswith(":one")
    assert log.read_text() == "run\nrun\n"
    refused, log = plugin(tmp_path / "refused", {"token": "never good"})
    with pytest.raises(Unauthorized, match="credentials"):
        me(as_user({"exec": refused}))
    assert log.read_text() == "run\nrun\n"


def test_a_plugin_may_give_a_certificate(cluster: Cluster, as_user: Callable[..., Kube], tmp_path: Path) -> None:
    """A client certificate from a program proves who we are, as the same one in the kubeconfig does."""
    _, user = parts(cluster.kubeconfig)
    if "client-certificate-data" not in user:
        pytest.skip("the kubeconfig of this cluster holds no client certificate")
    names = {"clientCertificateData": "client-certificate-data", "clientKeyData": "client-key-data"}
    run, _ = plugin(tmp_path / "plugin", {new: base64.b64decode(user[old]).decode() for new, old in names.items()})
    assert me(as_user({"exec": run}))["username"] == me(connect(kubeconfig=str(cluster.kubeconfig)))["username"]


def test_only_the_right_server_is_trusted(cluster: Cluster, tmp_path: Path) -> None:
    """A server whose authority or name is not the expected one is refused before anything is sent; `insecure` asks for neither."""
    server, user = parts(cluster.kubeconfig)
    bare = {"server": server["server"]}

    def ask(**more: Any) -> dict[str, Any]:
        path = kubeconfig(tmp_path / "kubeconfig", bare | more, user)
        return me(connect(kubeconfig=path, timeout=20.0))

    authority = {key: value for key, value in server.items() if key.startswith("certificate-authority")}
    for wrong in ({}, authority | {"tls-server-name": "nobody.example"}):
        with pytest.raises(Unreachable, match="TLS: ") as caught:
            ask(**wrong)
        assert caught.value.uncertain is False
    names = [ask(**right)["username"] for right in (authority, {"insecure-skip-tls-verify": True})]
    assert len(set(names)) == 1


def test_certificates_may_lie_in_files(cluster: Cluster, as_user: Callable[..., Kube], tmp_path: Path) -> None:
    """A client certificate in files is used, and followed: half of a new one changes nothing, a whole one counts at once."""
    _, user = parts(cluster.kubeconfig)
    if "client-certificate-data" not in user:
        pytest.skip("the kubeconfig of this cluster holds no client certificate")
    files = {name: tmp_path / f"{name}.pem" for name in ("client-certificate", "client-key")}
    for name, path in files.items():
        path.write_bytes(base64.b64decode(user[f"{name}-data"]))
    rotating = as_user({name: str(path) for name, path in files.items()})
    first = me(rotating)
    whole = files["client-key"].read_bytes()
    files["client-key"].write_bytes(b"")
    assert me(rotating) == first
    files["client-key"].write_bytes(whole + b"\n")
    assert me(rotating) == first
    assert rotating._transport._certificate == Pem(files["client-certificate"].read_bytes(), whole + b"\n")
    assert not list(Path(tempfile.gettempdir()).glob("deployguard-*/client.pem"))


def test_a_pod_finds_its_own_server(cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no kubeconfig, the files and variables that every pod has are enough; their token rotates too."""
    server, _ = parts(cluster.kubeconfig)
    if "certificate-authority-data" not in server:
        pytest.skip("the kubeconfig of this cluster does not hold its authority")
    address = urlsplit(server["server"])
    for name, text in (("token", token(kube, namespace, "one")), ("namespace", namespace)):
        (tmp_path / name).write_text(text)
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(server["certificate-authority-data"]))
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", tmp_path)
    for name, text in (("HOST", address.hostname), ("PORT", str(address.port))):
        monkeypatch.setenv(f"KUBERNETES_SERVICE_{name}", text or "")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    inside = connect(timeout=20.0)
    assert (inside.in_cluster, inside.namespace, me(inside)["username"].rpartition(":")[2]) == (True, namespace, "one")
    (tmp_path / "token").write_text(token(kube, namespace, "two"))
    assert me(inside)["username"].endswith(":two")


def test_lists_follow_their_pages(kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection longer than a page comes back whole."""
    monkeypatch.setattr(client, "PAGE", 2)
    for n in range(5):
        configmap(kube, namespace, f"a{n}")
    found = kube.list(paths.configmaps(namespace))
    assert {each["metadata"]["name"] for each in found} >= {f"a{n}" for n in range(5)}
    assert len(found) == len({each["metadata"]["uid"] for each in found})


def test_our_mark_is_taken_off_and_others_stay(kube: Kube, namespace: str) -> None:
    """After the second patch nobody owns what we wrote, and the owner's next server-side apply of that field meets no conflict."""
    path = paths.configmap(namespace, "a")
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1", "y": "1"}}

    def apply() -> int:
        headers = {"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"}
        answer = kube.fetch(path, {"fieldManager": "owner"}, headers=headers, method="PATCH", body=msgspec.json.encode(applied))
        return answer.status

    assert apply() == 201
    changed = kube.patch(path, [patches.replace("/data/x", "2")])
    assert "deployguard" in {entry["manager"] for entry in changed["metadata"]["managedFields"]}
    with pytest.raises(Conflict, match="deployguard"):
        apply()
    cleaned = kube.patch(path, patches.without_manager(changed))
    assert {entry["manager"] for entry in cleaned["metadata"]["managedFields"]} == {"owner"}
    assert patches.without_manager(cleaned) == []
    with pytest.raises(FailedPrecondition):
        kube.patch(path, patches.without_manager(changed))
    assert (apply(), kube.get(path)["data"]) == (200, {"x": "1", "y": "1"})


def test_writes_without_their_condition_are_never_sent(kube: Kube, namespace: str) -> None:
    """A replacement without a resourceVersion, or with 0, and a deletion without a uid, or that leaves orphans, are mistakes of ours."""
    made = configmap(kube, namespace)
    path = paths.configmap(namespace, "a")
    for version in (None, "", "0"):
        with pytest.raises(Bug):
            kube.replace(path, made | {"metadata": made["metadata"] | {"resourceVersion": version}})
    with pytest.raises(Bug):
        kube.delete(path, uid="")
    with pytest.raises(Bug):
        kube.delete(path, uid=made["metadata"]["uid"], propagation="Orphan")
    kube.delete(path, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        kube.get(path)


def test_texts_come_as_they_are_and_cut_when_too_long(kube: Kube, namespace: str) -> None:
    """What is not JSON is fetched as bytes, at most as many as asked for; the server's own refusals are errors all the same."""
    whole = kube.fetch("/readyz", {"verbose": "1"})
    assert (whole.status, whole.complete) == (200, True)
    assert b"readyz check passed" in whole.body
    cut = kube.fetch("/metrics", limit=1000)
    assert (len(cut.body), cut.complete) == (1000, False)
    with pytest.raises(NotFound, match=f"could not reach pods/none:8080/proxy in {namespace}"):
        kube.fetch(paths.pod_proxy(namespace, "none", 8080, "/metrics"))


def test_many_threads_share_one_client(kube: Kube, namespace: str) -> None:
    """Thirty-two threads ask and write at once, and each gets its own answer."""

    def one(n: int) -> bool:
        configmap(kube, namespace, f"t{n}", n=str(n))
        return all(kube.get(paths.configmap(namespace, f"t{n}"))["data"] == {"n": str(n)} for _ in range(5))

    with cf.ThreadPoolExecutor(32) as pool:
        assert all(pool.map(one, range(32)))
