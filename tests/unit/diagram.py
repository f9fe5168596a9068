"""The state diagram of docs/design.md, drawn from the engine's code: `python -m tests.unit.diagram` prints it.

Each function that can end a phase is read with one phase at a time: tests of the phase (`isinstance(phase, ...)`, `match phase`) are
decided, every other branch is taken both ways, and each call of `entered(...)` that remains is an arrow.
"""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import deployguard.engine as engine
from deployguard.model import rollout

PHASES = [c.__name__ for c in (rollout.Waiting, rollout.Advancing, rollout.Analyzing, rollout.Holding, rollout.Watching)]
PHASES += [c.__name__ for c in (rollout.RollingBack, rollout.Verifying, *rollout.TERMINAL)]
TERMINAL = {c.__name__ for c in rollout.TERMINAL}
CONSTANTS = {"TERMINAL": TERMINAL}
MODULES = ("phases", "requests", "begin")
BEGIN = "[*]"

Arrow = tuple[str, str]


def _functions() -> dict[str, ast.FunctionDef]:
    room = Path(next(iter(engine.__path__)))
    trees = (ast.parse((room / f"{name}.py").read_text()) for name in MODULES)
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


FUNCTIONS = _functions()


class Reader:
    """One function, read for one phase: the arrows it can take, each with the words that are passed along."""

    def __init__(self, source: str, seen: frozenset[str] = frozenset()) -> None:
        self.source = source
        self.seen = seen
        self.found: list[Arrow] = []
        self.bound: dict[str, str] = {}

    def function(self, name: str) -> list[Arrow]:
        """The arrows of the function `name`; none for one that is being read already."""
        if name in self.seen:
            return []
        inner = Reader(self.source, self.seen | {name})
        inner.block(FUNCTIONS[name].body)
        return inner.found

    def block(self, body: list[ast.stmt]) -> bool:
        """Read statements in order; whether the end is certainly not reached."""
        return any(self.statement(one) for one in body)

    def statement(self, one: ast.stmt) -> bool:
        """Read one statement; whether nothing after it is certainly reached."""
        if isinstance(one, ast.If):
            self.calls(one.test)
            truth = self.decided(one.test)
            if truth is not None:
                return self.block(one.body if truth else one.orelse)
            ends = self.block(one.body)
            return self.block(one.orelse) and ends and bool(one.orelse)
        if isinstance(one, ast.Match):
            about = isinstance(one.subject, ast.Name) and one.subject.id == "phase"
            ends = [self.block(case.body) for case in one.cases if not about or self.source in _classes(case.pattern)]
            return about and all(ends)
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name) and (word := self.phase_of(one.value)):
            self.bound[one.targets[0].id] = word
        self.calls(one)
        return isinstance(one, (ast.Return, ast.Raise))

    def decided(self, test: ast.expr) -> bool | None:
        """What a test is for this phase; None when it depends on something else."""
        if isinstance(test, ast.BoolOp):
            sides = [self.decided(value) for value in test.values]
            if isinstance(test.op, ast.And):
                return False if False in sides else None
            return True if True in sides else None
        if isinstance(test, ast.Attribute) and test.attr == "terminal":
            return self.source in TERMINAL
        if isinstance(test, ast.Call) and _name(test.func) == "isinstance" and _name(test.args[0]) == "phase":
            return self.source in _names(test.args[1])
        return None

    def calls(self, node: ast.AST) -> None:
        """Take the arrows of every call in `node`."""
        for call in [n for n in ast.walk(node) if isinstance(n, ast.Call)]:
            name = _name(call.func)
            if name == "entered":
                if to := self.phase_of(call.args[1]):
                    self.found.append((to, ""))
            elif name in FUNCTIONS:
                words = _words(call) if name in ("turned_back", "_held") else ["fail"] if name == "condemned" else [""]
                for (to, word), said in itertools.product(self.function(name), words):
                    self.found.append((to, word or said))

    def phase_of(self, node: ast.expr) -> str | None:
        """The phase that an expression makes: a call of its class, a bound name, or a copy of the present one."""
        if isinstance(node, ast.Name):
            return self.bound.get(node.id)
        if not isinstance(node, ast.Call):
            return None
        name = _name(node.func)
        if name in PHASES:
            return name
        return self.source if name == "replace" and _name(node.args[0]) == "phase" else None


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _names(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Tuple):
        return {_name(part) for part in node.elts}
    return CONSTANTS.get(_name(node), {_name(node)})


def _classes(pattern: ast.pattern) -> set[str]:
    if isinstance(pattern, ast.MatchOr):
        return {name for part in pattern.patterns for name in _classes(part)}
    return {_name(pattern.cls)} if isinstance(pattern, ast.MatchClass) else set()


def _words(call: ast.Call) -> list[str]:
    """The word that says why: a constant, both sides of a condition, or a person's request."""
    node = call.args[3] if _name(call.func) == "_held" else call.args[2]
    if isinstance(node, ast.IfExp):
        return [n.value for n in (node.body, node.orelse) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else ["a request"]


def arrows() -> dict[Arrow, list[str]]:
    """Every way from phase to phase, with the words for why, each once."""
    found: dict[Arrow, list[str]] = {(BEGIN, "Waiting"): ["run"]}
    for to, _ in Reader("Waiting").function("returned"):
        if to not in TERMINAL:
            found.setdefault((BEGIN, to), []).append("rollback of a settled target")
    for source in PHASES:
        ways = {"advanced": "", "asked": "a request", "closed": "a new candidate"}
        for (to, word), why in ((arrow, why) for entry, why in ways.items() for arrow in Reader(source).function(entry)):
            words = found.setdefault((source, to), [])
            words.append((word or why).replace("_", " "))
    return {arrow: [w for w in dict.fromkeys(words) if w] for arrow, words in found.items()}


def mermaid() -> str:
    """The diagram in Mermaid's notation."""
    lines = ["stateDiagram-v2"]
    found = arrows()
    for (source, to), words in found.items():
        lines.append(f"    {source} --> {to}" + (f" : {', '.join(words)}" if words else ""))
    reached = {to for _, to in found}
    lines += [f"    {phase} --> [*]" for phase in PHASES if phase in TERMINAL & reached]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(mermaid(), end="")
