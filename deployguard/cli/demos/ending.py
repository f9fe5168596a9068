"""The end of a demo: one document for programs, and a table, the reasons and the files for people."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployguard.cli.demos.acts import Good, Guarded, Unguarded, inside_words, internal_green_probe_red
from deployguard.cli.demos.incidents import Incident
from deployguard.errors import UserError, WorldError
from deployguard.report.jsons import dump
from deployguard.report.numbers import count, percent
from deployguard.report.table import table
from deployguard.report.text import why_report

DOCUMENT = "demo.json"
FILES = {
    "report.md": "the guarded run, to read (report.json, report.txt: the same)",
    "ledger.jsonl": "every decision of the guard, hash-chained",
    "good-change.md": "the good change",
    "load-unguarded.jsonl": "what the users got, second by second (load-guarded.jsonl, load-good-change.jsonl)",
    "guard.yaml": "what was watched; fleet.yaml, configs/ and releases/: what ran",
    DOCUMENT: "this summary as JSON",
}


@dataclass(frozen=True, slots=True)
class Played:
    """A demo that was played to its end."""

    incident: Incident
    unguarded: Unguarded
    guarded: Guarded
    good: Good
    seconds: float

    @property
    def well(self) -> bool:
        """Whether the bad change was contained and the good one promoted."""
        return self.guarded.contained and self.good.promoted


def document(played: Played, results: Path) -> dict[str, Any]:
    """The demo as one document, ready for JSON."""
    bad, kept, good = played.unguarded, played.guarded, played.good
    first: dict[str, Any] = {**_act(bad), "seconds": bad.seconds}
    if bad.inside is not None:
        first["inside"] = {
            "instances_healthy": bad.inside.healthy,
            "requests_counted": bad.inside.counted,
            "errors_counted": bad.inside.errors,
            "all_green": bad.inside.green(bad.of),
            "boss_signs_in": bad.inside.boss,
            "ordinary_user_signs_in": bad.inside.ordinary,
        }
    return {
        "incident": played.incident.name,
        "unguarded": first,
        "guarded": {
            **_act(kept),
            "seconds": kept.seconds,
            "outcome": kept.report["outcome"],
            "exit_code": kept.report["exit_code"],
            "reason": kept.report["reason"],
            "detection_s": kept.report["detection_s"],
            "restored_s": _restored(kept.report),
            "guarantees": [{"promise": promise, "kept": value} for promise, value in kept.promises],
        },
        "contained": kept.contained,
        "good_change": {
            "outcome": good.report["outcome"],
            "exit_code": good.report["exit_code"],
            "seconds": good.seconds,
            "requests": good.felt.requests,
            "failed": good.felt.failed,
        },
        "seconds": round(played.seconds, 1),
        "results": str(results),
    }


def _act(act: Unguarded | Guarded) -> dict[str, Any]:
    felt = act.felt
    return {"requests": felt.requests, "failed": felt.failed, "failed_share": felt.share, "instances_exposed": act.exposed}


def _restored(report: dict[str, Any]) -> float | None:
    """Seconds from the first exposed instance until every instance was back; None when they are not."""
    return report["exposed_s"] if report["restored"] is not None else None


def text(played: Played, results: Path) -> str:
    """The demo for people; ends with a newline."""
    kept, good = played.guarded, played.good
    lines = [*_table(played), ""]
    long = f"{kept.seconds:.0f} s"
    if f"{played.unguarded.seconds:.0f} s" != long:
        long = f"{played.unguarded.seconds:.0f} s without and {long} with the guard"
    lines.append(f"The users counted for {long}, from the first bad instance on; {played.incident.real}.")
    lines += ["Compare the shares, not the seconds: without a guard it lasts until a person has found and undone it.", ""]
    if played.unguarded.inside is not None:
        lines.append(f"Unguarded, from inside: {inside_words(played.unguarded.inside, played.unguarded.of)}.")
        lines += ["Guarded: internal signals green, probe red." if internal_green_probe_red(kept.report) else "", ""]
    lines += ["Why it was taken back:", *(f"  {line}" for line in why_report(kept.report).splitlines()), ""]
    lines.append("What the guard promises, checked here:")
    lines += [f"  {'kept  ' if value else 'BROKEN'}  {promise}" for promise, value in kept.promises]
    lines += ["", f"The good change after it: {good.report['outcome']} in {good.seconds:.0f} s with {_users(good)}.", ""]
    lines.append(f"Look at {results}:")
    lines += table([[name, words] for name, words in FILES.items()], indent="  ")
    verdict = "contained: one instance, taken back by itself"
    if not kept.contained:
        verdict = f"NOT contained: {kept.exposed} of {kept.of} instances, {kept.report['outcome'].replace('_', ' ')}"
    lines += ["", f"{played.incident.name}: {verdict}; all of it took {played.seconds:.0f} s"]
    return "\n".join(lines) + "\n"


def _table(played: Played) -> list[str]:
    bad, kept = played.unguarded, played.guarded
    restored = _restored(kept.report)
    served = "not restored" if restored is None else f"{restored:.1f} s, until the guard took it back"
    rows = [
        ["", "without the guard", "with the guard"],
        ["requests of users", count(bad.felt.requests), count(kept.felt.requests)],
        ["failed", count(bad.felt.failed), count(kept.felt.failed)],
        ["failed share", *(percent(act.felt.failed, act.felt.requests) if act.felt.requests else "-" for act in (bad, kept))],
        ["instances exposed", f"{bad.exposed} of {bad.of}", f"{kept.exposed} of {kept.of}"],
        ["bad version served for", f"{bad.seconds:.0f} s, until a person put it back", served],
    ]
    return table(rows, gap=3)


def _users(good: Good) -> str:
    return f"{good.felt.failed:,} of {good.felt.requests:,} requests failed"


def check_place(results: Path) -> None:
    """The results can be put there. Raises `UserError` for what is not a directory, or is one with somebody else's files."""
    if results.exists() and not results.is_dir():
        raise UserError(f"`--results {results}` is not a directory", hint="name another one")
    if not results.exists() and not results.parent.is_dir():
        raise UserError(f"`--results {results}`: there is no directory {results.parent}", hint="make it first")
    if results.is_dir() and any(results.iterdir()) and not (results / DOCUMENT).is_file():
        raise UserError(f"`--results {results}` is not empty and holds no earlier demo", hint="name another directory with `--results DIR`")


def keep(source: Path, results: Path) -> None:
    """The results of this demo have taken the place of an earlier one's. Raises `WorldError` when they cannot be written."""
    try:
        results.mkdir(exist_ok=True)
        for name in ("configs", "releases"):
            if (results / DOCUMENT).is_file() and (results / name).is_dir():
                shutil.rmtree(results / name)
        for old in (*results.glob("load-*.jsonl"), *results.glob("good-change.*"), *results.glob("report.*"), *results.glob("*.log")):
            old.unlink()
        shutil.copytree(source, results, dirs_exist_ok=True)
    except OSError as error:
        raise WorldError(
            f"could not write the results to {results}: {error}", hint="name another directory with `--results DIR`"
        ) from error


def write_document(data: dict[str, Any], folder: Path) -> None:
    """The document lies among the results."""
    (folder / DOCUMENT).write_text(dump(data), encoding="utf-8")
