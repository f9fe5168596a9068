"""What came of a replay, in one line or a few: how much was decided again, and where it first came out otherwise."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from deployguard import __version__
from deployguard.report.instants import iso, time_of_day

if TYPE_CHECKING:
    from deployguard.engine.replay import Comparison


def replay_json(found: Comparison) -> dict[str, Any]:
    """The replay, ready for JSON. `difference` is null when everything came out identical."""
    first = found.difference
    return {
        "identical": found.identical,
        "ticks": found.ticks,
        "entries": len(found.entries),
        "moves": found.moves,
        "carried": list(found.carried),
        "missing": list(found.missing),
        "lost": [iso(at) for at in found.lost],
        "until": iso(found.until),
        "recorded_by": sorted(found.versions),
        "difference": None
        if first is None
        else {"entry": first.n or None, "at": iso(first.at), "replayed": first.replayed or None, "recorded": first.recorded or None},
    }


def replay_lines(found: Comparison, now: dt.datetime) -> list[str]:
    """The replay in words."""
    head = f"replayed {found.ticks} ticks: "
    if found.difference is not None:
        return _differs(found, head, now)
    if found.missing:
        until = f"ends at {time_of_day(found.until, now)}" if found.until is not None else "holds no tick"
        last = found.missing[-1]
        return [f"{head}{_entries(found)}, but the recording {until}, before entry {found.missing[0]} of {last}"]
    lines = [f"{head}{_entries(found)}, identical to the ledger; {found.moves} saved moves, identical to the byte"]
    if found.carried:
        what = f"{_of(len(found.carried), 'entry', 'entries')} {', '.join(map(str, found.carried))}"
        lines.append(f"not decided in a recorded tick: {what} (opened by a command, cut off by a crash, or not kept)")
    lines += [
        f"records are missing at {time_of_day(at, now)}; the replay went on from the document that was loaded next" for at in found.lost
    ]
    return lines


def _entries(found: Comparison) -> str:
    return f"{len(found.entries)} {_of(len(found.entries), 'entry', 'entries')}"


def _of(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _differs(found: Comparison, head: str, now: dt.datetime) -> list[str]:
    first = found.difference
    assert first is not None
    at = time_of_day(first.at, now)
    what = f"entry {first.n}, decided at {at}, differs from the ledger" if first.n else f"the document saved at {at} comes out otherwise"
    lines = [head + what, f"  replayed: {first.replayed}", f"  recorded: {first.recorded or 'no such entry'}"]
    others = sorted(found.versions - {__version__})
    if others:
        lines.append(f"  it was decided by version {', '.join(others)} and replayed by {__version__}")
    return lines
