"""Playing a scenario: the real engine and driver on a simulated clock, fleet and traffic, and what came of it beside what was expected.

Series are per poll from the start of the rollout; what the candidate would have served before its first instance is not counted.
"""

from __future__ import annotations

import bisect
import datetime as dt
from dataclasses import dataclass, field
from typing import Any, cast

from deployguard.driver.tick import Driver
from deployguard.driver.world import Readings, World
from deployguard.engine import begin
from deployguard.errors import FileError
from deployguard.files.read import STDIN
from deployguard.files.scenario_file import LoadedScenario
from deployguard.files.write import plain
from deployguard.files.yaml_lines import read_yaml
from deployguard.model.document import Request, RequestVerb
from deployguard.model.evidence import Finding
from deployguard.model.fields import Place
from deployguard.model.rollout import Entry, Rollout, Verifying, Watching
from deployguard.model.units import format_duration
from deployguard.report.words import outcome
from deployguard.signals.replay import ReplaySource
from deployguard.stores.inbox import MemoryInbox
from deployguard.stores.memory import MemoryWorld
from deployguard.wiring.simulation import CANDIDATE_VERSION, Heard, PlayedFleet, PlayedStore, SimulatedClock, driver_in, sources
from deployguard.wiring.transcript import Line, Problem, difference, matches, nearest, numbers

GUARD = "scenario"
MOST_TICKS = 200_000


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a scenario. `findings` are the verdict's numbers at the first difference, or at the end when there is none.

    `diff` is empty when everything came as expected. `entries` are what the ledger holds.
    """

    transcript: list[str]
    outcome: str
    exit_code: int
    findings: str
    problems: list[Problem] = field(default_factory=list)
    diff: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything came as expected."""
        return not self.problems

    def explained(self) -> str:
        """The problems with file and line, the transcript beside what was expected, and the numbers."""
        lines = [*(str(problem) for problem in self.problems), ""] if self.problems else []
        return "\n".join([*lines, *(self.diff or self.transcript), "", *self.findings.splitlines()])


def play(loaded: LoadedScenario, readings: Readings | None = None) -> Played:
    """The scenario has been played on a simulated clock, as fast as the machine can. Nothing outside is read or changed.

    `readings` get the recording of it.
    """
    run = _Run(loaded, readings)
    run.to_end()
    run.left_over()
    found = matches(loaded.scenario.expected, run.lines, loaded.policy.interval)
    word, code, reason = outcome(run.rollout)
    problems = [*_missed(loaded, run.lines, found), *run.problems]
    wanted = loaded.scenario.outcome
    if wanted is not None and word != wanted:
        line = line_of(loaded, ("outcome",))
        problems.append(Problem(loaded.path, line, f"expected the outcome `{wanted}`, got `{word}`: {reason}"))
    instants = [problem.at for problem in problems if problem.at is not None]
    return Played(
        transcript=[str(line) for line in run.lines],
        outcome=word,
        exit_code=code,
        findings=next(filter(None, map(run.numbers_at, instants)), run.numbers_at(None)),
        problems=problems,
        diff=difference(loaded.scenario.expected, run.lines, found) if None in found else [],
        entries=run.entries,
    )


def _missed(loaded: LoadedScenario, lines: list[Line], found: list[int | None]) -> list[Problem]:
    problems = []
    for index, ((at, prefix), hit) in enumerate(zip(loaded.scenario.expected, found, strict=True)):
        if hit is None:
            text = f"expected `{format_duration(at)} {prefix}`; {nearest(at, prefix, lines, found)}"
            problems.append(Problem(loaded.path, line_of(loaded, ("expect", index)), text, at))
    return problems


def line_of(loaded: LoadedScenario, place: Place) -> int:
    """The line of a place in the scenario; the scenario's own line when the file cannot be read a second time."""
    try:
        documents = [] if loaded.path == STDIN else read_yaml(loaded.path)
    except FileError:
        documents = []
    for document in documents:
        tests = document.data.get("tests") if isinstance(document.data, dict) else None
        starts: list[Place] = [("tests", n) for n in range(len(tests))] if isinstance(tests, list) else [()]
        for start in starts:
            if document.line_of((*start, "why")) == loaded.line:
                return document.line_of((*start, *place))
    return loaded.line


class _Run:
    """One play: the clock jumps from tick to tick, and whatever happens in between happens at its own instant."""

    def __init__(self, loaded: LoadedScenario, readings: Readings | None) -> None:
        scenario, policy = loaded.scenario, loaded.policy
        self._loaded = loaded
        self._readings = readings
        self._start = scenario.start.astimezone(dt.UTC) if scenario.start.tzinfo else scenario.start.replace(tzinfo=dt.UTC)
        self._clock = SimulatedClock(self._start)
        self._memory = MemoryWorld()
        self._inbox = MemoryInbox()
        self._announcer = Heard()
        self._fleet = PlayedFleet(self._clock, scenario.instances)
        self._sources = sources(loaded, self._start)
        self._events = sorted(enumerate(scenario.events), key=lambda item: (item[1].at, item[0]))
        self._stopped = ""
        self._guards = 0
        self._looks: list[tuple[dt.timedelta, tuple[Finding, ...]]] = []
        self.problems: list[Problem] = []
        self.rollout = self._begun(plain(policy))
        self._driver = self._guard()
        self._next = self._start

    def _begun(self, spec: dict[str, Any]) -> Rollout:
        """The rollout of the candidate, saved in Waiting."""
        store = PlayedStore(self._memory, GUARD)
        document, revision = store.load()
        wish = begin.Wish("scenario", GUARD, GUARD, CANDIDATE_VERSION, spec)
        document = begin.begun(document, self._fleet.observe(), wish, self._start)
        store.save(document, revision)
        assert document.rollout is not None
        return document.rollout

    def _guard(self) -> Driver:
        """A new guard process; those before it are known to be gone."""
        self._guards += 1
        world = World(
            policy=self._loaded.policy,
            store=PlayedStore(self._memory, GUARD),
            inbox=self._inbox,
            target=self._fleet,
            sources=self._sources,
            announcer=self._announcer,
            clock=self._clock,
            me=f"guard-{self._guards}",
            gone=lambda _: True,
            stopped=lambda: self._stopped,
            readings=self._readings,
        )
        return driver_in(world)

    def to_end(self) -> None:
        """The rollout has been driven as far as the scenario asks."""
        calm, end = self._bounds()
        for _ in range(MOST_TICKS):
            self._happen()
            if self._next - self._start > end:
                return
            self._clock.at = self._next
            ticked = self._driver.tick()
            assert ticked.document.rollout is not None
            self.rollout, now = ticked.document.rollout, self._next - self._start
            self._looks.append((now, self.rollout.findings))
            settled = isinstance(self.rollout.phase, (Watching, Verifying)) and self._loaded.scenario.until is None
            if self.rollout.terminal or (settled and now >= calm):
                return
            self._next = ticked.wake if ticked.wake > self._next else self._next + self._loaded.policy.interval
        text = f"the play was stopped after {MOST_TICKS:,} ticks at {format_duration(self._next - self._start)}; give `until`"
        self.problems.append(Problem(self._loaded.path, self._loaded.line, text))

    def left_over(self) -> None:
        """Every event that did not happen any more has been noted: it would otherwise test nothing."""
        for number, event in self._events:
            word, value = event.what
            shown = f"{word}: {format_duration(value) if isinstance(value, dt.timedelta) else str(value).lower()}"
            self._missed(number, f"`{shown}` at {format_duration(event.at)} never happened: the play was over before")

    def _bounds(self) -> tuple[dt.timedelta, dt.timedelta]:
        """After which instant nothing more is expected or happens, and where the clock stops at the latest.

        It stops at `until`, or when every series is over and the longest deadline of the policy has passed.
        """
        scenario, policy = self._loaded.scenario, self._loaded.policy
        gone = [at if isinstance(at, dt.timedelta) else dt.timedelta(0) for at in (event.what[1] for event in scenario.events)]
        last = [event.at + extra for event, extra in zip(scenario.events, gone, strict=True)]
        last += [at for at, _ in scenario.expected]
        calm = max(last, default=dt.timedelta(0)) + policy.interval
        if scenario.until is not None:
            return calm, scenario.until
        polls = max((arm.polls for series in scenario.series.values() for arm in series.arms.values()), default=0)
        deadlines = (policy.advance_within, policy.blind.retreat_after, policy.blind.hold_limit, policy.rollback.within)
        return calm, max(calm, policy.interval * polls + max(deadlines))

    def _happen(self) -> None:
        """Every event up to the next tick has happened, each at its own instant. A guard that is gone puts the tick off."""
        while self._events and self._start + self._events[0][1].at <= self._next:
            number, event = self._events.pop(0)
            self._clock.at = self._start + event.at
            word, value = event.what
            if isinstance(value, dt.timedelta):
                self._next = max(self._next, self._clock.at + value)
                self._driver = self._guard()
            elif word.startswith(("crash", "reset")):
                self._hit(number, word, int(value), event.at)
            elif word == "never_ready":
                self._fleet.never_ready(int(value))
            else:
                self._asked(number, cast(RequestVerb, word))

    def _hit(self, number: int, word: str, count: int, at: dt.timedelta) -> None:
        """So many instances of an arm have crashed, or have begun to count anew."""
        what, _, stable = word.partition("_")
        if what == "crash":
            hit = self._fleet.crash(count, candidate=not stable)
        else:
            uids = [one.uid for one in self._fleet.picked(count, candidate=not stable)]
            hit = len(uids)
            for source in self._sources.values():
                if isinstance(source, ReplaySource):
                    source.reset(uids)
        if hit < count:
            self._missed(number, f"`{word}: {count}` found {hit} instances to {what} at {format_duration(at)}")

    def _asked(self, number: int, verb: RequestVerb) -> None:
        """A person's request lies in the inbox; `stop` stops every promotion, until `resume`."""
        if verb in ("stop", "resume"):
            self._stopped = "ann stopped all promotions" if verb == "stop" else ""
        if verb != "stop":
            self._inbox.put(Request(f"event-{number + 1}", verb, "ann", self._clock.at))

    def _missed(self, number: int, text: str) -> None:
        self.problems.append(Problem(self._loaded.path, line_of(self._loaded, ("events", number)), text))

    @property
    def entries(self) -> list[Entry]:
        """What the ledger holds."""
        return self._memory.ledgers.get(GUARD, [])

    @property
    def lines(self) -> list[Line]:
        """The transcript: each phase that was entered."""
        return [Line(e.at - self._start, f"{e.phase} {e.text}".rstrip()) for e in self.entries if e.event == "transition"]

    def numbers_at(self, at: dt.timedelta | None) -> str:
        """The numbers of the verdict at an instant, or at the end; empty when nothing had been judged by then."""
        index = bisect.bisect_right(self._looks, at, key=lambda look: look[0]) - 1 if at is not None else len(self._looks) - 1
        when, findings = self._looks[max(index, 0)]
        return "\n".join([f"at {format_duration(when)}:", *(f"  {line}" for line in numbers(findings))]) if findings else ""
