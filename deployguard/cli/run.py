"""`deployguard run`: guard one change to its end."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployguard.cli.homes import Place, homed
from deployguard.cli.options import GuardOption, output_format
from deployguard.cli.reporting import FORMS, FormOption, ReportOption, check_reports, finish
from deployguard.errors import UserError
from deployguard.wiring.workload import Change

if TYPE_CHECKING:
    from deployguard.cli.rollout import Plan
    from deployguard.cli.session import Result
    from deployguard.files.guard_file import Resolved
    from deployguard.wiring.home import Home

HELP = """Guard one change, a release or a configuration, to its end.

The candidate goes in front of a few instances first; the signals of the policy are watched; when they get worse than on the stable
instances, the last stable version comes back by itself. The exit code says how it ended:

  0 promoted, or nothing to do   10 rolled back: judged bad   11 the rollback is not complete

  12 taken back without a verdict   13 refused   14 superseded   124 timeout   130 interrupted   1 error   2 usage

A fleet of this machine takes --release and --config; a Deployment, StatefulSet or DaemonSet takes --image, --manifest, --set and
--config KIND/NAME=PATH. Of a workload in a cluster the state is kept beside it, unless --state names a directory.

Examples:

  deployguard run -f guard.yaml --release ./build

  deployguard run -f guard.yaml --config ./settings.json --report report.md

  deployguard run -f guard.yaml --image web=shop/web:1.9

  deployguard run -f guard.yaml --config ConfigMap/web-settings=./new/

  kustomize build . | deployguard run -f guard.yaml --manifest -

  deployguard run --resume
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", help=HELP)(homed(run))


ReleaseOption = Annotated[Path | None, typer.Option(help="Of a fleet: the candidate's release, a directory or a file.")]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        help="The candidate's configuration: a file or a directory; in a cluster KIND/NAME=PATH, as in `ConfigMap/web-settings=./new/`."
    ),
]
ImageOption = Annotated[
    list[str] | None,
    typer.Option(help="In a cluster: the candidate's image, as in `shop/web:1.9`, or `web=shop/web:1.9` for a container."),
]
ManifestOption = Annotated[
    list[str] | None,
    typer.Option(help="In a cluster: a file or directory with the workload as it shall be; `-` reads what kustomize or Helm print."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="In a cluster: one field of the pod template, as in `env.LOG_LEVEL=debug`.")
]


def run(
    place: Place,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="Guard, policy and fleet files; `-` reads standard input.")
    ] = None,
    guard: GuardOption = None,
    release: ReleaseOption = None,
    config: ConfigOption = None,
    image: ImageOption = None,
    manifest: ManifestOption = None,
    setting: SetOption = None,
    name: Annotated[str | None, typer.Option(help="What to call the candidate in reports; the path's last part when not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the saved rollout, from the saved state alone.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Let a background process drive it, and return at once.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while somebody else drives, instead of leaving.")] = False,
    timeout: Annotated[str | None, typer.Option(help="Take the candidate back after this time, for example 30m.")] = None,
    stay: Annotated[str, typer.Option(help="How long to stay for the relapse watch after a rollback.")] = "2m",
    watch: Annotated[bool, typer.Option("--watch", help="Stay after the promotion until the policy's watch is over.")] = False,
    override: Annotated[str | None, typer.Option(help="The reason for letting a quarantined candidate through.")] = None,
    on_cancel: Annotated[
        str, typer.Option(help="What Ctrl-C does: `rollback`, or `hold` (a background process keeps it where it is).")
    ] = "rollback",
    report: ReportOption = None,
    output: FormOption = "text",
    require_reaper: Annotated[
        bool, typer.Option("--require-reaper", help="In a cluster: refuse unless a CronJob takes back canaries that nobody drives.")
    ] = False,
) -> None:
    """Guard one change to its end."""
    from deployguard.cli import rollout
    from deployguard.wiring.home import only_guard

    output_format(output, *FORMS)
    if on_cancel not in ("rollback", "hold"):
        raise UserError(f"`--on-cancel {on_cancel}` is not known", hint="write `rollback` or `hold`")
    check_reports(report or [])
    longest, stays = _spans(timeout, stay)

    def plan_at(home: Home) -> Plan:
        how = {"watch": watch, "wait": wait, "detach": detach, "require_reaper": require_reaper}
        return rollout.Plan(home=home, stay=stays, timeout=longest, hold_on_cancel=on_cancel == "hold", **how)

    change = change_of(release, config, image, manifest, setting, name, override)
    if resume:
        if file or change:
            raise UserError("`--resume` goes on with the saved rollout", hint="leave out `--file` and everything that names a candidate")
        home = place.home()
        result = rollout.resumed(plan_at(home), only_guard(home, guard))
    else:
        resolved, home = guarded(place, file, guard)
        if not change:
            raise UserError("nothing to roll out was given", hint=_what_it_takes(resolved))
        result = rollout.started(plan_at(home), resolved, change)
    raise typer.Exit(finish(result, output, report or []))


def _spans(timeout: str | None, stay: str) -> tuple[dt.timedelta | None, dt.timedelta]:
    """`--timeout` and `--stay` as spans of time. Raises `UserError` for one that is none."""
    from deployguard.model.units import parse_duration

    try:
        return None if timeout is None else parse_duration(timeout), parse_duration(stay)
    except ValueError as error:
        raise UserError(str(error)) from error


def change_of(
    release: Path | None,
    config: list[str] | None,
    image: list[str] | None,
    manifest: list[str] | None,
    setting: list[str] | None,
    name: str | None = None,
    override: str | None = None,
) -> Change:
    """The options that name a candidate as one value."""
    return Change(release, tuple(config or ()), name, override or "", tuple(image or ()), tuple(manifest or ()), tuple(setting or ()))


def guarded(place: Place, files: list[Path] | None, guard: str | None) -> tuple[Resolved, Home]:
    """The guard of the files, and where its state lives. Raises `UserError` for a fault in them, or when none is named."""
    from deployguard.files.guard_file import load_bundle, resolve
    from deployguard.model.guard import WORKLOADS

    if not files:
        raise UserError("no guard was given", hint="name its file: `deployguard run -f guard.yaml`")
    resolved = resolve(guard, load_bundle([str(f) for f in files]))
    in_cluster = resolved.guard.spec.target.kind in WORKLOADS
    return resolved, place.home(in_cluster=in_cluster, namespace=resolved.guard.metadata.namespace)


def _what_it_takes(resolved: Resolved) -> str:
    if resolved.guard.spec.target.kind == "LocalFleet":
        return "name a release with `--release DIR`, a configuration with `--config FILE`, or both"
    return "name an image (`--image`), a manifest (`--manifest`), a configuration (`--config KIND/NAME=PATH`) or a field (`--set`)"


def report_of(result: Result, now: dt.datetime) -> dict[str, Any]:
    """The run report of a drive."""
    from deployguard.report.view import run_report

    how = result.outcome
    return run_report(result.document, now=now, outcome=how.word, exit_code=how.exit_code, reason=how.reason)
