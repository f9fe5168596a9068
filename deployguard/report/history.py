"""`history`: what became of every rollout, from the ledger alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from deployguard.report.instants import age, iso, spell
from deployguard.report.table import table

if TYPE_CHECKING:
    from deployguard.stores.ledger import Summary


def history_rows(summaries: Iterable[Summary], now: dt.datetime, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One row for each rollout, ready for JSON: `rollout`, `candidate`, `name`, `outcome`, `started`, `ended`, `took_s`, `age_s`,
    `text`, `entries`. `names` maps digests of versions to what people call them."""
    names = names or {}
    return [
        {
            "rollout": s.rollout,
            "candidate": s.candidate or None,
            "name": names.get(s.candidate, s.candidate[7:17]) or None,
            "outcome": s.outcome,
            "started": iso(s.started),
            "ended": iso(s.ended),
            "took_s": round((s.ended - s.started).total_seconds(), 3) if s.ended is not None else None,
            "age_s": round((now - s.started).total_seconds()),
            "text": s.text,
            "entries": s.entries,
        }
        for s in summaries
    ]


def history_text(summaries: Iterable[Summary], now: dt.datetime, names: Mapping[str, str] | None = None) -> str:
    """The table for a terminal, the newest rollout first; ends with a newline."""
    rows = history_rows(summaries, now, names)
    if not rows:
        return "no rollouts yet\n"
    head = ["ROLLOUT", "CANDIDATE", "OUTCOME", "TOOK", "TEXT", "AGE"]
    return "\n".join(table([head, *(_cells(row) for row in rows)])) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    took = spell(row["took_s"]) if row["took_s"] is not None else "still going"
    text = row["text"] if len(row["text"]) <= 80 else row["text"][:79] + "…"
    return [row["rollout"], row["name"] or "<unknown>", row["outcome"] or "<unknown>", took, text, age(row["age_s"])]
