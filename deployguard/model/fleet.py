"""The local fleet as people write it: N processes of one command behind a balancer, on this machine."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from deployguard.model.fields import ApiVersion, Broken, Duration, Place, PositiveDuration, Rule, Written
from deployguard.model.policy import Metadata

Address = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")]
PLACEHOLDERS = ("port", "host", "release", "config", "version", "instance", "data")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def _seconds(value: float) -> dt.timedelta:
    return dt.timedelta(seconds=value)


class Ready(Written):
    """When an instance may be sent requests."""

    get: str | None = Field(
        None,
        pattern=r"^/",
        description="a path that answers 200 to 399 when ready; without it, an accepted connection is enough",
    )
    every: PositiveDuration = Field(_seconds(0.5), description="how often it is asked")
    timeout: PositiveDuration = Field(_seconds(1), description="how long one answer may take")
    within: PositiveDuration = Field(_seconds(30), description="an instance that is not ready this long after its start has failed")
    unready_after: Annotated[int, Field(ge=1)] = Field(
        3, json_schema_extra={"x-unit": "answers"}, description="failed answers in a row that take a ready instance out of service"
    )


class Stop(Written):
    """How an instance is ended."""

    drain: Duration = Field(_seconds(5), description="how long running requests may finish after the last new one was sent")
    signal: Literal["TERM", "INT", "QUIT", "HUP"] = Field("TERM", description="the signal that asks it to end")
    kill_after: Duration = Field(_seconds(5), description="after this it is killed")


class Reload(Written):
    """How a running instance takes a new configuration without a restart."""

    signal: Literal["HUP", "USR1", "USR2"] = Field("HUP", description="the signal that makes it read its configuration again")
    within: PositiveDuration = Field(_seconds(5), description="if it does not say it has loaded the new digest by then, it is restarted")


class Loaded(Written):
    """Where an instance says what it has loaded."""

    get: str = Field(pattern=r"^/", description="a path that answers JSON")
    config: str | None = Field(None, pattern=r"^\$", description="JSONPath of the digest of the configuration it has loaded")
    release: str | None = Field(None, pattern=r"^\$", description="JSONPath of the digest of the release it runs")


class Restart(Written):
    """Back-off of restarts after an exit by itself."""

    first: PositiveDuration = Field(_seconds(0.5), description="wait before the first restart; doubled each time")
    most: PositiveDuration = Field(_seconds(60), description="the longest wait")


class Logs(Written):
    """Logs of the instances."""

    size: Annotated[int, Field(ge=1024)] = Field(
        10_000_000, json_schema_extra={"x-unit": "bytes"}, description="bytes after which a log file is rotated"
    )
    keep: Annotated[int, Field(ge=0, le=100)] = Field(
        2, json_schema_extra={"x-unit": "files"}, description="rotated files kept for each instance"
    )


class Listen(Written):
    """The balancer's listeners."""

    all: Address = Field("127.0.0.1:8080", description="where users come")
    stable: Address | None = Field(None, description="stable instances only; a free loopback port when not given")
    candidate: Address | None = Field(None, description="candidate instances only; a free loopback port when not given")


class Balancer(Written):
    """Limits of the balancer."""

    response_timeout: PositiveDuration = Field(
        _seconds(30), description="without the beginning of an answer by then the request has failed"
    )
    idle_timeout: PositiveDuration = Field(_seconds(60), description="how long an idle connection is kept")
    connections: Annotated[int, Field(ge=1)] = Field(
        1000, json_schema_extra={"x-unit": "clients"}, description="clients served at a time; more wait"
    )


class Fleet(Written):
    """N instances of one command, each in an immutable copy of a release and its configuration."""

    instances: Annotated[int, Field(ge=1, le=500)] = Field(json_schema_extra={"x-unit": "instances"}, description="how many")
    command: list[str] = Field(
        min_length=1,
        description="program and arguments, no shell; {port} {host} {release} {config} {version} {instance} {data} are filled in",
    )
    release: str | None = Field(
        None,
        description="the directory or file of the first release, relative to this file; later ones come with `run --release`",
    )
    config: str | None = Field(None, description="the file or directory of the first configuration; later ones come with `run --config`")
    env: dict[str, str] = Field({}, description="environment variables; the same placeholders")
    inherit_env: list[str] = Field(
        ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH"],
        description="variables passed on from the environment of `local up`",
    )
    host: str = Field("127.0.0.1", description="the address that instances listen on")
    ports: Annotated[str, Field(pattern=r"^\d{1,5}-\d{1,5}$")] | None = Field(
        None, description="the port range of the instances; free loopback ports when not given"
    )
    listen: Listen = Field(Listen(), description="the balancer's listeners")
    balancer: Balancer = Field(Balancer(), description="the balancer's limits")
    ready: Ready = Field(Ready(), description="when an instance may be sent requests")
    stop: Stop = Field(Stop(), description="how an instance is ended")
    reload: Reload | None = Field(None, description="reload by signal when only the configuration changes; a restart when not given")
    loaded: Loaded | None = Field(None, description="read back what an instance has loaded; what it was started with when not given")
    restart: Restart = Field(Restart(), description="back-off of restarts")
    logs: Logs = Field(Logs(), description="logs of the instances")

    @model_validator(mode="after")
    def _makes_sense(self) -> Fleet:
        rules = [*self._placeholders(), *self._addresses()]
        if self.ports is not None:
            first, last = (int(p) for p in self.ports.split("-"))
            if not 1 <= first <= last <= 65535 or last - first + 1 < self.instances:
                text = (
                    f"`{self.ports}` does not hold {self.instances} ports; write a range between 1 and 65535 with a port for each instance"
                )
                rules.append(Rule(text, (("ports",), ("instances",))))
        if self.reload is not None and (self.loaded is None or self.loaded.config is None):
            text = "`reload` needs `loaded.config`; without reading back what was loaded, a change of configuration is a restart"
            rules.append(Rule(text, (("reload",),)))
        if rules:
            raise Broken(*rules)
        return self

    def _placeholders(self) -> list[Rule]:
        texts: list[tuple[Place, str]] = [(("command", index), text) for index, text in enumerate(self.command)]
        texts += [(("env", name), text) for name, text in self.env.items()]
        known = ", ".join(f"`{{{name}}}`" for name in PLACEHOLDERS)
        return [
            Rule(f"`{{{name}}}` is not a placeholder; there are {known}", (place,))
            for place, text in texts
            for name in _PLACEHOLDER.findall(text)
            if name not in PLACEHOLDERS
        ]

    def _addresses(self) -> list[Rule]:
        texts = (("all", self.listen.all), ("stable", self.listen.stable), ("candidate", self.listen.candidate))
        return [
            Rule(f"`{text}` has no port between 0 and 65535; write an address such as 127.0.0.1:8080", (("listen", name),))
            for name, text in texts
            if text is not None and int(text.rpartition(":")[2]) > 65535
        ]


class FleetFile(Written):
    """A local fleet."""

    apiVersion: ApiVersion = Field("deployguard.dev/v1alpha1", description="the format's version")
    kind: Literal["LocalFleet"] = Field("LocalFleet", description="always LocalFleet")
    metadata: Metadata = Field(description="the fleet's name")
    spec: Fleet = Field(description="the fleet itself")
