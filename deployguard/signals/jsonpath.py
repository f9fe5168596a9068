"""The small part of JSONPath that an expectation needs: one place in a document, `$.a.b[0]` or `$['a b'][-1]`."""

from __future__ import annotations

import re
from typing import Any

_PIECE = re.compile(r"""\.([A-Za-z_][\w-]*)|\[(-?\d+)\]|\[(?:'([^']*)'|"([^"]*)")\]""")
Path = tuple[str | int, ...]


def parse_path(text: str) -> Path:
    """The keys and indices that lead to the place. Raises ValueError naming the piece that does not parse."""
    if not text.startswith("$"):
        raise ValueError(f"`{text}` is not a JSONPath; it begins with `$`, as in `$.items[0].name`")
    at, keys = 1, list[str | int]()
    while at < len(text):
        match = _PIECE.match(text, at)
        if not match:
            raise ValueError(f"`{text[at:]}` in `{text}` does not parse; write `.name`, `[0]` or `['a name']`")
        index = match[2]
        keys.append(int(index) if index is not None else next(key for key in match.group(1, 3, 4) if key is not None))
        at = match.end()
    return tuple(keys)


def find(document: Any, path: Path) -> tuple[bool, Any]:
    """Whether the place exists, and what stands there."""
    for key in path:
        if isinstance(key, str):
            there = isinstance(document, dict) and key in document
        else:
            there = isinstance(document, list) and -len(document) <= key < len(document)
        if not there:
            return False, None
        document = document[key]
    return True, document


def same(found: Any, expected: Any) -> bool:
    """Equality as JSON has it: 1 equals 1.0, and true equals neither."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in found)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)
