"""The guard as people write it: what is protected, what it reads, and the policy that applies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from deployguard.model.check import Check, same_names
from deployguard.model.fields import ApiVersion, Broken, PositiveDuration, Written, broken
from deployguard.model.policy import Metadata, Policy

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
"""The kinds of targets that live in a cluster."""


class TargetRef(Written):
    """The workload that is guarded."""

    kind: Literal["LocalFleet", "Deployment", "StatefulSet", "DaemonSet"] = Field(
        "LocalFleet", description="LocalFleet: processes on this machine; the others are workloads of a cluster"
    )
    name: str = Field(description="the fleet's name, as in its own file, or the workload's")
    port: Annotated[int, Field(ge=1, le=65535)] | Annotated[str, Field(min_length=1, max_length=63)] | None = Field(
        None, description="in a cluster: the pods' port, or its name, for metrics and probes; found by itself when not given"
    )
    service: str | None = Field(None, description="in a cluster: the Service that users come by; found by its selector when not given")
    capacity: Literal["surge", "swap"] = Field(
        "surge", description="of a Deployment: canaries come on top of its replicas, or in place of as many of them"
    )
    pool: str | None = Field(None, description="of a DaemonSet: the node label whose values are the pools that change one after the other")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> TargetRef:
        only = {
            "port": (WORKLOADS, self.port is not None),
            "service": (WORKLOADS, self.service is not None),
            "capacity": (("Deployment",), self.capacity != "surge"),
            "pool": (("DaemonSet",), self.pool is not None),
        }
        for name, (kinds, given) in only.items():
            if given and self.kind not in kinds:
                raise broken(f"`{name}` is for {' and '.join(kinds)}, and this target is a {self.kind}; take it away", (name,))
        return self


class ConfigSource(Written):
    """A configuration that the workload reads, guarded with its release as a pair."""

    kind: Literal["ConfigMap", "Secret"] = Field("ConfigMap", description="ConfigMap or Secret")
    name: str = Field(min_length=1, max_length=253, description="its name, in the workload's namespace")


class LogSink(Written):
    """Write announcements to the log."""

    log: Literal[True] = Field(description="always true")


class CommandSink(Written):
    """Run a command for each announcement; the announcement is JSON on its standard input."""

    command: list[str] = Field(min_length=1, description="the program and its arguments; no shell")
    timeout: PositiveDuration = Field("10s", description="after this the command is ended and tried again")  # type: ignore[assignment]


class WebhookSink(Written):
    """POST each announcement as JSON, signed with HMAC-SHA256 when a secret is named."""

    webhook: Annotated[str, Field(pattern=r"^https?://")] = Field(description="the URL")
    secret_env: str | None = Field(None, description="the environment variable that holds the signing key")
    timeout: PositiveDuration = Field("5s", description="for one attempt")  # type: ignore[assignment]


def _sink_form(value: Any) -> str | None:
    if isinstance(value, (CommandSink, WebhookSink, LogSink)):
        return f"<{type(value).__name__.removesuffix('Sink').lower()}>"
    return next((f"<{key}>" for key in ("command", "webhook", "log") if isinstance(value, dict) and key in value), None)


def _policy_form(value: Any) -> str | None:
    if isinstance(value, str):
        return "<name>"
    return "<inline>" if isinstance(value, (dict, Policy)) else None


# The form is told apart by a function, not by trying each: a fault is then reported once, for the form that was meant.
# The angle brackets keep the tags apart from field names.
Sink = Annotated[
    Annotated[CommandSink, Tag("<command>")] | Annotated[WebhookSink, Tag("<webhook>")] | Annotated[LogSink, Tag("<log>")],
    Discriminator(_sink_form),
]
PolicyRef = Annotated[
    Annotated[str, Field(min_length=1), Tag("<name>")] | Annotated[Policy, Tag("<inline>")],
    Discriminator(_policy_form),
]


class Guard(Written):
    """What is protected."""

    target: TargetRef = Field(description="the workload")
    config: list[ConfigSource] = Field([], max_length=20, description="what a workload of a cluster reads, guarded with its release")
    policy: PolicyRef = Field(
        "production",
        description="a GuardPolicy beside the guard, a shipped policy, a path (.yaml, .yml) relative to this file, or the policy itself",
    )
    override: dict[str, Any] = Field({}, description="single fields of the policy, replaced for this guard; maps are merged")
    checks: list[Check] = Field([], description="checks added to the policy's")
    announce: list[Sink] = Field([], description="who is told of every transition")

    @model_validator(mode="after")
    def _inline_is_whole(self) -> Guard:
        if isinstance(self.policy, Policy) and self.override:
            raise broken("`override` goes with a named policy; change the inline policy itself", ("override",))
        rules = same_names(self.checks)
        if rules:
            raise Broken(*rules)
        return self


class GuardFile(Written):
    """A guard."""

    apiVersion: ApiVersion = Field("deployguard.dev/v1alpha1", description="the format's version")
    kind: Literal["Guard"] = Field("Guard", description="always Guard")
    metadata: Metadata = Field(description="the guard's name")
    spec: Guard = Field(description="the guard itself")
