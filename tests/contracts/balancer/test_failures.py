"""What the balancer does when instances, clients or the supervisor go wrong, and what it counts then."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from deployguard.local.balancer import protocol as p
from tests.contracts.balancer.conftest import GET, OK, Backend, Rig, Wire, eventually, running, steady

POST = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi"
SMUGGLED = {
    "both lengths": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "signed length": b"Content-Length: +3\r\n\r\nabc",
    "listed length": b"Content-Length: 3, 3\r\n\r\nabc",
    "unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "nested encoding": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "control byte": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "null byte": b"X: a\x00b\r\n\r\n",
    "bare line feed": b"X: a\nContent-Length: 3\r\n\r\nabc",
    "bare carriage return": b"X: a\rContent-Length: 3\r\n\r\nabc",
    "folded line": b"X: a\r\n Content-Length: 3\r\n\r\nabc",
    "two hosts": b"Host: other\r\n\r\n",
    "bad host": b"X: a\r\nHost: a b\r\n\r\n",
    "bad chunk size": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
    "chunk longer than said": b"Transfer-Encoding: chunked\r\n\r\n2\r\nhiya\r\n0\r\n\r\n",
    "chunk line feed": b"Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_two_servers_could_read_in_two_ways_is_refused(rig: Rig, name: str) -> None:
    """The client gets 400 and its connection ends; nothing is counted against the instance."""
    (backend,) = rig.serve(lambda wire, _: wire.all() and None)
    client = rig.client()
    client.send(b"POST / HTTP/1.1\r\nHost: shop\r\n" + SMUGGLED[name])
    answer = client.all()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert rig.of(backend) == (0, 0)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: shop\r\nX: " + b"x" * 70000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\nHost: shop\r\n\r\n", b"505"),
        (b"CONNECT shop:443 HTTP/1.1\r\nHost: shop\r\n\r\n", b"501"),
        (b"GET /#here HTTP/1.1\r\nHost: shop\r\n\r\n", b"400"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    ],
)
def test_requests_that_cannot_be_sent_on_are_refused(rig: Rig, sent: bytes, status: bytes) -> None:
    """Too long a head, no host, another version, a tunnel to elsewhere: each has its own status."""
    rig.serve()
    client = rig.client()
    client.send(sent)
    assert client.all().startswith(b"HTTP/1.1 " + status)


def test_a_removed_instance_finishes_what_it_has(rig: Rig) -> None:
    """Its running request is answered while new ones go elsewhere; then, and once, it is drained. An unused one is drained at once."""
    go = threading.Event()

    def slow(wire: Wire, backend: Backend) -> None:
        backend.heads.append(wire.head())
        assert go.wait(20)
        wire.send(OK)

    old, unused, new = rig.backend(slow), rig.backend(), rig.backend(steady(OK.replace(b"ok", b"ne")))
    rig.route(old)
    waiting = rig.client()
    waiting.send(GET)
    eventually(lambda: len(old.heads) == 1)
    rig.route(old, unused)
    rig.route(new)
    assert rig.hear() == p.DrainedEvent(unused.uid)
    assert rig.client().answer()[-2:] == b"ne"
    assert rig.counts().instances[old.uid].in_flight == 1
    go.set()
    assert waiting.head().startswith(b"HTTP/1.1 200 ")
    assert rig.hear() == p.DrainedEvent(old.uid)
    assert (rig.of(old), rig.of(new)) == ((1, 0), (1, 0))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 2",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_an_instance_that_does_not_begin_an_answer_has_failed(rig: Rig, said: bytes) -> None:
    """Whatever it says instead of an answer, the client gets 502, once, and may go on; 5xx of its own count the same."""

    def broken(wire: Wire, backend: Backend) -> None:
        backend.heads.append(wire.head())
        wire.send(said)

    (backend,) = rig.serve(broken)
    client = rig.client()
    answer = client.answer(POST)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"X-Deployguard: instance-failed" in answer
    assert len(backend.heads) == 1
    (other,) = rig.serve(steady(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))
    assert client.answer().startswith(b"HTTP/1.1 503 Busy")
    rig.hear()
    assert (rig.of(backend), rig.of(other)) == ((1, 1), (1, 1))
    assert rig.counts().versions == {"sha256:stable": p.Tally(2, 2)}


def test_a_refused_connection_is_tried_elsewhere_in_the_same_arm(rig: Rig) -> None:
    """Safe requests are answered by another instance and counted there; others fail where they were sent. Arms are never mixed."""
    dead, live, candidate = rig.backend(), rig.backend(), rig.backend(arm="candidate")
    dead.close()
    rig.route(dead, live)
    client = rig.client()
    assert all(client.answer() == OK for _ in range(4))
    assert (rig.of(dead), rig.of(live)) == ((0, 0), (4, 0))
    assert sorted(client.answer(POST)[9:12] for _ in range(2)) == [b"200", b"502"]
    assert rig.of(dead) == (1, 1)
    rig.route(dead, candidate)
    rig.hear()
    assert sorted(client.answer()[9:12] for _ in range(2)) == [b"200", b"502"]
    assert (rig.of(dead), rig.of(candidate)) == ((2, 2), (1, 0))


def test_a_connection_that_died_unseen_is_replaced(rig: Rig) -> None:
    """A safe request on a kept connection that ends without a word is sent once more; one with a body is not."""

    def once(wire: Wire, backend: Backend) -> None:
        backend.heads.append(wire.head())
        wire.take(2 if b"POST" in backend.heads[-1] else 0)
        wire.send(OK)
        backend.heads.append(wire.head())

    (backend,) = rig.serve(once)
    client = rig.client()
    assert all(client.answer() == OK for _ in range(3))
    assert rig.of(backend) == (3, 0)
    assert client.answer(POST).startswith(b"HTTP/1.1 502 ")
    assert rig.of(backend) == (4, 1)


@pytest.mark.parametrize(
    ("begun", "cut"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"half"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"4\r\nhalf\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", b"4\r\nhalf\r\n"),
    ],
)
def test_an_answer_cut_off_in_the_middle_has_failed(rig: Rig, begun: bytes, cut: bytes) -> None:
    """The client sees that it is not whole, and the instance is counted as failed."""
    (backend,) = rig.serve(lambda wire, _: (wire.head(), wire.send(begun))[1])
    client = rig.client()
    client.send(GET)
    client.head()
    assert client.all() == cut
    assert rig.of(backend) == (1, 1)


def test_an_answer_without_a_length_ends_with_its_connection(rig: Rig) -> None:
    """Its end is passed on as the end of the chunks, and nothing has failed."""
    (backend,) = rig.serve(lambda wire, _: (wire.head(), wire.send(b"HTTP/1.0 200 OK\r\n\r\nwhole"))[1])
    client = rig.client()
    client.send(GET)
    assert client.until(b"0\r\n\r\n").endswith(b"\r\n\r\n5\r\nwhole\r\n0\r\n\r\n")
    assert rig.of(backend) == (1, 0)


def test_words_after_an_answer_never_reach_the_next_client(rig: Rig) -> None:
    """A connection on which an instance says more than was asked is not used again."""
    (backend,) = rig.serve(steady(OK + OK.replace(b"ok", b"no")))
    client = rig.client()
    assert all(client.answer() == OK for _ in range(3))
    assert backend.connections == 3


def test_silence_ends_in_504() -> None:
    """An instance that has not begun its answer in time has failed; a client is not kept waiting for the rest of a stalled one either."""
    with running(response_timeout=0.3, idle_timeout=0.6) as rig:
        silent, stalled = (
            rig.backend(lambda wire, _: wire.all() and None),
            rig.backend(lambda wire, _: (wire.head(), wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), wire.all())[1]),
        )
        rig.route(silent)
        assert rig.client().answer().startswith(b"HTTP/1.1 504 ")
        assert rig.of(silent) == (1, 1)
        rig.route(stalled)
        rig.hear()
        client = rig.client()
        client.send(GET)
        assert client.all().endswith(b"half")
        assert rig.of(stalled) == (1, 1)


def test_slow_clients_are_their_own_fault() -> None:
    """An idle connection is closed, half a head or half a body gets 408, and no instance is blamed."""
    with running(response_timeout=0.2, idle_timeout=0.4) as rig:
        (backend,) = rig.serve(lambda wire, _: wire.all() and None)
        idle, head, body = rig.client(), rig.client(), rig.client()
        head.send(GET[:20])
        body.send(POST[:-1])
        assert idle.all() == b""
        assert head.all().startswith(b"HTTP/1.1 408 ")
        assert body.all().startswith(b"HTTP/1.1 408 ")
        assert rig.of(backend) == (0, 0)


def test_a_client_that_gives_up_counts_only_against_silence(rig: Rig) -> None:
    """Leaving at once is the client's affair; leaving after a second of silence is a failure of the instance."""
    (backend,) = rig.serve(lambda wire, own: (own.heads.append(wire.head()), wire.all())[0])
    hasty, patient = rig.client(), rig.client()
    hasty.send(GET)
    patient.send(GET)
    eventually(lambda: len(backend.heads) == 2)
    hasty.sock.close()
    eventually(lambda: rig.counts().instances[backend.uid].in_flight == 1)
    assert rig.of(backend) == (0, 0)
    patient.sock.settimeout(1.2)
    with pytest.raises(TimeoutError):
        patient.head()
    patient.sock.close()
    eventually(lambda: rig.of(backend) == (1, 1))


def test_clients_above_the_limit_wait() -> None:
    """They are served as soon as another one leaves, and while they wait the others are asked to go after their answer."""
    with running(connections=1) as rig:
        go = threading.Event()
        (backend,) = rig.serve(lambda wire, own: (own.heads.append(wire.head()), go.wait(20), wire.send(OK))[2])
        first = rig.client()
        first.send(GET)
        eventually(lambda: len(backend.heads) == 1)
        second = rig.client()
        second.send(GET)
        second.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.head()
        assert len(backend.heads) == 1
        go.set()
        assert b"Connection: close" in first.all()
        second.sock.settimeout(20)
        assert second.head().startswith(b"HTTP/1.1 200 ")


def test_an_address_in_use_is_said_and_ends_it(rig: Rig) -> None:
    """The supervisor is told which address could not be had, and the process ends with 1."""
    assert isinstance(rig.first, p.ListeningEvent)
    taken = rig.first.listeners["all"]
    with running({"all": taken}) as other:
        assert other.first == p.FailedEvent(f"could not listen on {taken}: address already in use")
        assert other.process.wait(20) == 1


def test_a_line_that_cannot_be_understood_ends_it(rig: Rig) -> None:
    """Going on with routes that may be wrong would be worse than a fresh start."""
    rig.write(b'{"op":"route","n":1}\n')
    assert isinstance(rig.hear(), p.FailedEvent)
    assert rig.process.wait(20) == 1


@pytest.mark.parametrize("way", ["the end of stdin", "the end of stdout", "SIGTERM"])
def test_it_ends_when_told_or_left_alone(rig: Rig, way: str) -> None:
    """SIGINT is for the supervisor and ignored; the end of either pipe and SIGTERM close every connection and end it with 0."""
    rig.serve()
    client = rig.client()
    rig.process.send_signal(signal.SIGINT)
    assert client.answer() == OK
    if way == "SIGTERM":
        rig.process.terminate()
    elif way == "the end of stdout":
        assert rig.process.stdout is not None
        rig.process.stdout.close()
        rig.process.stdout = None
    else:
        assert rig.process.stdin is not None
        rig.process.stdin.close()
        rig.process.stdin = None
    assert rig.process.wait(20) == 0
    with pytest.raises((EOFError, ConnectionError)):
        client.answer()
    with pytest.raises(ConnectionRefusedError):
        rig.client()


def test_counts_follow_the_version_that_answered(rig: Rig) -> None:
    """A process that has loaded another version keeps its own count; each version has the requests that it answered."""
    (backend,) = rig.serve()
    client = rig.client()
    client.answer()
    backend.route = p.Route(backend.route.id, backend.uid, backend.route.address, "candidate", "sha256:new")
    rig.route(backend)
    client.answer()
    client.answer()
    assert rig.counts().versions == {"sha256:stable": p.Tally(1, 0), "sha256:new": p.Tally(2, 0)}
    assert rig.counts().instances == {backend.uid: p.InstanceTally(3, 0, "candidate", "sha256:new", 0)}
    assert backend.connections == 1


def test_a_flood_of_pipelined_requests_is_refused(rig: Rig) -> None:
    """What is read ahead of the answers is bounded."""
    (backend,) = rig.serve()
    client = rig.client()
    client.send(GET * 4000)
    answers = client.all()
    assert answers.endswith(b"too many requests were sent at once\n")
    assert answers.count(OK) == len(backend.heads) == rig.of(backend)[0] < 4000


def test_it_starts_without_the_heavy_libraries() -> None:
    """Neither pydantic nor a client library is imported: a dead balancer is replaced within a moment."""
    code = "import sys, deployguard.local.balancer.process; print({'pydantic', 'httpx', 'kubernetes', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


def test_a_real_server_is_served() -> None:
    """Python's own file server, which closes after each answer, works like any other."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", "/dev"]
    with running() as rig, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split(b" port ")[1].split()[0])
            rig.n += 1
            rig.write(p.line_of(p.RouteCommand(rig.n, (p.Route("1", "1-a", f"127.0.0.1:{port}", "stable", "v"),))))
            assert rig.hear() == p.RoutedEvent(rig.n)
            client = rig.client()
            assert all(client.answer(GET.replace(b"/ ", b"/nothing ")).startswith(b"HTTP/1.1 404 ") for _ in range(3))
            assert rig.counts().versions == {"v": p.Tally(3, 0)}
        finally:
            server.kill()
