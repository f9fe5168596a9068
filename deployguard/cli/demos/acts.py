"""The three acts: the change everywhere at once, the same change under the guard, and a good change.

The guarded acts run the real command as a process of its own: what is shown is then what a user gets who types the same words,
with its exit code, its report and its reaction to signals, and nothing of the demo can help the guard.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployguard import clock
from deployguard.cli.demos.look import Inside, look
from deployguard.cli.demos.stage import Stage
from deployguard.cli.demos.users import Felt, Users
from deployguard.errors import WorldError
from deployguard.model.target import TargetView
from deployguard.model.version import Version
from deployguard.stores.ledger import verify

WINDOW_S = 12.0
"""Seconds for which the users of both acts are counted, from the first instance on the bad version on."""
STAY_S = 5
"""Seconds of relapse watch that still fit into the window of the guarded act."""
STEP_S = 0.25
LOOK_AFTER_S = 7.0


@dataclass(frozen=True, slots=True)
class Unguarded:
    """The bad change everywhere at once. `exposed` counts instances; `inside` is what the people who run it saw meanwhile."""

    felt: Felt
    exposed: int
    of: int
    seconds: float
    inside: Inside | None


@dataclass(frozen=True, slots=True)
class Guarded:
    """The same change under `deployguard run`. `exposed` is the most instances that the report or the demo itself ever saw on it."""

    felt: Felt
    exposed: int
    of: int
    seconds: float
    report: dict[str, Any]
    promises: tuple[tuple[str, bool], ...]

    @property
    def contained(self) -> bool:
        """Whether it was rolled back with at most one instance exposed."""
        return self.report["outcome"] == "rolled_back" and self.exposed <= 1


@dataclass(frozen=True, slots=True)
class Good:
    """A good change under the guard."""

    felt: Felt
    seconds: float
    report: dict[str, Any]

    @property
    def promoted(self) -> bool:
        """Whether it became the stable version."""
        return bool(self.report["outcome"] == "promoted")


def unguarded(stage: Stage) -> Unguarded:
    """The fleet is back on the stable version, by hand, after a time in which the bad one ran everywhere."""
    stable, bad = stage.client.observe().instances[0].assigned, stage.admitted(stage.incident.bad)
    users = stage.users("unguarded")
    begin, started = clock.now(), clock.monotonic()
    stage.shift_everything(bad)
    exposed, inside = 0, None
    while (since := clock.monotonic() - started) < WINDOW_S:
        users.check()
        view = stage.client.observe()
        exposed = max(exposed, sum(i.loaded == bad for i in view.instances))
        if stage.incident.looks_green and inside is None and since > LOOK_AFTER_S:
            inside = look(view, view.listeners["all"])
            stage.shown.say(f"   from inside: {inside_words(inside, view.wanted)}")
        stage.shown.tick(f"{since:.0f} s of {WINDOW_S:.0f} s: {exposed} of {view.wanted} on the bad version; {_felt(users, begin)}")
        stage.pause(STEP_S)
    seconds = clock.monotonic() - started
    stage.shown.say("   a person notices, finds the change, and puts the old version back by hand")
    stage.shift_everything(stable)
    view = stage.await_everywhere(stable)
    users.go_home(stage.pause)
    if stage.incident.part == "config":
        # The guard takes what stable has counted before as its usual rate of errors, and an outage is not usual.
        stage.shown.say("   and restarts the instances, so that their counters do not begin with the outage")
        stage.restart_everything()
    return Unguarded(users.felt(begin, seconds), exposed, view.wanted, round(seconds, 1), inside)


def guarded(stage: Stage) -> Guarded:
    """The same change was given to `deployguard run`, and what users, report and instances say about it is known."""
    before, bad = stage.client.observe(), stage.admitted(stage.incident.bad)
    users = stage.users("guarded")
    begun = clock.now()
    run = _run(stage, stage.incident.bad, "report", ["--stay", f"{STAY_S}s", "--timeout", "45s"])
    touched: set[str] = set()
    first: dt.datetime | None = None
    while run.poll() is None or clock.now() < (first or begun) + dt.timedelta(seconds=WINDOW_S):
        users.check()
        touched |= {i.id for i in stage.client.observe().running(bad)}
        first = first or (clock.now() if touched else None)
        if run.poll() is not None:
            stage.shown.tick(f"the users stay until their {WINDOW_S:.0f} s are over: {_felt(users, first or begun)}")
        stage.pause(STEP_S)
    report = _report(stage, run, "report")
    begin = dt.datetime.fromisoformat(report["exposed"]) if report["exposed"] else begun
    seconds = (clock.now() - begin).total_seconds()
    # A loop that looked up late must not make this window longer than the other one; a run that took longer must.
    ended = dt.datetime.fromisoformat(report["restored"]) if report["restored"] else clock.now()
    seconds = WINDOW_S if ended <= begin + dt.timedelta(seconds=WINDOW_S) else seconds
    users.go_home(stage.pause)
    after = stage.client.observe()
    most = report["exposure_max"]["instances"] if report["exposure_max"] else 0
    promises = _promises(stage, report, (before, after), touched)
    return Guarded(users.felt(begin, seconds), max(most or 0, len(touched)), after.wanted, round(seconds, 1), report, promises)


def good(stage: Stage) -> Good:
    """A good change was given to `deployguard run`, with users on the fleet all the time."""
    users = stage.users("good-change")
    started = clock.monotonic()
    run = _run(stage, stage.incident.good, "good-change", ["--stay", "0s", "--timeout", "75s"])
    while run.poll() is None:
        users.check()
        stage.pause(STEP_S)
    seconds = clock.monotonic() - started
    users.go_home(stage.pause)
    return Good(users.total(), round(seconds, 1), _report(stage, run, "good-change"))


def inside_words(inside: Inside, instances: int) -> str:
    """`/healthz` green on 20 of 20, 0 of 812 requests counted as errors; `boss` signs in, `ada` does not."""
    people = f"`boss` {'signs in' if inside.boss else 'cannot sign in'}, `ada` {'signs in' if inside.ordinary else 'cannot'}"
    return (
        f"/healthz is green on {inside.healthy} of {instances}, {inside.errors} of {inside.counted:,} requests counted as errors; {people}"
    )


def _felt(users: Users, begin: dt.datetime) -> str:
    felt = users.felt(begin, WINDOW_S)
    return f"{felt.requests:,} requests of users, {felt.failed:,} failed"


def _run(stage: Stage, change: str, name: str, options: list[str]) -> subprocess.Popen[bytes]:
    """`deployguard run` has begun, with its progress on standard error and its report in files called `name`."""
    option, path = stage.change(change)
    reports = [word for suffix in ("json", "md", "txt") for word in ("--report", str(stage.results / f"{name}.{suffix}"))]
    stage.shown.say(f"   $ deployguard run -f guard.yaml {option} {path.relative_to(stage.results)} {' '.join(options)}")
    words = ["run", "-f", str(stage.results / "guard.yaml"), option, str(path), *options, *reports, "--state", str(stage.state)]
    return stage.spawn([sys.executable, "-P", "-m", "deployguard", *words])


def _report(stage: Stage, run: subprocess.Popen[bytes], name: str) -> dict[str, Any]:
    """What the run wrote. Raises `WorldError` when it wrote nothing."""
    path = Path(stage.results / f"{name}.json")
    if not path.exists():
        raise WorldError(f"`deployguard run` ended with exit code {run.returncode} and wrote no report", hint="what it said stands above")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _promises(
    stage: Stage, report: dict[str, Any], views: tuple[TargetView, TargetView], touched: set[str]
) -> tuple[tuple[str, bool], ...]:
    """Each promise of the guard that this act can check, and whether it was kept."""
    before, after = views
    most = (report["exposure_max"] or {}).get("instances") or 0
    stable = before.instances[0].assigned
    chain = verify(stage.store.ledger.path, report["rollout"] or "")
    found = [
        ("exposed at most one instance", max(most, len(touched)) <= 1),
        ("stable instances were never restarted", _untouched(before, after, touched)),
        ("went back by itself", report["outcome"] == "rolled_back" and report["restored"] is not None),
        ("stable version runs everywhere at the end", _everywhere(after, stable)),
        ("the bad content is quarantined", bool(report["quarantined"])),
        ("ledger verifies", chain.ok and chain.lines > 0),
    ]
    if stage.incident.looks_green:
        found.append(("the probe's veto decided while the internal signals were green", internal_green_probe_red(report)))
    return tuple(found)


def _untouched(before: TargetView, after: TargetView, touched: set[str]) -> bool:
    """Whether every instance that never ran the candidate is the process that it was."""
    was = {i.id: (i.uid, i.exits) for i in before.instances}
    return all(was.get(i.id) == (i.uid, i.exits) for i in after.instances if i.id not in touched)


def _everywhere(view: TargetView, version: Version) -> bool:
    return all(i.ready and i.loaded == version for i in view.instances)


def internal_green_probe_red(report: dict[str, Any]) -> bool:
    """Whether a probe judged the candidate bad, and nothing else did nor counted one failed request of it."""
    failed = [check for check in report["checks"] if check["verdict"] == "fail"]
    counted = [check["counts"].get("candidate") for check in report["checks"] if check["verdict"] != "fail"]
    return bool(failed) and all(check["reason"] == "veto" for check in failed) and not any(arm and arm["bad"] for arm in counted)
