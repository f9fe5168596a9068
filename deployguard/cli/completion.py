"""`deployguard completion`: what a shell must read to complete our commands and options, and what kubectl asks its plugins."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DEPLOYGUARD_COMPLETE"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("completion")(completion)


def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish.", metavar="SHELL")]) -> None:
    """Print what a shell must read to complete commands and options.

    For bash: put `source <(deployguard completion bash)` into ~/.bashrc. For zsh the same with `zsh`, in ~/.zshrc, after `compinit`.
    For fish: `deployguard completion fish > ~/.config/fish/completions/deployguard.fish`.

    Example: deployguard completion bash
    """
    from typer._completion_shared import get_completion_script

    from deployguard.cli.options import output_format

    output_format(shell, *SHELLS)
    typer.echo(get_completion_script(prog_name="deployguard", complete_var=VARIABLE, shell=shell))


def for_kubectl(words: Sequence[str]) -> int:
    """Answer kubectl, which passes the words after `kubectl deployguard`, the last one unfinished; the exit code.

    One proposal a line, with its description after a tab, then what else may follow: `:0`, files when nothing was proposed.
    """
    from deployguard.cli.app import run

    *before, last = words or [""]
    os.environ[VARIABLE] = "complete_fish"
    os.environ["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    os.environ["_TYPER_COMPLETE_ARGS"] = f"{shlex.join(['deployguard', *before])} {shlex.quote(last) if last else ''}"
    code = run([])
    typer.echo(":0")
    return code
