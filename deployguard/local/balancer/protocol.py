"""What the supervisor and the balancer say to each other: one JSON object a line, on the balancer's stdin and stdout.

The balancer is started as `python -m deployguard.local.balancer`. Its stdout carries these lines only; its log goes to stderr.
It ends, closing everything, when stdin reaches its end, when stdout is closed, or on SIGTERM; SIGINT is ignored.

Supervisor to balancer (`Command`, told apart by `op`):

    {"op":"listen","listeners":{"all":"127.0.0.1:8080","stable":"127.0.0.1:0","candidate":"127.0.0.1:0"},
     "limits":{"response_timeout":30.0,"idle_timeout":60.0,"connections":1000}}
        Said once, first. Answered by `listening`, or by `failed` and exit 1.
    {"op":"route","n":7,"instances":[{"id":"3","uid":"3-9f","address":"127.0.0.1:9103","arm":"stable","version":"sha256:..."}]}
        The complete wanted set. An instance that is no longer in it gets no new request; its running ones finish. Answered by `routed`.
    {"op":"counts","n":8}
        Answered by `counts`.

Balancer to supervisor (`Event`, told apart by `event`):

    {"event":"listening","listeners":{"all":"127.0.0.1:8080",...}}   the real addresses
    {"event":"failed","text":"could not listen on 127.0.0.1:8080: address already in use"}   the last line; exit 1
    {"event":"routed","n":7}
    {"event":"drained","uid":"3-9f"}   once, when an instance that left the routes has no request in flight; at once if it had none
    {"event":"counts","n":8,"instances":{uid:{"requests":9,"failed":1,"arm":"stable","version":"sha256:...","in_flight":2}},
     "versions":{version:{"requests":9,"failed":1}}}
        Cumulative since the balancer started. `requests` are the users' requests that are over, each counted once, on the instance that
        answered it or failed it last; `failed` are those with a status of 500 to 599 (the balancer's own 502 and 504 included), those
        cut off in the middle, and those whose client gave up on an instance that had been silent for a second (499). Instances that left
        more than ten minutes ago are dropped from `instances`, never from `versions`.
"""

from __future__ import annotations

import msgspec

from deployguard.model.base import Frozen

LISTENERS = ("all", "stable", "candidate")


class Route(Frozen, frozen=True):
    """One instance that may be sent requests."""

    id: str
    uid: str
    address: str
    arm: str
    version: str


class Limits(Frozen, frozen=True):
    """Limits of the balancer, in seconds and in clients of each listener."""

    response_timeout: float = 30.0
    idle_timeout: float = 60.0
    connections: int = 1000


class Command(Frozen, tag_field="op", frozen=True):
    """Anything the supervisor says."""


class ListenCommand(Command, tag="listen", frozen=True):
    """Listen on these addresses, by the name of the listener."""

    listeners: dict[str, str]
    limits: Limits = Limits()


class RouteCommand(Command, tag="route", frozen=True):
    """Send new requests to exactly these."""

    n: int
    instances: tuple[Route, ...]


class CountsCommand(Command, tag="counts", frozen=True):
    """Say what has been counted."""

    n: int


class Tally(Frozen, frozen=True):
    """User requests that are over, and how many of them failed."""

    requests: int = 0
    failed: int = 0


class InstanceTally(Frozen, frozen=True):
    """The same of one instance, and what is running there now."""

    requests: int = 0
    failed: int = 0
    arm: str = ""
    version: str = ""
    in_flight: int = 0


class Event(Frozen, tag_field="event", frozen=True):
    """Anything the balancer says."""


class ListeningEvent(Event, tag="listening", frozen=True):
    """The listeners accept clients at these addresses."""

    listeners: dict[str, str]


class FailedEvent(Event, tag="failed", frozen=True):
    """The balancer cannot go on and ends."""

    text: str


class RoutedEvent(Event, tag="routed", frozen=True):
    """The routes of command `n` hold for every request from now on."""

    n: int


class DrainedEvent(Event, tag="drained", frozen=True):
    """The instance has left the routes and has no request in flight."""

    uid: str


class CountsEvent(Event, tag="counts", frozen=True):
    """What has been counted since the balancer started."""

    n: int
    instances: dict[str, InstanceTally]
    versions: dict[str, Tally]


AnyCommand = ListenCommand | RouteCommand | CountsCommand
AnyEvent = ListeningEvent | FailedEvent | RoutedEvent | DrainedEvent | CountsEvent

_commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_events: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_encoder = msgspec.json.Encoder()


def line_of(message: Command | Event) -> bytes:
    """The message as one line, with its line end."""
    return _encoder.encode(message) + b"\n"


def read_command(line: bytes) -> AnyCommand:
    """What the supervisor said. Raises `msgspec.DecodeError` when it is not one of the commands."""
    return _commands.decode(line)


def read_event(line: bytes) -> AnyEvent:
    """What the balancer said. Raises `msgspec.DecodeError` when it is not one of the events."""
    return _events.decode(line)
