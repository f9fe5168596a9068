"""A real service for the probe's tests: a login, redirects, odd pages, and a memory of the requests it got."""

from __future__ import annotations

import http.cookies
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from deployguard.signals.journey import Stride

WAIT = 30.0
_MOVED = {"/loop": "/loop", "/away": "http://elsewhere.invalid/", "/canonical": "https://shop.example/home"}


class Shop:
    """A service with a login, redirects, odd pages, and a memory of the requests it got."""

    def __init__(self, host: str = "127.0.0.1") -> None:
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

        self._server = Server((host, 0), Handler)
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
        elif path == "/absolute":
            handler.say(302, Location=f"http://{handler.headers['Host']}/account")
        elif path == "/page":
            handler.say(200, '<html><body><a href="/login">Sign in</a></body></html>', Content_Type="text/html; charset=utf-8")
        elif path in _MOVED:
            handler.say(302, Location=_MOVED[path])
        else:
            handler.say(self.status, "Sign in")

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def stride(url: str, method: str = "GET", **more: Any) -> Stride:
    return Stride(method, url, **more)
