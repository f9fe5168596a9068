"""The `deployguard` command: its commands by name, and every error as one message, a hint and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from deployguard import __version__
from deployguard.cli.options import plugin
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


COMMANDS = {
    "run": ("run", "Guard one change, a release or a configuration, to its end."),
    "plan": ("plan", "What a run would do, before it does anything."),
    "status": ("inspect", "What serves, what is wanted, and what the guard is doing."),
    "watch": ("inspect", "Follow a rollout that somebody else drives."),
    "why": ("inspect", "The evidence of a decision."),
    "history": ("inspect", "Past rollouts, newest first."),
    "wait": ("wait", "Wait for the verdict on a rollout that somebody else drives."),
    "approve": ("act", "Open the approval gate before the next stage."),
    "pause": ("act", "Hold the rollout where it is; it is still watched."),
    "resume": ("act", "Go on after a pause."),
    "abort": ("act", "Take the candidate back."),
    "rollback": ("act", "Go back to the last stable version."),
    "retry": ("act", "Roll the last candidate out again."),
    "stop": ("act", "Stop a rollout, or with --all freeze every promotion."),
    "skip-soak": ("act", "Ask for promotion now; every check must still pass."),
    "policy": ("policy", "Validate, test, simulate and show policies."),
    "ledger": ("ledger", "Verify and export the record of decisions."),
    "local": ("local", "A fleet of processes on this machine."),
    "init": ("init", "Look at a running workload and write a guard file that fits it."),
    "demo": ("demo", "Play an outage, without the guard and with it."),
    "reap": ("reap", "Take back every canary that nobody drives any more."),
    "install": ("install", "Print what a pipeline needs in a cluster: its rights, and the reaper."),
    "completion": ("completion", "What a shell must read to complete commands and options."),
}
"""Every command, the module that holds it, and its line in `--help`."""


def _wanted(arguments: list[str]) -> str | None:
    """The command that the arguments name; None for none or an unknown one."""
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    return named if named in COMMANDS else None


def _register(arguments: list[str]) -> None:
    """Register the wanted command alone: to read the signatures of all of them costs more than most commands do.

    Without one every command is there by its name and its line, which is what `--help` and a misspelt name need.
    """
    wanted = _wanted(arguments)
    if "_DEPLOYGUARD_COMPLETE" in os.environ:
        register(COMMANDS)
    elif wanted is not None:
        register([wanted])
    else:
        for name, (_, line) in COMMANDS.items():
            app.command(name, help=line)(lambda: None)


def register(names: Iterable[str]) -> None:
    """The commands `names` are there with all their options. The modules import what is heavy inside their functions."""
    for name in names:
        module = importlib.import_module(f"deployguard.cli.{COMMANDS[name][0]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
            continue
        own = typer.Typer()
        module.register(own)
        app.registered_commands += [command for command in own.registered_commands if command.name == name]


def program() -> str:
    """What the user calls us: a plugin of kubectl is not called by its file's name."""
    return "kubectl deployguard" if plugin() else "deployguard"


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. No traceback ever reaches a user."""
    _register(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(arguments, standalone_mode=True, prog_name=program())
    except SystemExit as left:
        return _code(left)
    except DeployguardError as error:
        return _told(error)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
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
