"""One walk through a journey: what is sent, where it goes, what is green, what is red and what is said of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.model.base import encode
from deployguard.model.reading import Run
from deployguard.signals.http import Response
from deployguard.signals.journey import Expectation, Job, Journey, Stride
from deployguard.signals.jsonpath import find, parse_path, same
from deployguard.signals.walk import fault, walk
from tests.contracts.shop import Shop, stride


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


def go(base: str, *steps: Stride, path: str = "all", timeout: float = 5.0) -> Run | None:
    """One walk in this process."""
    return walk(Journey(steps, 1.0, timeout), path, base)


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
