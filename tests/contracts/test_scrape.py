"""Scrapes of real servers: whole and broken pages, servers that freeze, restart or vanish, and what one tick costs them."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Metric
from prometheus_client.exposition import start_http_server

from deployguard.model.check import ScrapeCheck
from deployguard.model.reading import Counter, Counters, Missing
from deployguard.model.target import CANDIDATE, STABLE, Instance
from deployguard.model.version import Version
from deployguard.signals.scrape import ScrapePool, ScrapeSource

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
VERSION = Version(release="sha256:aa")
CHECK = ScrapeCheck(name="errors", bad='requests_total{code=~"5.."}', total="requests_total")
FROZEN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"requests_total 1\\n"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Server:
    """A metrics page that the test writes, and what was asked of it."""

    def __init__(self, page: bytes = b"", kind: str = "text/plain; version=0.0.4", status: int = 200, **headers: str) -> None:
        self.page, self.kind, self.status, self.headers = page, kind, status, headers
        self.requests: list[dict[str, str]] = []
        self.connections: set[tuple[str, int]] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append({**self.headers, "path": self.path})
                outer.connections.add(self.client_address)
                self.send_response(outer.status)
                self.send_header("Content-Type", outer.kind)
                if outer.headers.get("length") != "no":
                    self.send_header("Content-Length", outer.headers.get("length", str(len(outer.page))))
                if "encoding" in outer.headers:
                    self.send_header("Content-Encoding", outer.headers["encoding"])
                self.end_headers()
                self.wfile.write(outer.page)
                if "length" in outer.headers:
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                """A page that is too large is not read to its end: the broken connection is nothing to report."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def instance(address: str, uid: str = "u1", *, ready: bool = True, started: dt.datetime | None = NOW) -> Instance:
    return Instance(f"id-{uid}", uid, VERSION, VERSION, ready, started=started, address=address)


def read(pool: ScrapePool, server: Server, arm: str = CANDIDATE) -> Counters | Missing:
    answer = ScrapeSource(CHECK, pool).read(arm, (instance(server.address),), None, NOW)
    assert isinstance(answer, (Counters, Missing))
    return answer


def refused_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_sums_the_series_of_each_instance(pool: ScrapePool) -> None:
    """Each instance has its own counts, summed over its matching series, with the start of its process."""
    page = b'requests_total{code="200",r="a"} 5\nrequests_total{code="200",r="b"} 6\nrequests_total{code="500"} 2\n'
    with Server(page) as one, Server(b'requests_total{code="200"} 1\n') as two:
        source = ScrapeSource(CHECK, pool)
        answer = source.read(STABLE, (instance(one.address, "a"), instance(two.address, "b")), None, NOW)
    assert answer == Counters(NOW, {"a": Counter(2, 13), "b": Counter(0, 1)}, {"a": NOW, "b": NOW})
    assert "openmetrics" in one.requests[0]["Accept"]
    assert "0.0.4" in one.requests[0]["Accept"]
    assert one.requests[0]["Accept-Encoding"] == "gzip"


def test_prometheus_client_serves_what_is_read(pool: ScrapePool) -> None:
    """The page of a real client library (OpenMetrics, gzip) reads as the counts it was given."""
    registry = CollectorRegistry()
    requests = Metric("requests", "", ["code"], registry=registry)
    requests.labels("200").inc(40)
    requests.labels("503").inc(2)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        source = ScrapeSource(CHECK, pool)
        answer = source.read(CANDIDATE, (instance(f"http://127.0.0.1:{server.server_port}"),), None, NOW)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert answer == Counters(NOW, {"u1": Counter(2, 42)}, {"u1": NOW})


def test_two_checks_share_one_request_per_tick_and_connections_are_kept(pool: ScrapePool) -> None:
    """However many checks and calls, an instance is asked once per tick, over one connection."""
    with Server(b'requests_total{code="500"} 2\nother_total 9\n') as server:
        first = ScrapeSource(CHECK, pool)
        second = ScrapeSource(ScrapeCheck(name="other", bad="absent", total="other_total"), pool)
        for tick in range(3):
            now = NOW + dt.timedelta(seconds=tick)
            answers = [s.read(CANDIDATE, (instance(server.address),), None, now) for s in (first, second, first)]
            assert [a.by_instance["u1"] for a in answers if isinstance(a, Counters)] == [Counter(2, 2), Counter(0, 9), Counter(2, 2)]
        assert len(server.requests) == 3
        assert len(server.connections) == 1


def test_checks_with_different_paths_read_different_pages(pool: ScrapePool) -> None:
    """The path belongs to the check."""
    with Server(b"requests_total 2\n") as server:
        sources = [ScrapeSource(CHECK, pool), ScrapeSource(CHECK.model_copy(update={"path": "/other?x=1"}), pool)]
        for source in sources:
            source.read(CANDIDATE, (instance(server.address),), None, NOW)
        assert [r["path"] for r in server.requests] == ["/metrics", "/other?x=1"]


def test_a_kept_connection_that_the_server_closed_is_opened_anew(pool: ScrapePool) -> None:
    """A server that restarts on its port between two ticks is read without a failure; its new uid is a new instance."""
    source = ScrapeSource(CHECK, pool)
    with Server(b"requests_total 90\n", length="17") as server:  # it closes after each answer, without saying so
        for tick, uid in enumerate(("before", "after")):
            now = NOW + dt.timedelta(seconds=tick)
            server.page = f"requests_total {9 - tick}0".encode() + b"\n"
            answer = source.read(CANDIDATE, (instance(server.address, uid, started=now),), None, now)
            assert answer == Counters(now, {uid: Counter(0, 90 - 10 * tick)}, {uid: now})
        assert len(server.requests) == 2


def test_a_frozen_server_costs_one_timeout_and_does_not_delay_its_neighbours() -> None:
    """A stopped process is a timeout of its own instance; the other instance of the arm is read at once."""
    pool = ScrapePool(timeout=2)
    process = subprocess.Popen([sys.executable, "-c", FROZEN], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        address = f"127.0.0.1:{process.stdout.readline().strip()}"
        with Server(b"requests_total 3\n") as server:
            source = ScrapeSource(CHECK, pool)
            arm = (instance(address, "frozen"), instance(server.address, "well"))
            answer = source.read(STABLE, arm, None, NOW)
            assert isinstance(answer, Counters)
            assert answer.unread == ()
            os.kill(process.pid, signal.SIGSTOP)
            later = NOW + dt.timedelta(seconds=1)
            answer = source.read(STABLE, arm, None, later)
            assert answer == Counters(later, {"well": Counter(0, 3)}, {"well": NOW}, ("frozen",))
            alone = source.read(CANDIDATE, arm[:1], None, later)
            assert alone == Missing("timeout", "0 of 1 instances read; id-frozen: no whole answer within 2 s")
    finally:
        pool.close()
        process.kill()
        process.communicate()


def test_a_server_that_sends_byte_by_byte_is_a_timeout() -> None:
    """The timeout is for the whole page: progress does not extend it."""
    pool, stop = ScrapePool(timeout=0.4), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not stop.wait(0.02):
                    try:
                        connection.sendall(b"#")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            where = f"127.0.0.1:{listener.getsockname()[1]}"
            answer = ScrapeSource(CHECK, pool).read(CANDIDATE, (instance(where),), None, NOW)
        finally:
            stop.set()
            thread.join()
            pool.close()
    assert isinstance(answer, Missing)
    assert answer.reason == "timeout"


def test_nobody_listening_is_refused(pool: ScrapePool) -> None:
    """A closed port is told apart from silence, with how many of how many were read."""
    source = ScrapeSource(CHECK, pool)
    answer = source.read(CANDIDATE, (instance(refused_address(), "a"), instance(refused_address(), "b")), None, NOW)
    assert answer == Missing("refused", "0 of 2 instances read; id-a: connection refused")


@pytest.mark.parametrize(
    ("page", "extra", "reason", "detail"),
    [
        (b"requests_total 5\n", {"status": 404}, "error", "answered 404"),
        (b"requests_total x\n", {}, "error", "cannot read the metrics line `requests_total x`"),
        (b"\xff\x00garbage\n", {}, "no_series", "no series matches `requests_total`"),
        (b"", {}, "no_series", "no series"),
        (b"requests_total NaN\n", {}, "nan", "nan"),
        (b"requests_total 5\nrequests_total{code='x'} -1\n".replace(b"'", b'"'), {}, "nan", "-1"),
        (b"requests_total +Inf\n", {}, "nan", "inf"),
        (b"requests_total 5\n", {"length": "999"}, "error", "in the middle"),
        (b"requests_total 5", {"length": "no"}, "error", "in the middle of a line"),
        (b"requests_total 5\n", {"kind": "application/openmetrics-text"}, "error", "# EOF"),
        (b"not gzip", {"encoding": "gzip"}, "error", "gzip"),
        (gzip.compress(b"requests_total 5\n" * 99)[:-12], {"encoding": "gzip"}, "error", "cut off"),
        (b"requests_total 5\n", {"encoding": "br"}, "error", "`br`"),
        (b"#" * (16 * 1024 * 1024 + 1), {}, "error", "larger than 16 MB"),
        (gzip.compress(bytes(17 * 1024 * 1024)), {"encoding": "gzip"}, "error", "larger than 16 MB"),
    ],
)
def test_an_unusable_page_is_missing_with_its_reason(
    pool: ScrapePool, page: bytes, extra: dict[str, object], reason: str, detail: str
) -> None:
    """Whatever is wrong with a page, the answer says what; no number is made up."""
    with Server(page, **extra) as server:  # type: ignore[arg-type]
        answer = read(pool, server)
    assert isinstance(answer, Missing)
    assert answer.reason == reason
    assert detail in answer.detail


def test_what_is_not_http_is_an_error(pool: ScrapePool) -> None:
    """A port that speaks something else gives a reason and no exception."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_oddly() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.7\r\n")

        thread = threading.Thread(target=answer_oddly)
        thread.start()
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        answer = ScrapeSource(CHECK, pool).read(CANDIDATE, (instance(where),), None, NOW)
        thread.join()
    assert isinstance(answer, Missing)
    assert (answer.reason, "not HTTP" in answer.detail) == ("error", True)


def test_a_page_without_length_is_read_until_the_connection_closes(pool: ScrapePool) -> None:
    """An answer that ends with the connection is whole when its last line is."""
    with Server(b"requests_total 5\n", length="no") as server:
        assert read(pool, server) == Counters(NOW, {"u1": Counter(0, 5)}, {"u1": NOW})


def test_a_page_of_ten_megabytes_is_read(pool: ScrapePool) -> None:
    """A large page is no failure, wherever the wanted line stands."""
    filler = b"".join(b'noise_total{path="/item/%d",requests_total="1"} %d\n' % (n, n) for n in range(200_000))
    with Server(filler + b'requests_total{code="500"} 5\n') as server:
        assert len(filler) > 9_000_000
        assert read(pool, server) == Counters(NOW, {"u1": Counter(5, 5)}, {"u1": NOW})


def test_more_bad_than_total_is_clipped(pool: ScrapePool) -> None:
    """Bad requests are never more than all requests."""
    check = ScrapeCheck(name="errors", bad="errors_total", total="requests_total")
    with Server(b"requests_total 5\nerrors_total 7\n") as server:
        answer = ScrapeSource(check, pool).read(CANDIDATE, (instance(server.address),), None, NOW)
    assert answer == Counters(NOW, {"u1": Counter(5, 5)}, {"u1": NOW})


def test_without_a_started_instance_there_is_nothing_to_read(pool: ScrapePool) -> None:
    """Instances that have not started are not asked; an arm of such only is `no_instance`."""
    source = ScrapeSource(CHECK, pool)
    for arm in ((), (instance("127.0.0.1:1", started=None),)):
        answer = source.read(STABLE, arm, None, NOW)
        assert isinstance(answer, Missing)
        assert answer.reason == "no_instance"


@pytest.mark.parametrize("address", ["", "http://10.0.0.1", "kube://shop/web-1", "10.0.0.1"])
def test_without_a_port_nothing_is_asked(pool: ScrapePool, address: str) -> None:
    """An instance whose port nobody knows is `no_port`, with a hint, rather than asked on a guessed one."""
    answer = ScrapeSource(CHECK, pool).read(CANDIDATE, (instance(address),), None, NOW)
    assert isinstance(answer, Missing)
    assert answer.reason == "no_port"
    assert "name it with `target.port`" in answer.detail


def test_a_check_may_name_a_port_of_its_own(pool: ScrapePool) -> None:
    """The metrics page may be on another port than the target's, and each port is asked for itself."""
    with Server(b"requests_total 3\n") as pages:
        host, _, port = pages.address.partition(":")
        source = ScrapeSource(CHECK.model_copy(update={"port": int(port)}), pool)
        crew = (instance(f"http://{host}:1", "a"), instance(host, "b"))
        assert source.read(CANDIDATE, crew, None, NOW) == Counters(NOW, {"a": Counter(0, 3), "b": Counter(0, 3)}, {"a": NOW, "b": NOW})


@pytest.mark.parametrize(
    ("arm", "alive", "dead", "present"),
    [(CANDIDATE, 1, 3, True), (STABLE, 1, 3, False), (STABLE, 2, 2, True), (CANDIDATE, 0, 2, False)],
)
def test_how_many_instances_speak_for_an_arm(pool: ScrapePool, arm: str, alive: int, dead: int, present: bool) -> None:
    """One instance speaks for the candidate, at least half of the ready ones for stable; those not read are named."""
    with ExitStack() as stack:
        well = [instance(stack.enter_context(Server(b"requests_total 1\n")).address, f"w{n}") for n in range(alive)]
        ill = [instance(refused_address(), f"d{n}") for n in range(dead)]
        answer = ScrapeSource(CHECK, pool).read(arm, (*well, *ill), None, NOW)
    if present:
        assert isinstance(answer, Counters)
        assert (len(answer.by_instance), answer.unread) == (alive, tuple(one.uid for one in ill))
    else:
        assert answer == Missing("refused", f"{alive} of {alive + dead} instances read; id-d0: connection refused")


def test_an_instance_that_is_not_ready_does_not_count_against_stable(pool: ScrapePool) -> None:
    """A stable arm whose other instances are just starting is present."""
    with Server(b"requests_total 1\n") as server:
        arm = (instance(server.address, "a"), *(instance(refused_address(), f"s{n}", ready=False) for n in range(3)))
        answer = ScrapeSource(CHECK, pool).read(STABLE, arm, None, NOW)
    assert isinstance(answer, Counters)
    assert answer.by_instance == {"a": Counter(0, 1)}


def test_frozen_instances_of_both_arms_cost_one_timeout_together() -> None:
    """From the second tick on, all instances of the last tick are asked at once, whichever arm is read first."""
    pool = ScrapePool(timeout=0.5)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        arms = {arm: (instance(f"127.0.0.1:{sock.getsockname()[1]}", arm),) for arm, sock in ((STABLE, one), (CANDIDATE, two))}
        source = ScrapeSource(CHECK, pool)
        for arm, instances in arms.items():
            source.read(arm, instances, None, NOW)
        later = NOW + dt.timedelta(seconds=1)
        first = source.read(STABLE, arms[STABLE], None, later)
        two.close()  # nobody could answer any more: what comes for the candidate was learnt with the first read
        second = source.read(CANDIDATE, arms[CANDIDATE], None, later)
    pool.close()
    assert isinstance(first, Missing)
    assert isinstance(second, Missing)
    assert (first.reason, second.reason) == ("timeout", "timeout")
