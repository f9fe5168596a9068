"""Journeys walked by a real prober process over real sockets: what is green, what is red, and when nothing is known."""

from __future__ import annotations

import datetime as dt
import http.cookies
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deployguard import clock
from deployguard.errors import UserError
from deployguard.model.base import encode
from deployguard.model.check import ProbeCheck
from deployguard.model.reading import Missing, Run, Runs
from deployguard.signals.http import Response
from deployguard.signals.journey import Expectation, Job, Journey, Stride
from deployguard.signals.jsonpath import find, parse_path, same
from deployguard.signals.probe import ProbePool, ProbeSource
from deployguard.signals.walk import fault, walk

WAIT = 30.0


class Shop:
    """A service with a login, redirects, odd pages, and a memory of the requests it got."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], str]] = []
        self.status = 200
        self.absent = False
        self.release = threading.Event()
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                shop.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                shop.answer(self, self.path.partition("?")[0], body)

            do_POST = do_PUT = do_DELETE = do_GET

            def say(self, status: int, text: str = "", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                """A prober that is killed or gives up leaves broken connections: nothing to report."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def secure(self, cert: Path, key: Path, asked: list[str | None]) -> str:
        """From now on the shop speaks TLS and notes which names it is asked for; its base URL."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.sni_callback = lambda *hello: asked.append(hello[1])
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        return f"https://127.0.0.1:{self.port}"

    def answer(self, handler: Any, path: str, body: str) -> None:
        jar = http.cookies.SimpleCookie(handler.headers.get("Cookie", ""))
        if self.absent:
            handler.say(503, X_Deployguard="no-instance")
        elif path == "/hang":
            self.release.wait(WAIT)
            handler.say(200)
        elif path == "/drip":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000000")
            handler.end_headers()
            while not self.release.wait(0.02):
                try:
                    handler.wfile.write(b"x")
                except OSError:
                    return
        elif path == "/login" and body:
            handler.say(303, Location="/account", Set_Cookie=f"user={body.partition('=')[2]}; Path=/")
        elif path == "/account":
            user = jar.get("user")
            handler.say(200 if user else 401, f'{{"user": "{user.value}", "roles": ["buyer"]}}' if user else "who?")
        elif path == "/loop":
            handler.say(302, Location="/loop")
        elif path == "/away":
            handler.say(302, Location="http://elsewhere.invalid/")
        elif path == "/canonical":
            handler.say(301, Location="https://shop.example/home")
        else:
            handler.say(self.status, "Sign in")

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


@pytest.fixture
def pool() -> Iterator[ProbePool]:
    pool = ProbePool(restart_after=0.5)
    yield pool
    pool.close()


def check(*steps: dict[str, Any], name: str = "shop", every: float = 0.05, timeout: float = 5.0) -> ProbeCheck:
    times = {"every": dt.timedelta(seconds=every), "timeout": dt.timedelta(seconds=timeout)}
    return ProbeCheck.model_validate({"name": name, "steps": list(steps) or [{"get": "/"}], **times})


def until(ask: Callable[[], Any]) -> Any:
    """The first true answer; the test fails when none comes."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.01)
    raise AssertionError("it did not come about in time")


def look(source: ProbeSource, path: str = "all", through: dt.datetime | None = None) -> Runs | Missing:
    answer = source.read(path, (), through, clock.now())
    assert isinstance(answer, (Runs, Missing))
    return answer


def runs(source: ProbeSource, path: str = "all", through: dt.datetime | None = None) -> tuple[Run, ...]:
    answer = look(source, path, through)
    return answer.runs if isinstance(answer, Runs) else ()


def reason(source: ProbeSource, path: str = "all") -> str:
    answer = look(source, path)
    return answer.reason if isinstance(answer, Missing) else ""


def stride(url: str, method: str = "GET", **more: Any) -> Stride:
    return Stride(method, url, **more)


def go(base: str, *steps: Stride, path: str = "all", timeout: float = 5.0) -> Run | None:
    """One walk in this process."""
    return walk(Journey(steps, 1.0, timeout), path, base)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# One walk


def test_cookies_last_for_one_walk(shop: Shop) -> None:
    """A login opens the later steps of its own walk, and the next walk is a stranger again."""
    steps = (stride("/login", "POST", form={"user": "ann"}), stride("/account", expect=Expectation(contains="ann")))
    first = go(shop.url, *steps)
    assert first is not None
    assert first.ok
    second = go(shop.url, stride("/account"))
    assert second is not None
    assert (second.ok, second.step, second.detail) == (False, "1 GET /account", "expected 200 to 399, got 401")


@pytest.mark.parametrize("path", ["stable", "candidate"])
def test_an_absolute_url_is_pinned_to_the_arm_and_keeps_its_host(shop: Shop, path: str) -> None:
    """On an arm's path the connection goes to the arm; the service still sees the URL's host, and that TLS was ended."""
    run = go(shop.url, stride("https://shop.example/login?next=1"), stride("http://shop.example:81/x"), stride("/y"), path=path)
    assert run is not None
    assert run.ok
    seen = [(url, headers["host"], headers.get("x-forwarded-proto")) for url, headers, _ in shop.requests]
    assert seen == [("/login?next=1", "shop.example", "https"), ("/x", "shop.example:81", None), ("/y", f"127.0.0.1:{shop.port}", None)]


def test_cookies_of_a_pinned_host_belong_to_that_host(shop: Shop) -> None:
    """A cookie set under the URL's own name comes back under that name, although the connection went elsewhere."""
    login = stride("http://shop.example/login", "POST", form={"user": "bob"})
    run = go(shop.url, login, stride("http://shop.example/account", expect=Expectation(contains="bob")), path="candidate")
    assert run is not None
    assert run.ok


def test_as_users_come_an_absolute_url_goes_where_it_points(shop: Shop) -> None:
    """On the path `all` nothing is pinned."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    run = go(f"http://127.0.0.1:{closed}", stride(f"{shop.url}/x"))
    assert run is not None
    assert run.ok
    assert shop.requests[0][0] == "/x"


def test_redirects_are_followed_on_the_arm(shop: Shop) -> None:
    """A redirect to a host that the journey names is followed, on the pinned arm and under that host's name."""
    run = go(shop.url, stride("https://shop.example/canonical", expect=Expectation(status=200)), path="candidate")
    assert run is not None
    assert run.ok
    assert [(url, headers["host"]) for url, headers, _ in shop.requests] == [("/canonical", "shop.example"), ("/home", "shop.example")]


def test_redirects_to_strangers_are_the_answer(shop: Shop) -> None:
    """A redirect to a host that the journey does not name is not followed; its status is what came."""
    run = go(shop.url, stride("/away", expect=Expectation(status=302)))
    assert run is not None
    assert run.ok


def test_redirects_end(shop: Shop) -> None:
    """After five redirects the step is red."""
    run = go(shop.url, stride("/loop"))
    assert run is not None
    assert run.detail == "more than 5 redirects"
    assert len(shop.requests) == 6


def test_bodies_and_headers_are_sent(shop: Shop) -> None:
    """Form, JSON, text and headers reach the service as written."""
    steps = (
        stride("/a", "POST", form={"a": "1 2"}, headers={"X-One": "1"}),
        stride("/b", "PUT", json='{"a": null}'),
        stride("/c", "POST", body="plain"),
        stride("/d", "DELETE"),
    )
    run = go(shop.url, *steps)
    assert run is not None
    assert run.ok
    assert [body for _, _, body in shop.requests] == ["a=1+2", '{"a": null}', "plain", ""]
    assert shop.requests[0][1]["x-one"] == "1"
    assert shop.requests[0][1]["content-type"] == "application/x-www-form-urlencoded"
    assert shop.requests[1][1]["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_the_timeout_is_for_the_whole_step(shop: Shop, path: str) -> None:
    """Silence, and a body that comes byte by byte, are red by timeout alike."""
    run = go(shop.url, stride(path), timeout=0.3)
    assert run is not None
    assert (run.ok, run.detail) == (False, "no answer within 0.3 s")


def test_nobody_listening_is_red() -> None:
    """A closed port is a red walk: users meet it too."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    run = go(f"http://127.0.0.1:{closed}", stride("/"))
    assert run is not None
    assert (run.ok, run.detail) == (False, "connection refused")


def test_a_name_that_does_not_exist_is_red() -> None:
    """A host name without address fails as it does for users."""
    run = go("http://nowhere.invalid", stride("/"), timeout=20.0)
    assert run is not None
    assert (run.ok, run.detail) == (False, "the host name was not found")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is needed to make a certificate")
def test_a_pinned_https_url_is_verified_under_its_own_name(shop: Shop, tmp_path: Path) -> None:
    """An arm that speaks TLS is asked for the URL's name and must prove it; a certificate that nobody signed is red."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example"]
    subprocess.run([*make, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    asked: list[str | None] = []
    base = shop.secure(cert, key, asked)
    steps = (stride("https://shop.example/x"),)
    refused = go(base, *steps, path="candidate")
    assert refused is not None
    assert refused.detail.startswith("the certificate is not valid: self")
    job = encode(Job({"a": Journey(steps, 0.1, 5.0)}, {"candidate": base}))
    command = [sys.executable, "-P", "-m", "deployguard.signals.prober"]
    trusting = {**os.environ, "SSL_CERT_FILE": str(cert)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=trusting) as prober:
        assert prober.stdin is not None
        assert prober.stdout is not None
        prober.stdin.write(job + b"\n")
        prober.stdin.flush()
        walked = next(line for line in prober.stdout if b'"kind":"walked"' in line)
        prober.stdin.close()
    assert b'"ok":true' in walked, walked
    assert set(asked) == {"shop.example"}
    assert shop.requests[0][1]["host"] == "shop.example"


def test_an_arm_without_instance_is_neither_red_nor_green(shop: Shop) -> None:
    """The balancer's own mark of an empty arm makes the walk say nothing."""
    shop.absent = True
    assert go(shop.url, stride("/"), path="candidate") is None


def test_details_keep_secrets(shop: Shop) -> None:
    """What a red walk says holds no query, no user, no request body and no long piece of a response."""
    secret = stride(f"http://me:hidden@127.0.0.1:{shop.port}/account?token=hidden", "POST", form={"p": "hidden"})
    run = go(shop.url, secret)
    assert run is not None
    assert (run.step, run.detail) == ("1 POST 127.0.0.1/account", "expected 200 to 399, got 401")
    long = fault(Expectation(json={"$": 1}), Response(200, {}, b'"' + b"x" * 500 + b'"', ""), 0.0)
    assert len(long) < 130


@pytest.mark.parametrize(
    ("expect", "detail"),
    [
        (Expectation(), ""),
        (Expectation(status=201), "expected 201, got 200"),
        (Expectation(contains="Ann"), ""),
        (Expectation(contains="Bob"), "the body does not contain `Bob`"),
        (Expectation(not_contains="Ann"), "the body contains `Ann`"),
        (Expectation(within=0.1), "expected within 0.1 s, took 0.500 s"),
        (Expectation(json={"$.user": "Ann", "$.n[1].x": 2}), ""),
        (Expectation(json={"$.n[1].x": 3}), "expected $.n[1].x to be 3, found 2"),
        (Expectation(json={"$.n[7]": 3}), "expected $.n[7] to be 3, found nothing there"),
        (Expectation(json={"$.ok": 1}), "expected $.ok to be 1, found true"),
    ],
)
def test_expectations(expect: Expectation, detail: str) -> None:
    """Each expectation is met or says what was expected and what came."""
    body = b'{"user": "Ann", "n": [1, {"x": 2}], "ok": true}'
    assert fault(expect, Response(200, {}, body, body.decode()), 0.5) == detail


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_red(body: bytes) -> None:
    """A body that cannot be read as JSON fails a JSON expectation."""
    assert fault(Expectation(json={"$": 1}), Response(200, {}, body, ""), 0.0) == "the body is not JSON"


def test_json_paths() -> None:
    """Names, quoted names and indices lead to their place; anything else is refused with the piece that is wrong."""
    assert find({"a b": [1, {"c-d": None}]}, parse_path("$['a b'][-1].c-d")) == (True, None)
    assert find([1], parse_path("$.a")) == (False, None)
    assert not same([1, {"a": True}], [1, {"a": 1}])
    for text in ("a.b", "$..a", "$.a[*]", "$[?(@.x)]"):
        with pytest.raises(ValueError, match=r"JSONPath|does not parse"):
            parse_path(text)


# The prober and its pool


def test_walks_are_told_apart_by_path(shop: Shop, pool: ProbePool) -> None:
    """Each path has its own walks: a sick candidate is red on its own path and green on stable's."""
    sick = Shop()
    sick.status = 500
    try:
        source = ProbeSource(check(), pool)
        pool.paths({"stable": shop.url, "candidate": sick.url, "all": f"127.0.0.1:{shop.port}"})
        red = until(lambda: runs(source, "candidate"))
        assert {(run.ok, run.step, run.detail) for run in red} == {(False, "1 GET /", "expected 200 to 399, got 500")}
        assert all(run.ok for path in ("stable", "all") for run in until(lambda path=path: runs(source, path)))
    finally:
        pool.close()
        sick.close()


def test_only_walks_newer_than_through_are_answered(shop: Shop, pool: ProbePool) -> None:
    """A walk that was counted is not answered again, and at most 64 are kept."""
    source = ProbeSource(check(every=0.001), pool)
    pool.paths({"all": shop.url})
    first = until(lambda: runs(source))
    newer = until(lambda: runs(source, through=first[-1].at))
    assert all(run.at > first[-1].at for run in newer)
    assert list(newer) == sorted(newer, key=lambda run: run.at)
    until(lambda: len(shop.requests) > 80)
    assert len(runs(source)) <= 64


def test_the_heart_beats_while_a_step_hangs(shop: Shop, pool: ProbePool) -> None:
    """A frozen service is red by timeout; the prober itself is seen to be alive all the time."""
    source = ProbeSource(check({"get": "/hang"}, timeout=1.2), pool)
    pool.paths({"all": shop.url})
    beats = set()

    def ended() -> tuple[Run, ...]:
        answer = look(source)
        if isinstance(answer, Missing):
            assert answer.reason == "prober"  # a very busy machine; never stale
            return ()
        beats.add(answer.beat)
        return answer.runs

    assert until(ended)[0].detail == "no answer within 1.2 s"
    assert len(beats) >= 3


def test_a_killed_prober_is_missing_and_comes_back(shop: Shop, pool: ProbePool) -> None:
    """Without a prober nothing is known, which is not a red walk; later another one goes on with the same job."""
    source = ProbeSource(check(), pool)
    pool.paths({"all": shop.url})
    until(lambda: runs(source))
    first = pool.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: reason(source) == "prober")
    killed = clock.now()
    assert all(run.ok for run in until(lambda: runs(source, through=killed)))
    assert pool.pid != first
    assert gone(first)


def test_a_stopped_prober_is_missing_and_replaced(shop: Shop) -> None:
    """A prober that lives and says nothing for three seconds is as good as gone."""
    pool = ProbePool(restart_after=4.0)
    try:
        source = ProbeSource(check(), pool)
        pool.paths({"all": shop.url})
        until(lambda: runs(source))
        first = pool.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        missing = until(lambda: reason(source) and look(source))
        assert isinstance(missing, Missing)
        assert missing.reason == "prober"
        assert "no heartbeat" in missing.detail
        until(lambda: runs(source) and pool.pid != first and gone(first))
    finally:
        pool.close()


def test_paths_may_change_while_it_walks(shop: Shop, pool: ProbePool) -> None:
    """A path that goes away is `no_instance` at once; a path with a new address is walked there."""
    source = ProbeSource(check(), pool)
    pool.paths({"all": shop.url, "candidate": shop.url})
    until(lambda: runs(source, "candidate"))
    pool.paths({"all": shop.url})
    assert reason(source, "candidate") == "no_instance"
    other = Shop()
    try:
        pool.paths({"all": other.url, "candidate": other.url})
        until(lambda: other.requests and runs(source, "candidate"))
    finally:
        pool.close()
        other.close()


def test_an_arm_that_stays_empty_becomes_missing(shop: Shop, pool: ProbePool) -> None:
    """First nothing is known yet, then the arm is known to have no instance; an instance that comes is walked."""
    shop.absent = True
    source = ProbeSource(check(timeout=0.5), pool)
    pool.paths({"candidate": shop.url})
    first = look(source, "candidate")
    assert isinstance(first, Runs)
    assert first.runs == ()
    until(lambda: reason(source, "candidate") == "no_instance")
    shop.absent = False
    assert until(lambda: runs(source, "candidate"))[0].ok


def test_two_checks_share_a_prober_that_the_last_one_ends(shop: Shop, pool: ProbePool) -> None:
    """One process walks all journeys, and is gone when no source needs it."""
    one, two = ProbeSource(check(name="one"), pool), ProbeSource(check({"get": "/two"}, name="two"), pool)
    pool.paths({"all": shop.url})
    until(lambda: runs(one) and runs(two))
    pid = pool.pid
    assert pid is not None
    one.close()
    assert reason(one) == "prober"
    assert pool.pid == pid
    closed = clock.now()
    until(lambda: runs(two, through=closed))
    two.close()
    assert pool.pid is None
    assert gone(pid)


def test_without_a_path_no_process_is_started(pool: ProbePool) -> None:
    """A probe that has nowhere to go answers `no_instance` and costs nothing."""
    assert reason(ProbeSource(check(), pool)) == "no_instance"
    assert pool.pid is None


def test_the_prober_ends_with_its_guard(shop: Shop) -> None:
    """When the guard is killed, the end of standard input ends the prober, even in the middle of a hanging step."""
    program = (
        "import sys, time\n"
        "from deployguard.model.check import ProbeCheck\n"
        "from deployguard.signals.probe import ProbePool, ProbeSource\n"
        "pool = ProbePool()\n"
        "source = ProbeSource(ProbeCheck(name='a', steps=[{'get': '/hang'}], timeout='20s'), pool)\n"
        "pool.paths({'all': sys.argv[1]})\n"
        "source.read('all', (), None, None)\n"
        "print(pool.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    guard = subprocess.Popen([sys.executable, "-c", program, shop.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert guard.stdout is not None
    pid = int(guard.stdout.readline())
    until(lambda: shop.requests)
    guard.kill()
    guard.communicate()
    until(lambda: gone(pid))


def test_the_prober_speaks_json_lines_alone(shop: Shop) -> None:
    """The process by itself: a job in, beats and walks out, an odd line is passed over, and it ends with its input."""
    command = [sys.executable, "-P", "-m", "deployguard.signals.prober"]
    prober = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert prober.stdin is not None
    assert prober.stdout is not None
    job = Job({"a": Journey((stride("/"),), 0.05, 5.0)}, {"all": shop.url})
    prober.stdin.write(b"not a job\n" + encode(job) + b"\n")
    prober.stdin.flush()
    kinds = set()
    for line in prober.stdout:
        kinds.add(b"walked" if b'"kind":"walked"' in line else b"beat" if b'"kind":"beat"' in line else line)
        if len(kinds) == 2:
            break
    assert kinds == {b"walked", b"beat"}
    _, said = prober.communicate()
    assert prober.returncode == 0
    assert b"a job was not understood" in said


@pytest.mark.parametrize(
    "step",
    [{"get": "login"}, {"get": "ftp://x/"}, {"get": "/", "expect": {"json": {"a.b": 1}}}, {"get": "/", "expect": {"json": {"$.*": 1}}}],
)
def test_a_journey_that_cannot_be_walked_is_refused(pool: ProbePool, step: dict[str, Any]) -> None:
    """A URL or a JSONPath that makes no sense is the user's to correct, before anything starts."""
    with pytest.raises(UserError, match="the probe `shop` cannot"):
        ProbeSource(check(step), pool)
