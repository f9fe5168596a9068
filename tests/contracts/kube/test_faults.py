"""The client before servers that are silent, busy, in trouble or not there: what is repeated, what never is, and what is said."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deployguard.errors import UserError
from deployguard.kube import config, patches, paths
from deployguard.kube.client import Kube, connect
from deployguard.kube.errors import Gone, KubeError, Throttled, Unauthorized, Unreachable
from deployguard.kube.patience import patiently
from tests.contracts.kube.kubeconfigs import kubeconfig

POD = paths.pod("shop", "a")
Answer = tuple[int, dict[str, str], bytes]
FINE: Answer = (200, {}, b'{"kind":"Pod"}')


def status(code: int, reason: str = "", **headers: str) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "so it is", "reason": reason, "code": code}
    return code, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()


@dataclass
class Server:
    """A web server that gives the answers of `script` in turn, then `FINE`, and keeps what it was asked."""

    url: str = ""
    script: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free port, ended after the test."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append(f"{self.command} {self.path}")
            state.tokens.append(self.headers.get("Authorization", ""))
            code, headers, body = state.script.pop(0) if state.script else FINE
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Say nothing."""

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    state.url = f"http://127.0.0.1:{web.server_port}"
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    yield state
    web.shutdown()
    web.server_close()


def to(url: str, folder: Path, timeout: float = 30.0, **user: Any) -> Kube:
    return connect(kubeconfig=kubeconfig(folder / "kubeconfig", {"server": url}, user), timeout=timeout)


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> Kube:
    """A client of the server."""
    return to(server.url, tmp_path)


@pytest.fixture
def silent() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes connections and never answers, with those it took."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                taken.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for each in taken:
        each.close()


def test_reads_wait_as_long_as_a_busy_server_asks(server: Server, kube: Kube) -> None:
    """A 429 is repeated after the pause that it names; so are troubles of the server, and both only for reads."""
    server.script = [status(429, Retry_After="1"), status(503), status(500), status(502)]
    assert kube.get(POD) == {"kind": "Pod"}
    assert server.asked == [f"GET {POD}"] * 5


def test_a_pause_beyond_the_timeout_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    """A server that asks for more patience than there is gives an error at once, which says how long it asked for."""
    server.script = [status(429, Retry_After="600")]
    with pytest.raises(Throttled, match="could not read pods/a in shop: the API server has too much to do") as caught:
        to(server.url, tmp_path).get(POD)
    assert (caught.value.retry_after, len(server.asked)) == (600.0, 1)


def test_what_a_write_repeats(server: Server, kube: Kube) -> None:
    """Patches and replacements are repeated when the server was too busy to look at them; nothing else is, and creations never."""
    patch = [patches.test("/metadata/labels/f", "1")]
    server.script = [status(429)]
    assert kube.patch(POD, patch) == {"kind": "Pod"}
    server.script = [status(429)]
    assert kube.replace(POD, {"metadata": {"resourceVersion": "7"}}) == {"kind": "Pod"}
    asked = len(server.asked)
    for number, write in enumerate(
        [
            lambda: kube.create(paths.pods("shop"), {}),
            lambda: kube.delete(POD, uid="u"),
        ]
    ):
        server.script = [status(429)]
        with pytest.raises(Throttled):
            write()
        assert len(server.asked) == asked + number + 1
    for write in (lambda: kube.patch(POD, patch), lambda: kube.create(paths.pods("shop"), {}), lambda: kube.delete(POD, uid="u")):
        asked, server.script = len(server.asked), [status(503)]
        with pytest.raises(KubeError, match="so it is") as caught:
            write()
        assert (len(server.asked), caught.value.uncertain) == (asked + 1, True)


def test_a_silent_server_is_given_up_in_time(silent: tuple[str, list[socket.socket]], tmp_path: Path) -> None:
    """A server that takes the request and never answers ends in an error; a write, sent once, may have been carried out."""
    url, taken = silent
    kube = to(url, tmp_path, 0.5)
    with pytest.raises(Unreachable, match=f"no answer from {url} .timed out") as read:
        kube.get(POD)
    before = len(taken)
    with pytest.raises(Unreachable) as written:
        kube.create(paths.pods("shop"), {})
    assert (read.value.uncertain, written.value.uncertain, len(taken) - before) == (False, True, 1)


def test_a_server_that_drips_is_given_up_in_time(tmp_path: Path) -> None:
    """A body that comes byte by byte for ever does not outlast the timeout, though no single wait does."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.05):
            try:
                connection.sendall(b" ")
            except OSError:
                return

    threading.Thread(target=drip, daemon=True).start()
    try:
        with pytest.raises(Unreachable, match="timed out"):
            to(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path, 1.0).fetch("/metrics")
    finally:
        over.set()
        listener.close()


def test_nobody_there_names_the_address_and_the_context(tmp_path: Path) -> None:
    """A refused connection names the server, the context and the file it comes from; nothing can have been carried out."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"could not create pods in shop: no answer from {url} .Connection refused") as caught:
        to(url, tmp_path).create(paths.pods("shop"), {})
    assert (caught.value.uncertain, "context test of" in caught.value.hint, str(tmp_path) in caught.value.hint) == (False, True, True)
    with pytest.raises(Unreachable, match="its name cannot be resolved"):
        to("https://no-such-host.invalid:6443", tmp_path, 2.0).get(POD)


def test_a_list_that_the_server_forgot_begins_anew(server: Server, kube: Kube) -> None:
    """A page that answers 410 starts the list again, once; a second 410 is the caller's."""

    def page(name: str, more: str = "") -> Answer:
        return 200, {}, json.dumps({"metadata": {"continue": more}, "items": [{"metadata": {"name": name}}]}).encode()

    server.script = [page("old", "c1"), status(410, "Expired"), page("a", "c2"), page("b")]
    assert [each["metadata"]["name"] for each in kube.list(paths.pods("shop"))] == ["a", "b"]
    server.script = [status(410, "Expired"), status(410, "Expired")]
    with pytest.raises(Gone):
        kube.list(paths.pods("shop"))
    server.script = [(200, {}, b'{"items":null}')]
    assert kube.list(paths.pods("shop")) == []


def test_what_is_no_api_server_is_said_to_be_none(server: Server, kube: Kube) -> None:
    """A login page, or anything else that is not JSON, is no answer; an error page is quoted."""
    server.script = [(200, {}, b"<html>Sign in</html>")]
    with pytest.raises(Unreachable, match="the answer is not JSON"):
        kube.get(POD)
    server.script = [(200, {}, b"[]")]
    with pytest.raises(Unreachable, match="not an object"):
        kube.get(POD)
    server.script = [(400, {}, b"<html>Bad Gateway</html>")]
    with pytest.raises(KubeError, match=r"Bad Gateway.*\(400\)"):
        kube.get(POD)


def test_answers_of_a_pod_are_not_the_servers_own(server: Server, kube: Kube) -> None:
    """What a pod answers comes as it is, errors and all, asked once; what the API server says of it is an error."""
    server.script = [(503, {"X-From": "pod"}, b"warming up")]
    found = kube.fetch(paths.pod_proxy("shop", "a", 8080, "/metrics"))
    assert (found.status, found.headers["x-from"], found.body) == (503, "pod", b"warming up")
    server.script = [status(503, "ServiceUnavailable")]
    with pytest.raises(KubeError, match="could not reach pods/a:8080/proxy in shop"):
        kube.fetch(paths.pod_proxy("shop", "a", 8080, "/metrics"))


def test_a_refused_token_is_read_anew_once(server: Server, tmp_path: Path) -> None:
    """A 401 makes the token file be read again; the request, of whatever kind, is repeated only with another token."""
    file = tmp_path / "token"
    file.write_text("old")
    kube = to(server.url, tmp_path, tokenFile="token")

    def refuse_and_rotate() -> Answer:
        file.write_text("new")
        return status(401, "Unauthorized")

    class Rotating(list[Answer]):
        def pop(self, at: Any = -1) -> Answer:
            super().pop(at)
            return refuse_and_rotate()

    server.script = Rotating([FINE])
    assert kube.create(paths.pods("shop"), {}) == {"kind": "Pod"}
    assert server.tokens == ["Bearer old", "Bearer new"]
    server.script = [status(401, "Unauthorized")]
    with pytest.raises(Unauthorized) as caught:
        kube.create(paths.pods("shop"), {})
    assert (len(server.tokens), str(file) in caught.value.hint) == (3, True)


def test_every_kind_of_token_is_sent(server: Server, tmp_path: Path) -> None:
    """A token, a user name with a password, and a token of the providers of old each become the header that the server expects."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 4102444800}).encode()).decode().rstrip("=")
    identity = f"e30.{claims}.c2ln"
    users: list[dict[str, Any]] = [
        {"token": "t"},
        {"username": "u", "password": "p"},
        {"auth-provider": {"name": "oidc", "config": {"id-token": identity}}},
        {},
    ]
    for user in users:
        to(server.url, tmp_path, **user).get(POD)
    assert server.tokens == ["Bearer t", "Basic dTpw", f"Bearer {identity}", ""]


def test_proxies_are_used_unless_the_host_is_exempt(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the kubeconfig or of the environment carries requests; hosts and networks of `NO_PROXY` are reached directly."""
    path = kubeconfig(tmp_path / "proxied", {"server": "http://api.example", "proxy-url": server.url}, {})
    connect(kubeconfig=path).get(POD)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    to("http://other.example", tmp_path).get(POD)
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8,.local")
    to(server.url, tmp_path).get(POD)
    assert server.asked == [f"GET http://api.example{POD}", f"GET http://other.example{POD}", f"GET {POD}"]


def test_kubeconfigs_are_merged_as_kubectl_does(tmp_path: Path) -> None:
    """The first file that names a thing counts, also for the current context; a missing file is passed over; paths are the file's own."""
    (tmp_path / "one").mkdir()
    one, two = tmp_path / "one" / "config", tmp_path / "two"
    one.write_text("current-context: ''\ncontexts: [{name: a, context: {cluster: c, user: u, namespace: shop}}]\nclusters: null\n")
    two.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: other, user: u}}, {name: b, context: {cluster: c}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://c', certificate-authority: ca.crt}}]\n"
        "users: [{name: u, user: {tokenFile: tokens/t, exec: {command: bin/login}}}]\n"
    )
    environ = {"KUBECONFIG": f"{one}:{tmp_path / 'none'}:{two}"}
    found = config.find(None, None, environ)
    assert (found.name, found.namespace, found.cluster["certificate-authority"]) == ("a", "shop", str(tmp_path / "ca.crt"))
    assert (found.user["tokenFile"], found.user["exec"]["command"]) == (str(tmp_path / "tokens/t"), str(tmp_path / "bin/login"))
    other = config.find(str(two), "b", environ)
    assert (other.name, other.namespace, other.user) == ("b", "", {})


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        (None, None, "there is no such file"),
        ("a: [", None, "it is not YAML"),
        ("[]", None, "holds no mapping"),
        ("contexts: [{name: a}]", None, "no current-context"),
        ("contexts: [{name: a}]", "b", "no such context"),
        ("contexts: [{name: a, context: {cluster: c}}]", "a", "no cluster 'c'"),
        ("contexts: [{name: a, context: {}}]", "a", "no `server`"),
        ("contexts: [1]", "a", "an entry of `contexts`"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path: Path, text: str | None, context: str | None, words: str) -> None:
    """Every mistake in a kubeconfig is an error of the user that names the file and what is wrong."""
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        connect(kubeconfig=str(path), context=context)
    assert str(path) in str(caught.value)


def test_no_cluster_at_all_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeconfig and outside a pod the error names the places and the ways."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match=r"could not find a cluster: there is no kubeconfig \(looked for .*none\)") as caught:
        connect()
    assert "--kubeconfig" in caught.value.hint


def test_what_begins_a_rollout_is_asked_for_again_while_the_server_is_busy(server: Server, kube: Kube) -> None:
    """A creation that was turned away unread comes again; one that failed otherwise does not, for it may have been carried out."""
    server.script = [status(429), status(429)]
    assert patiently(lambda: kube.create(paths.pods("shop"), {})) == {"kind": "Pod"}
    assert len(server.asked) == 3
    server.script = [status(500)]
    with pytest.raises(KubeError):
        patiently(lambda: kube.create(paths.pods("shop"), {}))
    assert len(server.asked) == 4
