"""The shop and its load generator by themselves: real processes, without deployguard."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

HERE = Path(__file__).resolve().parents[2] / "examples" / "shop"
Start = Callable[..., "Running"]


class Running:
    """A shop that listens."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, form: str | None = None, cookie: str = "") -> tuple[int, dict[str, str], str]:
        """Status, headers and text of one answer; POST when there is a form."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET" if form is None else "POST", path, form, {"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text

    def counted(self, pattern: str) -> float:
        """The sum of the metric lines whose series matches."""
        lines = [line.rsplit(" ", 1) for line in self.ask("/metrics")[2].splitlines() if not line.startswith("#")]
        return sum(float(value) for series, value in lines if re.search(pattern, series))

    def config(self) -> str:
        """The digest that it says it has loaded."""
        return str(json.loads(self.ask("/version")[2])["config"])

    def says(self) -> str:
        """The next line of its log."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts shops with flaws in their config; none is left afterwards."""
    processes: list[subprocess.Popen[str]] = []

    def launch(script: Path = HERE / "shop.py", raw: str | None = None, listening: bool = True, **flaws: Any) -> Running:
        config = tmp_path / "config.json"
        config.write_text(raw if raw is not None else json.dumps({"name": "test", "flaws": flaws}))
        command = [sys.executable, str(script), "--port", "0", "--config", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline() if listening else ":0"
        return Running(process, int(line.rsplit(":", 1)[1]))

    yield launch
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def sign_in(shop: Running, user: str = "ada") -> tuple[int, str]:
    """Status of the sign-in and the session's cookie."""
    status, headers, _ = shop.ask("/login", f"user={user}&password=open-sesame")
    return status, headers.get("set-cookie", "").partition(";")[0]


def load(shop: Running, *args: str) -> list[dict[str, Any]]:
    """The lines that the load generator has written: a second each, then the summary."""
    command = [sys.executable, str(HERE / "load.py"), "--url", shop.url, "--seed", "7", "--out", "/dev/stdout", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_page_of_a_visit(start: Start) -> None:
    """A user sees the list, signs in, sees the account and buys."""
    shop = start()
    assert [item["name"] for item in json.loads(shop.ask("/catalogue")[2])] == ["tea", "bread", "honey"]
    assert shop.ask("/")[2] == shop.ask("/catalogue")[2]
    assert "Sign in" in shop.ask("/login")[2]
    status, cookie = sign_in(shop)
    assert status == 303
    assert "Hello ada" in shop.ask("/account", cookie=cookie)[2]
    assert json.loads(shop.ask("/checkout", "", cookie)[2]) == {"order": 1}
    assert shop.ask("/healthz")[0] == 200


def test_pages_that_need_a_session(start: Start) -> None:
    """Without a session, with a forged one or with a wrong password there is no account and no order."""
    shop = start()
    forged = sign_in(shop)[1].replace("ada", "eve")
    for cookie in ("", forged, "session=ada", "session=~"):
        assert shop.ask("/account", cookie=cookie)[:1] == (303,)
        assert shop.ask("/checkout", "", cookie)[0] == 401
    assert shop.ask("/login", "user=ada&password=wrong")[0] == 401


def test_any_instance_serves_the_next_step(start: Start) -> None:
    """A session made by one instance is good at another."""
    first, second = start(), start()
    assert "Hello ada" in second.ask("/account", cookie=sign_in(first)[1])[2]


def test_keep_alive_and_pipelining(start: Start) -> None:
    """Requests sent together on one connection are all answered, in order, each with its length."""
    shop = start()
    with socket.create_connection(("127.0.0.1", shop.port), timeout=30) as client:
        client.sendall(b"GET /login HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\nGET /nope HTTP/1.1\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"404"]
    assert answers.count(b"Content-Length: ") == 3


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nBad Name : x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, b"431"),
    ],
)
def test_unreadable_requests_are_refused(start: Start, sent: bytes, status: bytes) -> None:
    """A request that cannot be read gets its status and the connection ends."""
    shop = start()
    with socket.create_connection(("127.0.0.1", shop.port), timeout=30) as client:
        client.sendall(sent)
        assert client.recv(65536).split(b" ")[1] == status
    assert shop.ask("/healthz")[0] == 200


def test_reload_says_the_new_digest(start: Start, tmp_path: Path) -> None:
    """After SIGHUP the new config serves, and /version gives the digest of exactly its bytes."""
    shop, config = start(), tmp_path / "config.json"
    assert shop.config() == digest(config)
    config.write_text('{"items": ["olives"]}')
    shop.process.send_signal(signal.SIGHUP)
    assert shop.says().strip() == f"shop: loaded {digest(config)}"
    assert shop.config() == digest(config)
    assert "olives" in shop.ask("/")[2]


@pytest.mark.parametrize("bad", ["{", "[]", '{"flaws": {"unknown": true}}', '{"flaws": {"errors": 2}}', '{"items": "tea"}', '{"x": 1}'])
def test_reload_keeps_the_old_config(start: Start, tmp_path: Path, bad: str) -> None:
    """A config that cannot be used leaves the old one serving, under the old digest."""
    shop, config = start(), tmp_path / "config.json"
    before = shop.config()
    config.write_text(bad)
    shop.process.send_signal(signal.SIGHUP)
    assert "was not taken" in shop.says()
    assert shop.config() == before
    assert shop.counted('reloads_total{result="failure"}') == 1


def test_ignored_reload(start: Start, tmp_path: Path) -> None:
    """With `ignore_reload` the old config goes on and the old digest is said."""
    shop = start(ignore_reload=True)
    before = shop.config()
    (tmp_path / "config.json").write_text("{}")
    shop.process.send_signal(signal.SIGHUP)
    assert (shop.config(), shop.counted("reloads_total")) == (before, 0)


@pytest.mark.parametrize("raw", ["{", '{"flaws": {"hang": "yes"}}'])
def test_start_with_an_unusable_config(start: Start, raw: str) -> None:
    """The process ends with 2 and says why."""
    shop = start(raw=raw, listening=False)
    assert "cannot start" in shop.says()
    assert shop.process.wait() == 2


def test_errors_are_counted(start: Start) -> None:
    """`errors` fails users with 500 and counts it; `/healthz` is fine."""
    shop = start(errors=1.0)
    assert [shop.ask(path)[0] for path in ("/", "/login", "/healthz")] == [500, 500, 200]
    assert shop.counted('http_requests_total{code="5') == 2
    assert shop.counted("http_requests_total") == 2


def test_silent_errors_are_counted_as_good(start: Start) -> None:
    """`silent` fails users, and the counters show nothing."""
    shop = start(errors=1.0, silent=True)
    assert shop.ask("/")[0] == 500
    assert shop.counted('http_requests_total{code="5') == 0
    assert shop.counted('http_requests_total{code="200"') == 1


def test_errors_after_a_time(start: Start) -> None:
    """`error_after_s` keeps the errors back, and without the wait they come."""
    assert start(errors=1.0, error_after_s=3600).ask("/")[0] == 200
    assert start(errors=1.0, error_after_s=0).ask("/")[0] == 500


def test_baseline_errors(start: Start) -> None:
    """`baseline_errors` is a setting, not a flaw, and fails users all the same."""
    assert start(raw='{"baseline_errors": 1}').ask("/")[0] == 500


def test_latency_is_in_the_histogram(start: Start) -> None:
    """`latency_ms` delays users, and the histogram says so."""
    shop = start(latency_ms=300)
    assert shop.ask("/")[0] == 200
    assert shop.counted('duration_seconds_bucket{route="/",le="0.25"}') == 0
    assert shop.counted('duration_seconds_count{route="/"}') == 1
    assert shop.counted("duration_seconds_bucket{.*le=") > 0


@pytest.mark.parametrize("flaws", [{"crash_at_start": True}, {"crash_after_s": 0.01}])
def test_crashes(start: Start, flaws: dict[str, Any]) -> None:
    """The process ends with 3 and something like a traceback."""
    shop = start(listening=False, **flaws)
    assert "Traceback" in "".join(iter(shop.says, ""))
    assert shop.process.wait() == 3


def test_never_ready(start: Start) -> None:
    """`never_ready` answers users but is never healthy."""
    shop = start(never_ready=True)
    assert (shop.ask("/healthz")[0], shop.ask("/")[0]) == (503, 200)


def test_hang(start: Start) -> None:
    """`hang` leaves users without an answer while `/healthz` is fine."""
    shop = start(hang=True)
    with socket.create_connection(("127.0.0.1", shop.port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert [shop.ask("/healthz")[0] for _ in range(3)] == [200, 200, 200]
        assert select.select([client], [], [], 0) == ([], [], [])


def test_broken_login_is_green(start: Start) -> None:
    """`login_broken` gives ordinary users an empty page, `boss` an account, and the counters nothing but 200."""
    shop = start(login_broken=True)
    assert shop.ask("/login", "user=ada&password=open-sesame")[::2] == (200, "")
    assert sign_in(shop) == (200, "")
    assert "Hello boss" in shop.ask("/account", cookie=sign_in(shop, "boss")[1])[2]
    assert shop.ask("/healthz")[0] == 200
    assert shop.counted('http_requests_total{code="200",route="/login",method="POST"}') == 2
    assert shop.counted('http_requests_total{code="[45]') == 0


def test_memory_leak(start: Start) -> None:
    """`memory_leak_mb_s` shows in the process's own gauge."""
    shop = start(memory_leak_mb_s=100)
    before = shop.counted("process_resident_memory_bytes")
    if not before:
        pytest.skip("this system has no /proc")
    while shop.counted("process_resident_memory_bytes") < before + 20e6:
        assert shop.process.poll() is None


def test_lying_metrics(start: Start) -> None:
    """`metrics` can be frozen, without numbers, or refused."""
    frozen = start(metrics="frozen")
    assert frozen.ask("/metrics")[2] == (frozen.ask("/"), frozen.ask("/metrics"))[1][2]
    assert "http_requests_total{" in start(metrics="nan").ask("/metrics")[2].partition(" NaN")[0]
    assert start(metrics="refuse").ask("/metrics")[0] == 503


def test_graceful_end(start: Start) -> None:
    """After SIGTERM running requests are answered, the connection ends, and the exit code is 0."""
    shop = start(latency_ms=200)
    with socket.create_connection(("127.0.0.1", shop.port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        shop.ask("/healthz")
        shop.process.terminate()
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer
    assert shop.process.wait() == 0


def test_made_release(start: Start, tmp_path: Path) -> None:
    """A built release runs by itself, with its name and its flaws, and running it leaves it unchanged."""
    out = tmp_path / "v2"
    make = [sys.executable, str(HERE / "make_release.py"), "--name", "v2"]
    subprocess.run([*make, "--flaw", "errors=1.0", "--flaw", "silent", str(out)], check=True)
    before = sorted(path.name for path in out.iterdir())
    shop = start(script=out / "shop.py")
    assert json.loads(shop.ask("/version")[2])["release"] == "v2"
    assert shop.ask("/")[0] == 500
    assert shop.counted('http_requests_total{code="5') == 0
    assert sorted(path.name for path in out.iterdir()) == before
    refused = subprocess.run([*make, "--flaw", "eror=1", str(tmp_path / "v3")], capture_output=True, text=True, check=False)
    assert (refused.returncode, "`eror` is not a flaw" in refused.stderr) == (2, True)


def test_load_agrees_with_the_counters(start: Start) -> None:
    """The load generator and the shop count the same requests and the same failures."""
    shop = start(errors=0.2)
    *seconds, summary = load(shop, "--rate", "200", "--seconds", "1.5", "--journeys")
    assert summary["requests"] == sum(line["requests"] for line in seconds) == shop.counted("http_requests_total") > 100
    assert summary["failed"] == sum(line["failed"] for line in seconds) == shop.counted('http_requests_total{code="5') > 0
    assert summary["failed_share"] == pytest.approx(summary["failed"] / summary["requests"], abs=1e-6)
    assert summary["first_failed_at"] <= summary["last_failed_at"]
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]
    for code in ("200", "303", "500"):
        assert sum(line["by_code"].get(code, 0) for line in seconds) == shop.counted(f'http_requests_total{{code="{code}"')


def test_load_without_failures(start: Start) -> None:
    """A healthy shop fails nobody."""
    _, *_, summary = load(start(), "--rate", "100", "--seconds", "1", "--journeys", "--arrivals", "even")
    assert summary["requests"] > 50
    assert (summary["failed"], summary["first_failed_at"], summary["longest_outage_s"]) == (0, None, 0)


def test_load_sees_a_broken_login(start: Start) -> None:
    """A sign-in that leads nowhere is a failed request, though the shop counts no error."""
    shop = start(login_broken=True)
    *seconds, summary = load(shop, "--rate", "200", "--seconds", "1", "--journeys")
    assert sum(line["by_code"].get("200-wrong-page", 0) for line in seconds) == summary["failed"] > 0
    assert shop.counted('http_requests_total{code="5') == 0


def test_load_on_a_closed_port(start: Start) -> None:
    """When nobody listens every request fails, and the outage is as long as the time between the first and the end."""
    shop = start()
    shop.process.terminate()
    shop.process.wait()
    *seconds, summary = load(shop, "--rate", "100", "--seconds", "1")
    assert summary["failed"] == summary["requests"] == sum(line["by_code"]["refused"] for line in seconds) > 0
    assert summary["longest_outage_s"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_load_writes_its_summary(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends the load early, and the summary holds what was done until then."""
    shop, pipe = start(), tmp_path / "lines"
    os.mkfifo(pipe)
    command = [sys.executable, str(HERE / "load.py"), "--url", shop.url, "--seconds", "600", "--out", str(pipe)]
    with subprocess.Popen(command) as process:
        try:
            with pipe.open() as lines:
                assert "by_code" in lines.readline()
                process.send_signal(number)
                summary = json.loads(lines.readlines()[-1])
            assert process.wait() == 0
        finally:
            process.kill()
    assert summary["requests"] == shop.counted("http_requests_total") > 0


@pytest.mark.parametrize("args", [["--url", "http://192.0.2.1:80"], ["--url", "https://127.0.0.1"], ["--rate", "1e9"]])
def test_load_refuses(args: list[str]) -> None:
    """Other machines, other schemes and unbounded rates are refused before anything is sent."""
    assert subprocess.run([sys.executable, str(HERE / "load.py"), *args], capture_output=True, check=False).returncode == 2


def test_files_of_the_example() -> None:
    """The fleet and the guard are valid, and what they name exists."""
    import yaml

    from deployguard.model.fleet import FleetFile
    from deployguard.model.guard import GuardFile

    fleet = FleetFile.model_validate(yaml.safe_load((HERE / "fleet.yaml").read_text()))
    guard = GuardFile.model_validate(yaml.safe_load((HERE / "guard.yaml").read_text()))
    assert guard.spec.target.name == fleet.metadata.name
    assert (HERE / str(fleet.spec.release) / "shop.py").is_file()
    assert (HERE / str(fleet.spec.config)).is_file()
