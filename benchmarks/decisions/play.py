"""Plays cells on all cores: each worker makes a chunk of runs once and lets every rule decide on the same arrays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.decisions import cells, latency, rows, streams
from benchmarks.decisions.cells import Cell, Played
from benchmarks.decisions.latency import LatencyStream
from benchmarks.decisions.rows import Decided, Row

CHUNK = 50


@dataclass(frozen=True)
class Task:
    """One chunk of one cell; `cell` is an index, because rules need not travel between processes."""

    cell: int
    chunk: int


class Work:
    """All cells, and the chunks that they fall into."""

    def __init__(self, found: Sequence[Cell], seed: int) -> None:
        self.cells, self.seed = found, seed

    def tasks(self) -> list[Task]:
        """The chunks of all cells; those of the longest cells first, so that no core waits at the end."""
        return [Task(number, chunk) for number, cell in enumerate(self.cells) for chunk in range(-(-cell.runs // CHUNK))]

    def decide(self, task: Task) -> dict[int, Decided]:
        """What each rule that plays this chunk decided, by the rule's place in the cell."""
        cell = self.cells[task.cell]
        before = task.chunk * CHUNK
        playing = {place: min(played.runs - before, CHUNK) for place, played in enumerate(cell.played) if played.runs > before}
        runs = max(playing.values())
        if isinstance(cell.stream, LatencyStream):
            return self._latency(cell, cell.stream, task.chunk, runs, playing)
        batch = streams.make(cell.stream, runs, self.seed, task.chunk)
        found = {}
        for place, some in playing.items():
            mine = streams.part(batch, slice(0, some))
            polls = cell.played[place].rule.decide(mine)
            found[place] = rows.decided(polls, mine.seconds, mine.n1 + mine.n0, mine.e1)
        return found

    def _latency(self, cell: Cell, stream: LatencyStream, chunk: int, runs: int, playing: dict[int, int]) -> dict[int, Decided]:
        batch = latency.make(stream, runs, self.seed, chunk)
        found = {}
        for place, some in playing.items():
            mine = latency.part(batch, slice(0, some))
            polls = cell.played[place].rule.decide_latency(mine)  # type: ignore[attr-defined]
            requests = mine.h1.sum(axis=2)
            found[place] = rows.decided(polls, mine.seconds, requests + mine.h0.sum(axis=2), np.zeros_like(requests))
        return found


_work: Work


def _begin(work: Work) -> None:
    global _work  # noqa: PLW0603 - set once in each worker
    _work = work
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which writes what is done


def _decide(task: Task) -> tuple[Task, dict[int, Decided]]:
    return task, _work.decide(task)


def results(found: Sequence[Cell], seed: int, cores: int) -> Iterator[tuple[Cell, list[Row]]]:
    """The rows of each cell, as cells are finished."""
    work = Work(found, seed)
    tasks = work.tasks()
    open_ = {number: sum(task.cell == number for task in tasks) for number in range(len(found))}
    parts: dict[int, dict[int, dict[int, Decided]]] = {}
    begin = time.monotonic()
    for done, (task, decided) in enumerate(_played(work, tasks, cores), start=1):
        parts.setdefault(task.cell, {})[task.chunk] = decided
        open_[task.cell] -= 1
        _progress(done, len(tasks), time.monotonic() - begin)
        if open_[task.cell] == 0:
            cell = found[task.cell]
            yield cell, _rows(cell, parts.pop(task.cell), seed)
    print(file=sys.stderr)


def _played(work: Work, tasks: Iterable[Task], cores: int) -> Iterator[tuple[Task, dict[int, Decided]]]:
    if cores == 1:
        _begin(work)
        yield from map(_decide, tasks)
        return
    with multiprocessing.get_context("fork").Pool(cores, _begin, (work,)) as pool:
        yield from pool.imap_unordered(_decide, tasks)


def _rows(cell: Cell, chunks: dict[int, dict[int, Decided]], seed: int) -> list[Row]:
    return [
        _row(cell, played, [chunks[n][place] for n in sorted(chunks) if place in chunks[n]], seed)
        for place, played in enumerate(cell.played)
    ]


def _row(cell: Cell, played: Played, parts: Sequence[Decided], seed: int) -> Row:
    stream = cell.stream
    about: dict[str, float | str | None] = {"seed": float(seed), "w": stream.share}
    if not isinstance(stream, LatencyStream):
        about |= {"p0": stream.p0, "p1": stream.p1, "rps": stream.rps}
    return rows.row(
        rows.together(parts),
        stream=stream.name,
        null=stream.null,
        rule=played.rule.name,
        alpha=played.alpha,
        floor=cells.floor_of(cell, played),
        family=cell.family,
        about=about,
    )


def _progress(done: int, of: int, seconds: float) -> None:
    """One line that is written over, on a terminal; a line now and then in a log."""
    left = seconds / done * (of - done)
    text = f"{done}/{of} chunks, {seconds:.0f} s, about {left:.0f} s left"
    if sys.stderr.isatty():
        print(f"\r{text}   ", end="", file=sys.stderr, flush=True)
    elif done % max(of // 20, 1) == 0:
        print(text, file=sys.stderr, flush=True)


def cores() -> int:
    """How many may be used."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
