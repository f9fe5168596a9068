"""YAML to plain data that remembers its lines, because an error without a line is half an error.

The parser's events are read one by one: depth, number of nodes and the growth by aliases are bounded before anything is
built, so that no file of 1 MB can take much time or memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deployguard.errors import Fault, FileError
from deployguard.files.read import read_text
from deployguard.files.scalars import CORE, resolve, tagged

NODES = 100_000
DEPTH = 50
"""Values of one file, and how deep they nest: more than anybody writes by hand. What tools write may be larger."""

Place = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """One YAML document as plain data. `lines` and `texts` are by place: where it stands, and a plain scalar as written."""

    path: str
    data: Any
    line: int = 1
    lines: dict[Place, int] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line_of(self, place: Place) -> int:
        """The line of `place`, or of the nearest place around it that has one."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return self.line


@dataclass(slots=True)
class _Node:
    """A parsed value: a scalar, or children with their keys. `size` and `height` count what aliases stand for."""

    line: int
    value: Any = None
    text: str | None = None
    children: list[tuple[str | int, int, _Node]] | None = None
    mapping: bool = False
    size: int = 1
    height: int = 1


def read_yaml(path: str | Path) -> list[Document]:
    """The documents of a file. Raises `FileError` when it cannot be read or is not YAML."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, path: str, *, nodes: int = NODES, depth: int = DEPTH) -> list[Document]:
    """The documents of `text`; empty ones are left out, and duplicate keys are noted in `faults`."""
    reader = _Reader(path, text, nodes, depth)
    try:
        return [_document(path, root) for root in reader.roots() if not (root.children is None and root.value is None)]
    except yaml.YAMLError as error:
        raise FileError(path, [_syntax(text, error)]) from error


class _Reader:
    """Builds nodes from events, and stops as soon as a bound is passed."""

    def __init__(self, path: str, text: str, nodes: int, depth: int) -> None:
        self.path = path
        self.most = nodes
        self.deepest = depth
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self.anchors: dict[str, _Node] = {}
        self.nodes = 0

    def roots(self) -> Iterator[_Node]:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors = {}
                yield self._node(next(self.events), 1)

    def _refuse(self, line: int, found: str, right: str) -> FileError:
        return FileError(self.path, [Fault(line, "", found, right)])

    def _node(self, event: Any, depth: int) -> _Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line, depth)
        self._count(1, line)
        if depth > self.deepest:
            raise self._refuse(line, f"nested more than {self.deepest} deep", "no field of a guard file is that deep")
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line)
        else:
            node = _Node(line, children=[], mapping=isinstance(event, yaml.MappingStartEvent))
            self._plain_tag(event, line)
            self._fill(node, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _count(self, nodes: int, line: int) -> None:
        self.nodes += nodes
        if self.nodes > self.most:
            raise self._refuse(line, f"more than {self.most:,} values, counting what aliases stand for", "write fewer")

    def _alias(self, anchor: str, line: int, depth: int) -> _Node:
        known = self.anchors.get(anchor)
        if known is None:
            raise self._refuse(line, f"the alias `*{anchor}` has no anchor before it", f"write `&{anchor}` where the value stands first")
        self._count(known.size, line)
        if depth + known.height - 1 > self.deepest:
            raise self._refuse(line, f"the alias `*{anchor}` nests more than {self.deepest} deep", "no field of a guard file is that deep")
        return known

    def _fill(self, node: _Node, depth: int) -> None:
        assert node.children is not None
        event = next(self.events)
        while not isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            key: str | int = len(node.children)
            line = event.start_mark.line + 1
            if node.mapping:
                key = self._key(event, line)
                event = next(self.events)
            child = self._node(event, depth + 1)
            node.children.append((key, line, child))
            node.size += child.size
            node.height = max(node.height, child.height + 1)
            event = next(self.events)

    def _key(self, event: Any, line: int) -> str:
        self._count(1, line)
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refuse(line, "a key that is a list, a map or an alias", "keys are plain text")
        if event.value == "<<" and event.implicit[0]:
            raise self._refuse(line, "`<<` merges maps in YAML 1.1 only", "write the fields out, or use `override`")
        if event.anchor:
            self.anchors[event.anchor] = _Node(line, event.value, event.value)
        return str(event.value)

    def _scalar(self, event: Any, line: int) -> _Node:
        text = event.value
        if event.tag is not None and event.tag != "!":
            try:
                return _Node(line, tagged(text, event.tag))
            except ValueError as error:
                found, _, right = str(error).partition("; ")
                raise self._refuse(line, found, right) from error
        plain = event.implicit[0]
        return _Node(line, resolve(text), text) if plain else _Node(line, text)

    def _plain_tag(self, event: Any, line: int) -> None:
        own = CORE + ("map" if isinstance(event, yaml.MappingStartEvent) else "seq")
        if event.tag not in (None, "!", own):
            raise self._refuse(line, f"the tag `{event.tag.replace(CORE, '!!')}` is not allowed", "write plain values")


def _document(path: str, root: _Node) -> Document:
    document = Document(path, None, root.line)
    document.data = _plain(document, root, ())
    return document


def _plain(document: Document, node: _Node, place: Place) -> Any:
    if node.children is None:
        if node.text is not None:
            document.texts[place] = node.text
        return node.value
    if not node.mapping:
        items = []
        for key, line, child in node.children:
            document.lines[(*place, key)] = line
            items.append(_plain(document, child, (*place, key)))
        return items
    fields: dict[str | int, Any] = {}
    for key, line, child in node.children:
        here = (*place, key)
        if key in fields:
            first = document.lines[here]
            document.faults.append(Fault(line, dotted(here), f"written twice, first on line {first}", "keep one of them"))
            continue
        document.lines[here] = line
        fields[key] = _plain(document, child, here)
    return fields


def dotted(place: Place) -> str:
    """A place as people write it: `spec.stages[2].soak`."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


_PLAINER = {
    "did not find expected key": ("a line that fits neither the map nor the list it stands in", "check the indentation and the quotes"),
    "mapping values are not allowed in this context": ("a `:` where no key can stand", "put text with `: ` in quotes, or indent"),
    "could not find expected ':'": ("a key without `:`", "write `key: value`"),
    "did not find expected ',' or '}'": ("a `{` that is not closed", "write `{key: value, other: value}`"),
    "did not find expected ',' or ']'": ("a `[` that is not closed", "write `[one, two]`"),
    "found unexpected end of stream": ("a quote that is not closed", "close it"),
    "did not find expected '-' indicator": ("a line that fits neither the list nor the map it stands in", "check the indentation"),
    "did not find expected node content": ("a value is missing", "write it, or quote it when it begins with a special character"),
    "control characters are not allowed": ("a control character", "take it out, or write it as an escape in double quotes"),
}


def _syntax(text: str, error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
    if mark is None:
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 0
    else:
        line = mark.line + 1
        lines = text.split("\n")
        rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
        if rest.startswith("\t") or (rest and not lines[mark.line][: mark.column].strip() and "\t" in lines[mark.line][: mark.column + 1]):
            return Fault(line, "", "a tab", "YAML is indented with spaces")
        if problem.startswith("found character") and rest:
            return Fault(line, "", f"a value that begins with `{rest[0]}`", "put it in quotes")
    for pattern, (found, right) in _PLAINER.items():
        if pattern in problem:
            return Fault(line, "", found, right)
    return Fault(line, "", f"not YAML: {problem}", "check the indentation and the quotes")
