"""Announcements to a web address, signed so that the receiver can tell ours from anybody's.

The address itself may be a secret (chat services put the key into the path), so no message and no log names more of it
than scheme and host.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployguard import clock
from deployguard.announce.body import body_bytes
from deployguard.errors import UserError, WorldError
from deployguard.model.rollout import Entry

if TYPE_CHECKING:
    import ssl


def signature(secret: str, timestamp: str, data: bytes) -> str:
    """`sha256=<hex>`: the HMAC-SHA256 of `timestamp.body` under the secret. A receiver also refuses old timestamps."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + data, hashlib.sha256).hexdigest()


class ToWebhook:
    """Announces with a POST. `X-Deployguard-Id` is equal for every attempt; timestamp and signature are new each time."""

    def __init__(self, url: str, secret: str = "", timeout: float = 5.0) -> None:
        self.url = url
        self.timeout = timeout
        try:
            parts = urlsplit(url)
            self.name = f"webhook {parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")
        except ValueError as error:
            raise UserError(f"could not set up a webhook of the guard: its address is not a URL ({error})") from error
        self._secret = secret
        self._trust: ssl.SSLContext | None = None

    def announce(self, entry: Entry) -> None:
        """The receiver has answered with a 2xx status. Anything else is a `WorldError`; redirects are not followed."""
        import httpx

        # httpx logs every request with its whole address.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        if self._trust is None:
            # Reading the certificates takes longer than an announcement; connections are not kept, they would be stale.
            self._trust = httpx.create_ssl_context()
        data = body_bytes(entry)
        timestamp = str(int(clock.now().timestamp()))
        headers = {"Content-Type": "application/json", "X-Deployguard-Id": entry.id, "X-Deployguard-Timestamp": timestamp}
        if self._secret:
            headers["X-Deployguard-Signature"] = signature(self._secret, timestamp, data)
        try:
            with (
                httpx.Client(verify=self._trust, timeout=self.timeout, follow_redirects=False) as client,
                # Streamed, because only the status matters and the rest of the answer may be of any length.
                client.stream("POST", self.url, content=data, headers=headers) as answer,
            ):
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fact = str(error) or type(error).__name__
            raise WorldError(
                f"could not announce {entry.id} to {self.name}: {fact}", hint="look at the address and whether it can be reached from here"
            ) from error
        if not 200 <= status < 300:
            raise WorldError(
                f"could not announce {entry.id} to {self.name}: it answered {status}",
                hint="only a 2xx answer counts as delivered; the announcement is tried again with the same id",
            )
