"""What passes through the balancer: heads, bodies, streams and tunnels, between raw sockets."""

from __future__ import annotations

import socket
import threading

import psutil

from deployguard.local.balancer import protocol as p
from tests.contracts.balancer.conftest import GET, MEGABYTE, OK, Backend, Rig, Wire, eventually, running, steady


def test_connections_are_kept_and_heads_are_rewritten(rig: Rig) -> None:
    """Ten requests use one connection on each side; hop-by-hop headers stay behind, and the instance learns who asked for what."""
    (backend,) = rig.serve()
    client = rig.client()
    hops = b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n"
    asked = b"GET /a?b=c HTTP/1.1\r\nHost: shop:1\r\n" + hops + b"X-Forwarded-For: 9.9.9.9\r\n\r\n"
    assert all(client.answer(asked) == OK for _ in range(10))
    assert backend.connections == 1
    lines = backend.heads[-1].split(b"\r\n")
    assert lines[0] == b"GET /a?b=c HTTP/1.1"
    assert {b"Host: shop:1", b"X-Forwarded-For: 9.9.9.9, 127.0.0.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: shop:1"} == {
        *lines[1:-2]
    }
    assert rig.counts().versions == {"sha256:stable": p.Tally(10, 0)}


def test_requests_go_to_the_least_busy_in_turn(rig: Rig) -> None:
    """Equal instances take turns, and one that works on a request gets no other while another one is free."""
    wait = threading.Event()

    def slow(wire: Wire, backend: Backend) -> None:
        while True:
            backend.heads.append(wire.head())
            assert b" /slow " not in backend.heads[-1] or wait.wait(20)
            wire.send(OK)

    one, two = rig.serve(slow, slow)
    client, busy = rig.client(), rig.client()
    for _ in range(4):
        client.answer()
    assert len(one.heads) == len(two.heads) == 2
    busy.send(GET.replace(b"/ ", b"/slow "))
    eventually(lambda: len(one.heads) + len(two.heads) == 5)
    for _ in range(4):
        client.answer()
    assert sorted((len(one.heads), len(two.heads))) == [3, 6]
    wait.set()
    assert busy.head()


def test_each_listener_serves_its_arm_alone() -> None:
    """The candidate's listener reaches candidates only, has none of its own to offer before, and IPv6 works on both sides."""
    with running({"all": "[::1]:0", "stable": "127.0.0.1:0", "candidate": "127.0.0.1:0"}) as rig:
        stable = rig.backend(arm="stable", family=socket.AF_INET6)
        candidate = rig.backend(steady(OK.replace(b"ok", b"ca")), arm="candidate")
        rig.route(stable)
        missing = rig.client("candidate").answer()
        assert b" 503 " in missing
        assert b"X-Deployguard: no-instance" in missing
        rig.route(stable, candidate)
        assert rig.client("candidate").answer()[-2:] == b"ca"
        assert rig.client("stable").answer()[-2:] == b"ok"
        assert {rig.client("all").answer()[-2:] for _ in range(2)} == {b"ok", b"ca"}
        assert (rig.of(stable), rig.of(candidate)) == ((2, 0), (2, 0))


def test_chunks_pass_both_ways_as_they_come(rig: Rig) -> None:
    """A chunk reaches the other side before the next one has been sent, and an HTTP/1.0 client gets the body without chunks."""

    def echo(wire: Wire, backend: Backend) -> None:
        backend.heads.append(wire.head())
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(wire.until(b"\r\n"), 16):
            wire.send(b"%x\r\n%b\r\n" % (size, wire.take(size + 2)[:-2]))
        wire.send(b"0\r\n\r\n")

    rig.serve(echo, echo)
    client = rig.client()
    client.send(b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in client.head()
    for word in (b"one", b"three"):
        client.send(b"%x\r\n%b\r\n" % (len(word), word))
        assert client.until(b"\r\n" + word + b"\r\n") == b"%x\r\n%b\r\n" % (len(word), word)
    client.send(b"0\r\n\r\n")
    assert client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    rig.serve(steady(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
    old = rig.client()
    old.send(b"GET / HTTP/1.0\r\n\r\n")
    assert old.all().endswith(b"Connection: close\r\n\r\nok")


def test_a_hundred_megabytes_pass_with_flat_memory(rig: Rig) -> None:
    """Neither a long upload nor a long download is ever held as a whole."""

    def heavy(wire: Wire, backend: Backend) -> None:
        wire.head()
        for _ in range(100):
            wire.take(MEGABYTE)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MEGABYTE))
        for _ in range(100):
            wire.send(bytes(MEGABYTE))

    rig.serve(heavy)
    client, memory = rig.client(), psutil.Process(rig.process.pid).memory_info
    before = most = memory().rss
    client.send(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % (100 * MEGABYTE))
    for _ in range(100):
        client.send(bytes(MEGABYTE))
        most = max(most, memory().rss)
    client.head()
    for _ in range(100):
        client.take(MEGABYTE)
        most = max(most, memory().rss)
    assert most - before < 20 * MEGABYTE


def test_a_client_that_does_not_read_stops_the_instance(rig: Rig) -> None:
    """What a slow client has not taken is not fetched from the instance, and flows again when it is."""
    stalled, sent = threading.Event(), [0]

    def endless(wire: Wire, backend: Backend) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MEGABYTE))
        wire.sock.settimeout(0.5)
        while sent[0] < 200 * MEGABYTE:
            try:
                sent[0] += wire.sock.send(bytes(MEGABYTE))
            except TimeoutError:
                stalled.set()

    rig.serve(endless)
    client = rig.client()
    client.send(GET)
    assert stalled.wait(20)
    before = sent[0]
    assert before < 50 * MEGABYTE
    client.take(before)
    eventually(lambda: sent[0] > before)


def test_answers_without_a_body_end_at_their_head(rig: Rig) -> None:
    """After HEAD, 204 and 304 the same connections serve on, whatever length the head gives."""
    (backend,) = rig.serve(steady(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"))
    client = rig.client()
    for _ in range(3):
        client.send(GET.replace(b"GET", b"HEAD"))
        assert b"Content-Length: 999" in client.head()
    assert backend.connections == 1
    for status in (b"204 No Content", b"304 Not Modified"):
        (backend,) = rig.serve(steady(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n"))
        assert isinstance(rig.hear(), p.DrainedEvent)
        for _ in range(3):
            client.send(GET)
            assert client.head().startswith(b"HTTP/1.1 " + status)
        assert backend.connections == 1
    assert not client.rest


def test_a_client_may_wait_for_100_continue(rig: Rig) -> None:
    """The instance's interim answer reaches the client before the body is sent."""

    def careful(wire: Wire, backend: Backend) -> None:
        assert b"Expect: 100-continue" in wire.head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + wire.take(5))

    rig.serve(careful)
    client = rig.client()
    client.send(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.answer(b"hello").endswith(b"hello")


def test_an_upgrade_becomes_a_tunnel(rig: Rig) -> None:
    """After 101 all bytes pass both ways, an end in one direction leaves the other open, and a draining instance waits for the end."""

    def switch(wire: Wire, backend: Backend) -> None:
        wire.head()
        wire.send(OK)
        assert b"Upgrade: websocket" in wire.head()
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        wire.send(b"all of it: " + wire.all())

    (backend,) = rig.serve(switch)
    client = rig.client()
    # A plain request comes first on the same connection, and the bytes for the tunnel come with the offer.
    client.send(GET + b"GET / HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x00\xff early")
    assert client.answer(b"") == OK
    assert client.head().startswith(b"HTTP/1.1 101 ")
    assert client.take(5) == b"hello"
    rig.route()
    client.send(b" and late")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.all() == b"all of it: \x00\xff early and late"
    assert rig.hear() == p.DrainedEvent(backend.uid)
    assert rig.of(backend) == (2, 0)


def test_an_offer_that_is_not_taken_leaves_http_as_it_is(rig: Rig) -> None:
    """HTTP/2 is never offered on, even with a body, and after a declined offer the next request is read."""

    def plain(wire: Wire, backend: Backend) -> None:
        while True:
            backend.heads.append(wire.head())
            body = wire.take(3) if b"Content-Length: 3" in backend.heads[-1] else b"non"
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body)

    (backend,) = rig.serve(plain)
    client = rig.client()
    offer = b"Host: shop\r\nConnection: Upgrade\r\nUpgrade: "
    assert client.answer(b"POST / HTTP/1.1\r\n" + offer + b"h2c\r\nContent-Length: 3\r\n\r\nabc").endswith(b"abc")
    assert b"Upgrade" not in backend.heads[-1]
    assert client.answer(b"GET / HTTP/1.1\r\n" + offer + b"websocket\r\n\r\n" + GET).endswith(b"non")
    assert client.answer(b"").endswith(b"non")
    assert client.answer().endswith(b"non")


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    """Requests that come at once are sent on one after the other, and a broken one after them is refused last."""

    def mirror(wire: Wire, backend: Backend) -> None:
        while True:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + wire.head()[5:8])

    rig.serve(mirror, mirror)
    client = rig.client()
    client.send(b"".join(b"GET /%03d HTTP/1.1\r\nHost: shop\r\n\r\n" % i for i in range(300)) + b"nonsense\r\n\r\n")
    assert [client.answer(b"")[-3:] for _ in range(300)] == [b"%03d" % i for i in range(300)]
    assert client.head().startswith(b"HTTP/1.1 400 ")


def test_a_conversation_may_come_byte_by_byte(rig: Rig) -> None:
    """Where the network cuts the bytes changes nothing, for the client's as for the instance's."""

    def crumbs(wire: Wire, backend: Backend) -> None:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            head = wire.head()
            body = b""
            while b"chunked" in head and (size := int(wire.until(b"\r\n"), 16)):
                body += wire.take(size + 2)[:-2]
            body = body or wire.take(3 if b"Content-Length: 3" in head else 0)
            assert b"chunked" not in head or wire.take(2) == b"\r\n"
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body:
                wire.send(bytes([byte]))

    (backend,) = rig.serve(crumbs)
    client = rig.client()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    offer = b"POST /1 HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\none"
    chunks = b"1;x=y\r\nt\r\n2\r\nwo\r\n0\r\nTrail: er\r\n\r\n"
    for byte in offer + b"POST /2 HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks:
        client.send(bytes([byte]))
    assert [client.answer(b"")[-3:] for _ in range(2)] == [b"one", b"two"]
    assert backend.connections == 1


def test_an_upload_refused_half_way_has_its_answer(rig: Rig) -> None:
    """An instance may answer and close before it has read the body: that is its answer, not a failure."""

    def refuse(wire: Wire, backend: Backend) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    (backend,) = rig.serve(refuse)
    client = rig.client()
    client.send(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % (8 * MEGABYTE) + bytes(8 * MEGABYTE))
    assert client.head().startswith(b"HTTP/1.1 413 ")
    assert client.all() == b"no"
    assert rig.of(backend) == (1, 0)


def test_no_request_is_lost_while_the_routes_change(rig: Rig) -> None:
    """Every request gets its answer from someone, and the counts are exactly what was sent."""
    backends = [rig.backend() for _ in range(3)]
    rig.route(*backends)
    wrong: list[bytes] = []

    def ask() -> None:
        client = rig.client()
        for i in range(100):
            answer = client.answer(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n" if i % 2 else GET)
            if answer != OK:
                wrong.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    turns = 0
    while any(thread.is_alive() for thread in threads):
        out = backends[turns % 3]
        rig.write(p.line_of(p.RouteCommand(0, tuple(one.route for one in backends if one is not out))))
        while rig.hear() != p.DrainedEvent(out.uid):
            pass
        rig.write(p.line_of(p.RouteCommand(0, tuple(one.route for one in backends))))
        assert rig.hear() == p.RoutedEvent(0)
        turns += 1
    assert not wrong
    counts = rig.counts()
    assert counts.versions == {"sha256:stable": p.Tally(400, 0)}
    assert all(one.in_flight == 0 for one in counts.instances.values())


def test_old_clients_and_proxy_requests_are_understood(rig: Rig) -> None:
    """HTTP/1.0 with keep-alive stays open, and a request that names its host in the target is sent on as any other."""
    (backend,) = rig.serve()
    client = rig.client()
    for _ in range(2):
        assert b"Connection: keep-alive" in client.answer(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    client.answer(b"GET http://shop:1/a?b=c HTTP/1.1\r\nHost: other\r\n\r\n")
    assert backend.heads[-1].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: shop:1\r\n")
    assert backend.connections == 1
