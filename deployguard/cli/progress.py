"""What a person or a CI log sees while a rollout is driven: a live view on a terminal, plain lines elsewhere. All on standard error."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sys
from typing import TYPE_CHECKING, Protocol

import typer

from deployguard.engine.stages import planned
from deployguard.errors import DeployguardError
from deployguard.report.lines import progress_line, trail_line

if TYPE_CHECKING:
    from deployguard.driver.tick import Ticked
    from deployguard.model.document import Document
    from deployguard.model.policy import Policy
    from deployguard.report.live import LiveView

EVERY = dt.timedelta(seconds=10)


def _echo(text: str) -> None:
    # A log on a full disk, or a reader that has left, must not end a drive with a candidate exposed.
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


class Progress(Protocol):
    """Shows ticks and troubles as they come."""

    def tick(self, ticked: Ticked) -> None:
        """Show what this tick brought."""
        ...

    def trouble(self, error: DeployguardError) -> None:
        """Show what could not be done and is tried again."""
        ...

    def say(self, text: str) -> None:
        """Show one line."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Lines:
    """Plain lines: one for each step of the trail, and one every ten seconds between them."""

    def __init__(self, policy: Policy, now: dt.datetime) -> None:
        self._policy = policy
        self._shown: dict[str, int] = {}
        self._last = now

    def tick(self, ticked: Ticked) -> None:
        rollout = ticked.document.rollout
        if rollout is None:
            return
        seen = self._shown.get(rollout.id, 0)
        for step in rollout.trail[seen:]:
            self.say(trail_line(step, rollout.started))
            self._last = rollout.updated
        self._shown[rollout.id] = len(rollout.trail)
        if rollout.updated - self._last >= EVERY and not rollout.terminal:
            self._last = rollout.updated
            stages = planned(self._policy, max(rollout.wanted, 1), surge=rollout.surge)
            self.say(progress_line(rollout, stages, rollout.updated, name=ticked.document.name))

    def trouble(self, error: DeployguardError) -> None:
        self.say(f"trouble: {error.message}")

    def say(self, text: str) -> None:
        _echo(text)

    def close(self) -> None:
        """Nothing is kept."""


class Terminal:
    """The live view."""

    def __init__(self, policy: Policy) -> None:
        from rich.console import Console

        from deployguard.report.live import LiveView

        self._policy = policy
        self._view: LiveView = LiveView(Console(stderr=True))
        self._view.__enter__()

    def tick(self, ticked: Ticked) -> None:
        rollout = ticked.document.rollout
        if rollout is not None:
            self._view.update(ticked.document, planned(self._policy, max(rollout.wanted, 1), surge=rollout.surge), rollout.updated)

    def trouble(self, error: DeployguardError) -> None:
        self._view.say(f"trouble: {error.message}")

    def say(self, text: str) -> None:
        self._view.say(text)

    def close(self) -> None:
        self._view.__exit__(None, None, None)


class Silent:
    """Shows nothing but troubles."""

    def tick(self, ticked: Ticked) -> None:
        """Nothing is shown."""

    def trouble(self, error: DeployguardError) -> None:
        _echo(f"trouble: {error.message}")

    def say(self, text: str) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing is kept."""


def progress(policy: Policy, now: dt.datetime, *, quiet: bool = False) -> Progress:
    """The fitting one: nothing when asked for quiet, a live view on a terminal that is not a CI's, lines otherwise."""
    if quiet:
        return Silent()
    if sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb":
        return Terminal(policy)
    return Lines(policy, now)


def last_words(document: Document, flags: tuple[str, ...] = ()) -> str:
    """What may still serve of a rollout that was left, and how to go on with it; `flags` say where the guard is at home."""
    rollout = document.rollout
    words = " ".join(["deployguard run --resume --guard", document.guard, *flags])
    if rollout is None:
        return f"left `{document.guard}` as it is; go on with `{words}`"
    most, whole = min(rollout.exposed_most, max(rollout.wanted, 1)), max(rollout.wanted, 1)
    serving = f": {most} of {whole} instances may still run the candidate" if most else ": nothing was exposed"
    return f"left `{document.guard}` (rollout {rollout.id}) as it is{serving}; go on with `{words}`"


def handed_words(document: Document, flags: tuple[str, ...] = ()) -> str:
    """Who goes on with a rollout that was handed over."""
    asked = " ".join(["--guard", document.guard, *flags])
    return (
        f"a background process holds `{document.guard}` where it is; "
        f"see `{' '.join(['deployguard status', *flags])}`, go on with `deployguard resume {asked}`"
    )
