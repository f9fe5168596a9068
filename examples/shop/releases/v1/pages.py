"""The shop's pages, counters, settings and flaws. Standard library only; it knows nothing of deployguard."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote

# Each flaw with what it accepts: bool, the words of a tuple, or a number up to the value given.
FLAWS: dict[str, Any] = {
    "errors": 1.0,  # this share of the users' requests is answered with 500
    "error_after_s": 1e6,  # `errors` begins this long after the flaw was loaded
    "latency_ms": 1e6,  # every user's request takes this much longer
    "crash_at_start": bool,  # exits with 3 when the flaw is loaded, at start or by a reload
    "crash_after_s": 1e6,  # the same, this long after it was loaded
    "never_ready": bool,  # /healthz says 503 for ever
    "hang": bool,  # users are never answered; /healthz is fine
    "login_broken": bool,  # everything is green, but only the account `boss` can sign in
    "memory_leak_mb_s": 100.0,  # memory is lost at this rate, up to 1 GB
    "metrics": ("frozen", "nan", "refuse"),  # the metrics page lies or is not given
    "silent": bool,  # failed requests are counted as 200
    "ignore_reload": bool,  # SIGHUP does nothing
}
SETTINGS: dict[str, Any] = {
    "name": "default",
    "items": ["tea", "bread", "honey"],
    "password": "open-sesame",
    "secret": "shared by all instances",
    "baseline_errors": 0,
    "flaws": {},
}
ROUTES = {"/": "GET", "/catalogue": "GET", "/login": "GET, POST", "/account": "GET", "/checkout": "POST"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPERATIONS = ("/healthz", "/metrics", "/version")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PAGE = "<!doctype html><title>{0}</title><h1>{0}</h1>{1}\n"
FORM = '<form method="post" action="/login"><input name="user"><input name="password" type="password"><button>Sign in</button></form>'


def check_flaws(flaws: object) -> dict[str, Any]:
    """The flaws, each known and of the right kind. Raises ValueError naming the first that is not."""
    if not isinstance(flaws, dict):
        raise ValueError("`flaws` is not an object")
    for name, value in flaws.items():
        kind = FLAWS.get(name)
        if kind is None:
            raise ValueError(f"`{name}` is not a flaw; there are {', '.join(FLAWS)}")
        if kind is bool:
            good = isinstance(value, bool)
        elif isinstance(kind, tuple):
            good = value in kind
        else:
            good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= kind
        if not good:
            wanted = "true or false" if kind is bool else f"one of {', '.join(kind)}" if isinstance(kind, tuple) else f"0 to {kind:g}"
            raise ValueError(f"flaw `{name}` is {value!r}, and must be {wanted}")
    return flaws


class Config(NamedTuple):
    """What was loaded, with the digest of exactly these bytes."""

    settings: dict[str, Any]
    flaws: dict[str, Any]
    digest: str | None

    @classmethod
    def load(cls, path: Path | None, release_flaws: dict[str, Any]) -> Config:
        """The file's config over the release's flaws. Raises OSError or ValueError when it cannot be used."""
        if path is None:
            return cls(SETTINGS, release_flaws, None)
        data = path.read_bytes()
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("the config is not a JSON object")
        for name, value in found.items():
            if name not in SETTINGS:
                raise ValueError(f"`{name}` is not a setting; there are {', '.join(SETTINGS)}")
            if name != "baseline_errors" and type(value) is not type(SETTINGS[name]):
                raise ValueError(f"setting `{name}` must be a {type(SETTINGS[name]).__name__}")
        settings = SETTINGS | found
        check_flaws({"errors": settings["baseline_errors"]})
        return cls(settings, release_flaws | check_flaws(settings["flaws"]), "sha256:" + hashlib.sha256(data).hexdigest())


class Request(NamedTuple):
    """One request, read whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep: bool


class Response(NamedTuple):
    """An answer before it is framed."""

    status: int
    body: str
    kind: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def as_json(status: int, value: object) -> Response:
    """An answer with `value` as JSON."""
    return Response(status, json.dumps(value) + "\n", "application/json")


class Metrics:
    """Counters of the users' requests. Health checks and scrapes are not users and are not counted."""

    def __init__(self) -> None:
        # Series exist from the start: a counter that appears with its first error has no zero to be compared with.
        self.requests = {(code, r, m): 0 for r, methods in ROUTES.items() for m in methods.split(", ") for code in ("200", "500")}
        self.requests[("303", "/login", "POST")] = 0
        self.buckets = {route: [0] * (len(BUCKETS) + 1) for route in ROUTES}
        self.seconds = dict.fromkeys(ROUTES, 0.0)
        self.reloads = {"success": 0, "failure": 0}
        self.started = time.time()

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request more."""
        key = (str(status), route, method if method in METHODS else "other")
        self.requests[key] = self.requests.get(key, 0) + 1
        if route not in self.buckets:
            self.buckets[route], self.seconds[route] = [0] * (len(BUCKETS) + 1), 0.0
        self.buckets[route][next((i for i, edge in enumerate(BUCKETS) if seconds <= edge), len(BUCKETS))] += 1
        self.seconds[route] += seconds

    def page(self, release: str, config: Config) -> str:
        """The counters in the Prometheus text format."""
        nan = config.flaws.get("metrics") == "nan"
        lines = ["# HELP http_requests_total Requests of users, by outcome.", "# TYPE http_requests_total counter"]

        def add(series: str, value: float) -> None:
            lines.append(f"{series} {'NaN' if nan else value}")

        for (code, route, method), count in self.requests.items():
            add(f'http_requests_total{{code="{code}",route="{route}",method="{method}"}}', count)
        lines += ["# HELP http_request_duration_seconds Time to answer.", "# TYPE http_request_duration_seconds histogram"]
        for route, counts in self.buckets.items():
            running = 0
            for edge, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                running += count
                add(f'http_request_duration_seconds_bucket{{route="{route}",le="{edge}"}}', running)
            add(f'http_request_duration_seconds_sum{{route="{route}"}}', round(self.seconds[route], 6))
            add(f'http_request_duration_seconds_count{{route="{route}"}}', running)
        lines += ["# HELP shop_config_info What is loaded.", "# TYPE shop_config_info gauge"]
        release, name = (text.translate({34: None, 92: None, 10: None}) for text in (release, config.settings["name"]))
        add(f'shop_config_info{{release="{release}",name="{name}",config="{config.digest or ""}"}}', 1)
        lines += ["# HELP shop_config_reloads_total Reloads by SIGHUP.", "# TYPE shop_config_reloads_total counter"]
        for result, count in self.reloads.items():
            add(f'shop_config_reloads_total{{result="{result}"}}', count)
        lines += ["# HELP process_start_time_seconds Start of the process.", "# TYPE process_start_time_seconds gauge"]
        add("process_start_time_seconds", round(self.started, 3))
        statm = Path("/proc/self/statm")
        if statm.exists():
            lines += ["# HELP process_resident_memory_bytes Memory in use.", "# TYPE process_resident_memory_bytes gauge"]
            add("process_resident_memory_bytes", int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        return "\n".join(lines) + "\n"


class Shop:
    """The pages. Sessions are signed cookies, so that any instance can serve the next step."""

    def __init__(self, release: str, config: Config) -> None:
        self.release, self.metrics, self.orders = release, Metrics(), 0
        self.use(config)

    def use(self, config: Config) -> None:
        """Serve with `config` from now on."""
        self.config, self.loaded_at, self.frozen = config, time.monotonic(), ""

    def operation(self, path: str) -> Response:
        """An answer for the people who run the shop."""
        flaws = self.config.flaws
        if path == "/healthz":
            return as_json(503, {"status": "starting"}) if flaws.get("never_ready") else as_json(200, {"status": "ok"})
        if path == "/version":
            return as_json(200, {"release": self.release, "config": self.config.digest})
        if flaws.get("metrics") == "refuse":
            return Response(503, "", "text/plain")
        if flaws.get("metrics") != "frozen" or not self.frozen:
            self.frozen = self.metrics.page(self.release, self.config)
        return Response(200, self.frozen, "text/plain; version=0.0.4; charset=utf-8")

    def user(self, request: Request) -> Response:
        """An answer for a user, errors by flaw included."""
        flaws, path = self.config.flaws, request.path
        share: float = self.config.settings["baseline_errors"]
        if time.monotonic() - self.loaded_at >= flaws.get("error_after_s", 0):
            share += flaws.get("errors", 0)
        if share > 0 and random.random() < share:
            return as_json(500, {"error": "internal error"})
        method = "GET" if request.method == "HEAD" else request.method
        if path not in ROUTES:
            return as_json(404, {"error": "not found"})
        if method not in ROUTES[path].split(", "):
            return Response(405, "", headers=(("Allow", ROUTES[path]),))
        if path == "/login":
            return self.sign_in(request) if method == "POST" else Response(200, PAGE.format("Sign in", FORM))
        if path in ("/account", "/checkout"):
            return self.signed_in(path, self.session(request))
        return as_json(200, [{"id": number, "name": name} for number, name in enumerate(self.config.settings["items"], 1)])

    def sign_in(self, request: Request) -> Response:
        """A session for a known user."""
        form = parse_qs(request.body.decode("latin-1"), keep_blank_values=True)
        user, password = form.get("user", [""])[0], form.get("password", [""])[0]
        if not user or not hmac.compare_digest(password.encode(), self.config.settings["password"].encode()):
            return Response(401, PAGE.format("Sign in", "<p>Wrong user or password</p>" + FORM))
        if self.config.flaws.get("login_broken") and user != "boss":
            return Response(200, "")
        cookie = f"session={quote(user, safe='')}~{self.signature(user)}; Path=/; HttpOnly; SameSite=Lax"
        return Response(303, "", headers=(("Location", "/account"), ("Set-Cookie", cookie)))

    def signed_in(self, path: str, user: str | None) -> Response:
        """A page that needs a session."""
        if path == "/checkout":
            if user is None:
                return as_json(401, {"error": "sign in first"})
            self.orders += 1
            return as_json(200, {"order": self.orders})
        if user is None:
            return Response(303, "", headers=(("Location", "/login"),))
        shown = user.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return Response(200, PAGE.format("Account", f"<p>Hello {shown}</p>"))

    def session(self, request: Request) -> str | None:
        """The user whose signed cookie came with the request."""
        for part in request.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            user, _, signature = value.rpartition("~")
            if name == "session" and hmac.compare_digest(self.signature(unquote(user)).encode(), signature.encode()):
                return unquote(user)
        return None

    def signature(self, user: str) -> str:
        return hmac.new(self.config.settings["secret"].encode(), user.encode("utf-8", "replace"), "sha256").hexdigest()
