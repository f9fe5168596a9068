"""What a person or a CI log sees while the demo plays: all on standard error, one changing line only on a terminal."""

from __future__ import annotations

import os
import sys

import typer

from deployguard import clock

EVERY_S = 5.0


class Shown:
    """Says what happens now. `tick` changes one line in place on a terminal, and is a plain line every five seconds elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
        self._began = self._last = clock.monotonic()
        self._open = False

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return clock.monotonic() - self._began

    def title(self, text: str) -> None:
        """A new act begins."""
        self.say(f"\n== {text}")
        self._last = clock.monotonic()

    def say(self, text: str) -> None:
        """The line stays."""
        self.close()
        typer.echo(text, err=True)

    def tick(self, text: str) -> None:
        """The line may be replaced by the next one."""
        if self._live:
            typer.echo(f"\r\x1b[2K   {text}", err=True, nl=False)
            self._open = True
        elif clock.monotonic() - self._last >= EVERY_S:
            self._last = clock.monotonic()
            typer.echo(f"   {text}", err=True)

    def close(self) -> None:
        """The changing line, if there is one, is left as it is."""
        if self._open:
            typer.echo("", err=True)
            self._open = False
