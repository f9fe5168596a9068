"""A tiny HTTP service for the tests of the local fleet; what is wrong with it stands in its release and its configuration.

`flaws.json` beside this file and the configuration are JSON objects, the second has the last word:
`name` (said by `/`), `exit` (ends with this code before it listens), `unready` (`/ready` answers 503), `deaf` (does not
read its configuration again when signalled), `fragile` (dies of that signal), `child` (starts a process of its own and never ends it).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class State:
    """What the service has loaded."""

    def __init__(self) -> None:
        self.flaws: dict[str, object] = {}
        self.digest = ""
        self.load()

    def load(self) -> None:
        data = Path(os.environ["DEPLOYGUARD_CONFIG"]).read_bytes()
        self.digest = "sha256:" + hashlib.sha256(data).hexdigest()
        flaws = Path(os.environ["DEPLOYGUARD_RELEASE"]) / "flaws.json"
        self.flaws = {**json.loads(flaws.read_text()), **(json.loads(data) if data else {})}

    def reload(self) -> None:
        if self.flaws.get("fragile"):
            os._exit(3)
        if not self.flaws.get("deaf"):
            self.load()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def main() -> None:
    state = State()
    sys.stderr.write("starting\n")
    if "exit" in state.flaws:
        sys.stderr.write("cannot go on: the flaw says so\n")
        sys.exit(int(str(state.flaws["exit"])))
    if state.flaws.get("child"):
        subprocess.Popen(["sleep", "1000"])
    signal.signal(signal.SIGHUP, lambda *_: state.reload())
    # An orderly end leaves running requests to the kernel, as many services do: only draining saves them.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            status, said = 200, {"name": state.flaws.get("name"), "instance": os.environ["DEPLOYGUARD_INSTANCE"], "pid": os.getpid()}
            if url.path == "/ready":
                status = 503 if state.flaws.get("unready") else 200
            elif url.path == "/version":
                said = {"config": state.digest.removeprefix("sha256:"), "release": {"digests": [os.environ["DEPLOYGUARD_RELEASE_DIGEST"]]}}
            elif url.path == "/slow":
                folder = Path(parse_qs(url.query)["in"][0])
                (folder / f"started-{os.environ['DEPLOYGUARD_INSTANCE']}").touch()
                while not (folder / "go").exists():
                    time.sleep(0.02)
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    Server((os.environ["DEPLOYGUARD_HOST"], int(os.environ["DEPLOYGUARD_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
