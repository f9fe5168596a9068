"""The contract of the Sink port, and of the announcer that brings every entry to every sink."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from deployguard.announce.announcer import Announcer
from deployguard.announce.body import body
from deployguard.announce.build import build
from deployguard.announce.command import ToCommand
from deployguard.announce.log import ToLog
from deployguard.announce.webhook import ToWebhook
from deployguard.errors import UserError, WorldError
from deployguard.model.guard import CommandSink, LogSink, WebhookSink
from deployguard.model.rollout import Entry

NOW = dt.datetime(2026, 3, 29, 1, 30, 0, 5, tzinfo=dt.UTC)


def entry(n: int, rollout: str = "r1") -> Entry:
    return Entry(rollout, n, NOW, "shop", "transition", "rolling_back", "errors 4.9 % — limit 5 %", {"exposed": 2})


def wire(n: int, rollout: str = "r1") -> dict[str, object]:
    """What a receiver must get for `entry(n, rollout)`."""
    return {
        "id": f"{rollout}/{n}",
        "rollout": rollout,
        "n": n,
        "guard": "shop",
        "at": "2026-03-29T01:30:00.000005Z",
        "event": "transition",
        "phase": "rolling_back",
        "text": "errors 4.9 % — limit 5 %",
        "data": {"exposed": 2},
    }


@dataclass
class Receiver:
    """A web server that answers with the statuses of `script` in turn, then 200, and keeps what it was sent."""

    url: str = ""
    script: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes, int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def ids(self, status: int | None = None) -> list[str]:
        return [headers["x-deployguard-id"] for headers, _, answered in self.got if status in (None, answered)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real server on a free port, ended after the test."""
    state = Receiver()
    state.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            state.gate.wait()
            status = state.script.pop(0) if state.script else 200
            state.got.append(({key.lower(): value for key, value in self.headers.items()}, data, status))
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/hooks/s3cr3t-path?key=s3cr3t-query"
    yield state
    state.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_body_has_every_field() -> None:
    """The announcement holds the id and every field of the entry, as plain JSON values."""
    assert json.loads(json.dumps(body(entry(3)))) == wire(3)


def test_the_log_gets_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """One line per entry, in key=value form; no text can break out of it."""
    with caplog.at_level(logging.INFO, "deployguard"):
        ToLog().announce(entry(3))
        ToLog().announce(Entry("r1", 4, NOW, "shop", "overdue", "verifying", "two\nlines phase=promoted"))
    assert caplog.messages == [
        'transition guard=shop id=r1/3 phase=rolling_back text="errors 4.9 % \\u2014 limit 5 %"',
        'overdue guard=shop id=r1/4 phase=verifying text="two\\nlines phase=promoted"',
    ]


PROGRAM = """
import json, os, sys
with open(sys.argv[1], "a") as file:
    file.write(json.dumps({"in": json.load(sys.stdin), "env": dict(os.environ)}) + chr(10))
print("first" + chr(10) + "the receiver is out of paper" + chr(10), file=sys.stderr)
sys.exit(int(sys.argv[2]))
"""


def test_a_command_gets_the_announcement_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reads the JSON from its standard input, in an environment without what deployguard itself was given."""
    monkeypatch.setenv("CLUSTER_TOKEN", "s3cr3t")
    ToCommand([sys.executable, "-c", PROGRAM, str(tmp_path / "out"), "0"]).announce(entry(3))
    said = json.loads((tmp_path / "out").read_text())
    assert said["in"] == wire(3)
    assert said["env"]["DEPLOYGUARD_ID"] == "r1/3"
    assert "PATH" in said["env"]
    assert "s3cr3t" not in str(said["env"])


def test_a_command_that_fails_is_not_delivered(tmp_path: Path) -> None:
    """A status other than 0 is an error with the last line that the command wrote."""
    with pytest.raises(WorldError, match=r"r1/3 .* ended with status 7: the receiver is out of paper$"):
        ToCommand([sys.executable, "-c", PROGRAM, str(tmp_path / "out"), "7"]).announce(entry(3))


def test_a_command_that_does_not_exist_is_named() -> None:
    """A program that cannot be started is an error with its name."""
    with pytest.raises(WorldError, match="command no-such-program: No such file"):
        ToCommand(["no-such-program"]).announce(entry(3))


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """After the timeout neither the command nor what it started is left."""
    noted = tmp_path / "child"
    command = ["sh", "-c", f"sleep 600 & echo $! > {noted}; wait"]
    for timeout in (0.3, 1, 5, 20):
        with pytest.raises(WorldError, match=f"ran longer than {timeout} s"):
            ToCommand(command, timeout).announce(entry(3))
        if noted.exists() and (child := noted.read_text().strip()):
            break
    # It is killed; whoever inherits it may take a while to collect it.
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(child))
        while process.status() != psutil.STATUS_ZOMBIE:
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0.05)
                break


def test_a_webhook_is_signed(receiver: Receiver) -> None:
    """The receiver can check id, timestamp and signature of the body as it came."""
    ToWebhook(receiver.url, "key").announce(entry(3))
    ((headers, data, _),) = receiver.got
    assert json.loads(data) == wire(3)
    assert headers["x-deployguard-id"] == "r1/3"
    assert headers["content-type"] == "application/json"
    signed = headers["x-deployguard-timestamp"].encode() + b"." + data
    assert headers["x-deployguard-signature"] == "sha256=" + hmac.new(b"key", signed, hashlib.sha256).hexdigest()


def test_a_webhook_without_a_secret_is_not_signed(receiver: Receiver) -> None:
    """Without a key there is no signature header."""
    ToWebhook(receiver.url).announce(entry(3))
    assert "x-deployguard-signature" not in receiver.got[0][0]


@pytest.mark.parametrize("status", [302, 400, 500, 503])
def test_only_a_2xx_is_delivered(receiver: Receiver, status: int) -> None:
    """Any other answer, redirects included, is an error that names the status and keeps the address to itself."""
    receiver.script = [status]
    with pytest.raises(WorldError, match=f"webhook http://127.0.0.1:.* answered {status}$") as caught:
        ToWebhook(receiver.url, "key").announce(entry(3))
    assert "s3cr3t" not in caught.value.message
    assert receiver.ids() == ["r1/3"]


def test_a_webhook_that_nobody_serves_is_an_error() -> None:
    """A refused connection is an error without the secret part of the address."""
    with pytest.raises(WorldError, match=r"webhook http://127.0.0.1:1: ") as caught:
        ToWebhook("http://127.0.0.1:1/s3cr3t").announce(entry(3))
    assert "s3cr3t" not in caught.value.message


def test_a_webhook_that_does_not_answer_is_given_up(receiver: Receiver) -> None:
    """A receiver that takes the request and says nothing is an error after the timeout."""
    receiver.gate.clear()
    with pytest.raises(WorldError, match="could not announce r1/3"):
        ToWebhook(receiver.url, timeout=0.2).announce(entry(3))


def test_no_log_line_holds_the_address(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """What comes after the host may be a secret; it is in no log line of ours or of the library at the usual level."""
    receiver.script = [500]
    with caplog.at_level(logging.INFO):
        announcer = Announcer([ToWebhook(receiver.url, "key")], first_pause=0.01)
        announcer.offer([entry(1)])
        assert announcer.drain(60) == 0
        announcer.close()
    assert "answered 500" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_an_entry_is_tried_until_it_is_delivered(receiver: Receiver) -> None:
    """After two errors the third attempt delivers, with the same id; later entries wait for their turn."""
    receiver.script = [500, 503]
    announcer = Announcer([ToWebhook(receiver.url, "key")], first_pause=0.01)
    announcer.offer([entry(1), entry(2)])
    announcer.offer([entry(1), entry(2), entry(3), entry(1, "r2")])
    assert announcer.drain(60) == 0
    announcer.close()
    assert receiver.ids() == ["r1/1", "r1/1", "r1/1", "r1/2", "r1/3", "r2/1"]
    assert receiver.ids(200) == ["r1/1", "r1/2", "r1/3", "r2/1"]
    assert len({data for headers, data, _ in receiver.got if headers["x-deployguard-id"] == "r1/1"}) == 1
    assert [announcer.delivered(rollout) for rollout in ("r1", "r2", "r3")] == [3, 1, 0]


def test_a_sink_that_is_down_delays_nobody_else(receiver: Receiver, tmp_path: Path) -> None:
    """One sink gets everything while another refuses; `delivered` and `drain` tell of what is missing at any of them."""
    down = ToCommand([sys.executable, "-c", PROGRAM, str(tmp_path / "out"), "1"])
    announcer = Announcer([down, ToWebhook(receiver.url)], first_pause=600, longest_pause=600)
    announcer.offer([entry(5), entry(6)])
    while receiver.ids() != ["r1/5", "r1/6"]:
        announcer.drain(0.05)
    assert announcer.drain(0) == 2
    assert announcer.delivered("r1") == 0
    announcer.close()


def test_offering_never_waits(receiver: Receiver) -> None:
    """While a receiver keeps its answer back, offering and asking return; afterwards everything is delivered."""
    receiver.gate.clear()
    announcer = Announcer([ToWebhook(receiver.url, timeout=60)])
    for n in range(1, 41):
        announcer.offer([entry(n)])
    assert announcer.delivered("r1") == 0
    assert announcer.drain(0) == 40
    receiver.gate.set()
    assert announcer.drain(60) == 0
    assert announcer.delivered("r1") == 40
    announcer.close()


def test_without_sinks_everything_is_delivered() -> None:
    """Nobody to tell is nobody to wait for."""
    announcer = Announcer([])
    announcer.offer([entry(7)])
    assert announcer.delivered("r1") == 7
    assert announcer.drain(60) == 0
    announcer.close()


class Broken:
    """A sink with a mistake in it, once."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def announce(self, entry: Entry) -> None:
        self.calls.append(entry.id)
        if len(self.calls) == 1:
            raise ZeroDivisionError


def test_a_mistake_in_a_sink_does_not_silence_it(caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen exception is logged and the entry tried again."""
    sink = Broken()
    announcer = Announcer([sink], first_pause=0.01)
    announcer.offer([entry(1)])
    assert announcer.drain(60) == 0
    announcer.close()
    assert sink.calls == ["r1/1", "r1/1"]
    assert "ZeroDivisionError" in caplog.text


def test_closing_ends_the_threads(receiver: Receiver) -> None:
    """After `close` no thread is left, also when something could not be delivered."""
    receiver.script = [500] * 99
    before = set(threading.enumerate())
    announcer = Announcer([ToWebhook(receiver.url), ToLog()], first_pause=600, longest_pause=600)
    mine = set(threading.enumerate()) - before
    announcer.offer([entry(1)])
    announcer.close()
    for thread in mine:
        thread.join(60)
        assert not thread.is_alive()


def test_the_guard_names_its_sinks() -> None:
    """Each entry of `announce` becomes its sink, in order."""
    environ = {"HOOK_KEY": "k"}
    sinks = build(
        [
            WebhookSink(webhook="https://hooks.example/x", secret_env="HOOK_KEY"),
            CommandSink(command=["tell", "me"], timeout="3s"),  # type: ignore[arg-type]
            LogSink(log=True),
        ],
        environ,
    )
    assert [type(sink) for sink in sinks] == [ToWebhook, ToCommand, ToLog]
    assert isinstance(sinks[1], ToCommand)
    assert (sinks[1].command, sinks[1].timeout) == (["tell", "me"], 3.0)


def test_a_missing_key_is_a_mistake_of_the_user() -> None:
    """A webhook whose key is not in the environment is refused rather than sent unsigned; so is a broken address."""
    with pytest.raises(UserError, match="HOOK_KEY"):
        build([WebhookSink(webhook="https://hooks.example/x", secret_env="HOOK_KEY")], {})
    with pytest.raises(UserError, match="not a URL"):
        build([WebhookSink(webhook="https://hooks.example:port/x", secret_env=None)], {})


def test_httpx_is_loaded_when_something_is_sent() -> None:
    """Importing and building the sinks does not load the HTTP library: commands that announce nothing start fast."""
    code = "import sys; import deployguard.announce.build, deployguard.announce.announcer; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
