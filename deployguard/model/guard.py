"""The guard as people write it: what is protected, what it reads, and the policy that applies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deployguard.model.check import Check
from deployguard.model.fields import ApiVersion, Duration, Written
from deployguard.model.policy import Metadata, Policy


class TargetRef(Written):
    """The workload that is guarded."""

    kind: Literal["LocalFleet"] = Field("LocalFleet", description="LocalFleet: processes on this machine")
    name: str = Field(description="the fleet's name, as in its own file")


class LogSink(Written):
    """Write announcements to the log."""

    log: Literal[True] = Field(description="always true")


class CommandSink(Written):
    """Run a command for each announcement; the announcement is JSON on its standard input."""

    command: list[str] = Field(min_length=1, description="the program and its arguments; no shell")
    timeout: Duration = Field("10s", description="after this the command is ended and tried again")  # type: ignore[assignment]


class WebhookSink(Written):
    """POST each announcement as JSON, signed with HMAC-SHA256 when a secret is named."""

    webhook: Annotated[str, Field(pattern=r"^https?://")] = Field(description="the URL")
    secret_env: str | None = Field(None, description="the environment variable that holds the signing key")
    timeout: Duration = Field("5s", description="for one attempt")  # type: ignore[assignment]


Sink = CommandSink | WebhookSink | LogSink


class Guard(Written):
    """What is protected."""

    target: TargetRef = Field(description="the workload")
    policy: str | Policy = Field("production", description="a shipped policy, a GuardPolicy of the same file, a path, or the policy itself")
    override: dict[str, Any] = Field({}, description="single fields of the policy, replaced for this guard; maps are merged")
    checks: list[Check] = Field([], description="checks added to the policy's")
    announce: list[Sink] = Field([], description="who is told of every transition")

    @model_validator(mode="after")
    def _inline_is_whole(self) -> Guard:
        if isinstance(self.policy, Policy) and self.override:
            raise ValueError("`override` goes with a named policy; change the inline policy itself")
        return self


class GuardFile(Written):
    """A guard."""

    apiVersion: ApiVersion = Field("deployguard.dev/v1alpha1", description="the format's version")
    kind: Literal["Guard"] = Field("Guard", description="always Guard")
    metadata: Metadata = Field(description="the guard's name")
    spec: Guard = Field(description="the guard itself")
