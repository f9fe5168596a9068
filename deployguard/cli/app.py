"""The `deployguard` command: its commands by name, and every error as one message, a hint and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Annotated

import typer

from deployguard import __version__
from deployguard.errors import Bug, DeployguardError

HELP = """Guard every release and configuration change: canary stages, honest verdicts, automatic rollback.

First steps:

  deployguard demo                                         see an outage with and without the guard

  deployguard local up -f fleet.yaml                       start a fleet of processes on this machine

  deployguard run -f guard.yaml --release ./build          guard a release to its end

  deployguard status, why, history                         what runs, why it was decided, what came before
"""

app = typer.Typer(
    name="deployguard",
    help=HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deployguard {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")] = False,
) -> None:
    """Options before the command."""


GROUPS = {"policy": "policy", "ledger": "ledger", "local": "local"}


def _commands() -> None:
    """Register every command. The modules import what is heavy inside their functions."""
    from deployguard.cli import act, demo, inspect, plan, run

    for module in (run, plan, inspect, act, demo):
        module.register(app)
    for name, module_name in GROUPS.items():
        if not importlib.util.find_spec(f"deployguard.cli.{module_name}"):
            continue
        app.add_typer(importlib.import_module(f"deployguard.cli.{module_name}").app, name=name)


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. No traceback ever reaches a user."""
    _commands()
    try:
        code = app(arguments, standalone_mode=True)
    except SystemExit as left:
        return _code(left)
    except DeployguardError as error:
        return _told(error)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the one place of this thread: a traceback is a bug, and says nothing to a user
        if os.environ.get("DEPLOYGUARD_DEBUG"):
            raise
        hint = "set DEPLOYGUARD_DEBUG=1 to see where, and report it"
        return _told(Bug(f"something unexpected happened: {type(error).__name__}: {error}", hint=hint))
    return int(code or 0)


def _code(left: SystemExit) -> int:
    return left.code if isinstance(left.code, int) else int(bool(left.code))


def _told(error: DeployguardError) -> int:
    """Print the message and the hint on standard error; the exit code that the error owns."""
    prefix = "bug: " if isinstance(error, Bug) else "error: "
    typer.echo("\n".join(prefix + line for line in error.message.splitlines()), err=True)
    if error.hint:
        typer.echo(f"\nhint: {error.hint}", err=True)
    return error.exit_code
