"""One user's request from its head to the end of its answer: who serves it, what is tried again, and what is counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from deployguard.local.balancer.heads import Request
from deployguard.local.balancer.routes import fact_of
from deployguard.local.balancer.upstream import Upstream

if TYPE_CHECKING:
    from deployguard.local.balancer.client import Client
    from deployguard.local.balancer.routes import Count, Instance

_PENDING = 65536
_SILENT = 1.0
_STALE = 1.0
_GAVE_UP = 499
_SERVER_ERROR = 500
_BAD_GATEWAY = 502
_NO_INSTANCE = 503
_TOO_LATE = 504


class Exchange:
    """Belongs to one client; has an instance from `start` until it is over."""

    __slots__ = (
        "_by_version",
        "_connecting",
        "_pieces",
        "_retried",
        "_size",
        "_tried",
        "client",
        "complete",
        "instance",
        "moved",
        "over",
        "request",
        "status",
        "tunnel",
        "upstream",
    )

    def __init__(self, client: Client, request: Request) -> None:
        self.client = client
        self.request = request
        self.complete = False  # the whole request has been read
        self.instance: Instance | None = None
        self.upstream: Upstream | None = None
        self.status = 0  # of the answer, once it has begun
        self.tunnel = False
        self.over = False
        self.moved = 0.0  # when anything went to or came from the instance last
        self._by_version: Count | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._tried: tuple[str, ...] = ()
        self._retried = False

    # The request.

    def add(self, body: bytes) -> None:
        """More of the request's body is to be sent on."""
        if self.over:
            return
        self._size += len(body)
        if self.request.chunked:
            self._pieces += (b"%x\r\n" % len(body), body, b"\r\n")
        else:
            self._pieces.append(body)

    def end(self) -> None:
        """The request has been read to its end."""
        self.complete = True
        if self.request.chunked:
            self._pieces.append(b"0\r\n\r\n")

    def start(self) -> None:
        """An instance has it, or the client has been told that there is none."""
        instance = self.client.door.choose(None)
        if instance is None:
            self.over = True
            self.client.refuse(_NO_INSTANCE, "no-instance", "no instance is available", keep=self._keeps())
            return
        self._assign(instance, fresh=False)

    def flush(self) -> None:
        """What has been read of the request is on its way to the instance."""
        if self._pieces and self.upstream is not None:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self.touch()
            self.upstream.transport.write(data)

    def blocked(self) -> bool:
        """True while no more of the request can be taken."""
        return self._size > _PENDING if self.upstream is None else self.upstream.full

    def touch(self) -> None:
        """Something moved between the balancer and the instance."""
        self.moved = self.client.loop.time()

    # The instance.

    def _assign(self, instance: Instance, *, fresh: bool) -> None:
        self.instance = instance
        self._by_version = instance.by_version
        instance.in_flight += 1
        self.touch()
        if not fresh:
            # A server may close a connection it has kept for a while just as the next request comes. A request that must not be sent
            # twice would then be lost, so it takes a connection that was used a moment ago, or a new one.
            safe = self.request.idempotent and not self.request.body
            upstream = instance.spare(0.0 if safe else self.moved - _STALE)
            if upstream is not None:
                self._attach(upstream)
                return
        self._connecting = self.client.loop.create_task(self._connect(instance))

    async def _connect(self, instance: Instance) -> None:
        try:
            _, upstream = await self.client.loop.create_connection(lambda: Upstream(instance), instance.host, instance.port)
        except (OSError, UnicodeError) as error:
            self._connecting = None
            if not self.over:
                self._refused(instance, error)
            return
        self._connecting = None
        if self.over:
            upstream.close()
        elif upstream.closed:
            self.lost(upstream, None)
        else:
            self._attach(upstream)

    def _attach(self, upstream: Upstream) -> None:
        upstream.serve(self)
        self.upstream = upstream
        if self.client.full:
            upstream.transport.pause_reading()
        self._pieces.insert(0, self.request.head)
        self.flush()
        self.client.update_reading()

    def _refused(self, instance: Instance, error: Exception) -> None:
        """Nothing has been sent yet: another instance of the same arm may answer."""
        text = f"could not connect: {fact_of(error)}"
        if self.request.idempotent and self._again(instance, (*self._tried, instance.uid)):
            instance.complain(text)
            return
        self.failed(text)

    def _again(self, instance: Instance, tried: tuple[str, ...], same: Instance | None = None) -> bool:
        """True when an instance of the same arm has the request now: `same` if it still is routed."""
        self._tried = tried
        other = same if same is not None and same.routed else self.client.door.choose(instance.arm, tried)
        if other is None:
            return False
        self._release()
        self._assign(other, fresh=same is not None)
        return True

    def lost(self, upstream: Upstream, error: Exception | None) -> None:
        """The connection ended before the answer did."""
        self.upstream = None
        if self.over:
            return
        if self.tunnel:
            self._finish()
            self.client.close()
            return
        instance, request = upstream.instance, self.request
        stale = upstream.used and not upstream.heard
        if stale and not self._retried and request.idempotent and not request.body:
            self._retried = True
            if self._again(instance, self._tried, same=instance):
                return
        self.failed(f"it closed the connection: {fact_of(error)}" if error else "it closed the connection")

    # The answer.

    def answered(self, keep: bool) -> None:
        """The whole answer is on its way to the client."""
        self._count(failed=self.status >= _SERVER_ERROR)
        self._finish()
        self.client.answered(self, keep)

    def failed(self, text: str, status: int = _BAD_GATEWAY) -> None:
        """The instance failed the request, and the client has been told or cut off."""
        assert self.instance is not None
        self.instance.complain(f"{self.request.line}: {text}")
        begun, name = self.status != 0, str(self.instance)
        self._count(failed=True)
        self._finish()
        if begun:
            self.client.cut()
        else:
            tag = "timeout" if status == _TOO_LATE else "instance-failed"
            self.client.refuse(status, tag, f"{name} failed the request: {text}", keep=self._keeps())

    def client_gone(self) -> None:
        """The client does not want the answer any more; a silent instance is the reason for it."""
        if self.over:
            return
        if self.status:
            if not self.tunnel:
                self._count(failed=self.status >= _SERVER_ERROR)
        elif self._waited() >= _SILENT:
            assert self.instance is not None
            self.instance.complain(f"{self.request.line}: the client gave up waiting ({_GAVE_UP})")
            self._count(failed=True)
        self._finish()

    def abandon(self) -> None:
        """The request is broken in itself: no instance is to blame, and none works for it any more."""
        self._finish()

    def _waited(self) -> float:
        """For how long the instance has owed the next move."""
        owes = self.complete or self.blocked()
        return self.client.loop.time() - self.moved if owes and self.instance is not None else 0.0

    def check(self, now: float, response_timeout: float, idle_timeout: float) -> None:
        """An exchange that has not moved for too long is over, and whoever kept it from moving has failed."""
        if self.over or self.tunnel or self.instance is None:
            return
        still = now - self.moved
        if not self.status:
            if self.complete or self.blocked():
                if still >= response_timeout:
                    self.failed(f"no answer within {response_timeout:g} s", _TOO_LATE)
            elif still >= idle_timeout:
                self._finish()
                self.client.refuse(408, "timeout", "the request's body did not come", keep=False)
        elif still >= idle_timeout:
            if self.client.full or not self.complete:
                self.client.drop()
            else:
                self.failed(f"its answer stopped for {idle_timeout:g} s")

    # Tunnels.

    def switched(self, rest: bytes) -> None:
        """From now on everything passes as it is, both ways."""
        self.tunnel = True
        self._count(failed=False)
        if rest:
            self.client.send(rest)
        self.client.tunnelled(self)

    def instance_ended(self) -> bool:
        """The instance says no more through the tunnel; True while the client may still speak."""
        return self.client.end_writing()

    # The end.

    def _keeps(self) -> bool:
        return self.request.keep and self.complete

    def _count(self, *, failed: bool) -> None:
        assert self.instance is not None
        assert self._by_version is not None
        for count in (self.instance.count, self._by_version):
            count.requests += 1
            count.failed += failed

    def _release(self) -> None:
        instance, self.instance = self.instance, None
        if instance is not None:
            self.client.door.release(instance)

    def _finish(self) -> None:
        """No instance works for this exchange any more."""
        self.over = True
        self._pieces.clear()
        task, self._connecting = self._connecting, None
        if task is not None:
            task.cancel()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.close()
        self._release()
