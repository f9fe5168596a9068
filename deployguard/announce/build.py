"""From the `announce` list of a guard to the sinks that it names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import assert_never

from deployguard import ports
from deployguard.announce.command import ToCommand
from deployguard.announce.log import ToLog
from deployguard.announce.webhook import ToWebhook
from deployguard.errors import UserError
from deployguard.model.guard import CommandSink, LogSink, Sink, WebhookSink


def build(sinks: Iterable[Sink], environ: Mapping[str, str] | None = None) -> list[ports.Sink]:
    """One sink for each entry of the list, in its order. Raises `UserError` when a named secret is not in the environment."""
    return [_one(sink, os.environ if environ is None else environ) for sink in sinks]


def _one(sink: Sink, environ: Mapping[str, str]) -> ports.Sink:
    match sink:
        case LogSink():
            return ToLog()
        case CommandSink():
            return ToCommand(sink.command, sink.timeout.total_seconds())
        case WebhookSink():
            return ToWebhook(sink.webhook, _secret(sink, environ), sink.timeout.total_seconds())
    assert_never(sink)


def _secret(sink: WebhookSink, environ: Mapping[str, str]) -> str:
    if sink.secret_env is None:
        return ""
    if secret := environ.get(sink.secret_env, ""):
        return secret
    # Sending without the signature would look like a forgery to the receiver, and nobody would know why.
    raise UserError(
        f"could not set up the webhook of the guard: the environment variable {sink.secret_env}, which holds its key, is not set",
        hint=f"set {sink.secret_env}, or remove `secret_env` to send without a signature",
    )
