"""What the people who run the shop can see from inside: health, counters, and whether the boss can sign in."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from deployguard.model.target import TargetView
from deployguard.signals.exposition import parse_page

BOSS = "boss"
ORDINARY = "ada"
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Inside:
    """One look at every instance, and two people who try to sign in."""

    healthy: int
    counted: int
    errors: int
    boss: bool
    ordinary: bool

    def green(self, instances: int) -> bool:
        """Whether nothing that is measured inside is wrong."""
        return self.healthy == instances and self.errors == 0


def look(view: TargetView, url: str) -> Inside:
    """What health checks, counters and two sign-ins say now. An instance that does not answer is not healthy."""
    healthy = counted = errors = 0
    for instance in view.instances:
        healthy += _ask(instance.address, "GET", "/healthz")[0] == 200
        page = _ask(instance.address, "GET", "/metrics")[2]
        requests = parse_page(page, "http_requests_total")
        for series, value in zip(requests.series, requests.values, strict=True):
            counted += int(value)
            errors += int(value) if series.labels.get("code", "").startswith("5") else 0
    return Inside(healthy, counted, errors, _signs_in(url, BOSS), _signs_in(url, ORDINARY))


def _signs_in(url: str, user: str) -> bool:
    """Whether this user can sign in and sees the account."""
    status, headers, _ = _ask(url, "POST", "/login", urlencode({"user": user, "password": "open-sesame"}))
    cookie = headers.get("set-cookie", "").partition(";")[0]
    if status != 303 or not cookie:
        return False
    status, _, body = _ask(url, "GET", "/account", cookie=cookie)
    return status == 200 and f"Hello {user}".encode() in body


def _ask(url: str, method: str, path: str, form: str | None = None, cookie: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; status 0 when there was no answer."""
    place = urlsplit(url if "://" in url else f"http://{url}")
    connection = http.client.HTTPConnection(place.hostname or "127.0.0.1", place.port, timeout=_TIMEOUT_S)
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
    try:
        connection.request(method, path, form, headers | ({"Cookie": cookie} if cookie else {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, {}, b""
    finally:
        connection.close()
