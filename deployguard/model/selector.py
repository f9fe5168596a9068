"""Series selectors in PromQL's notation: `http_requests_total{code=~"5..", route!="/healthz"}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')\s*')
_NUMBERS = ("le", "quantile")
"""Labels that hold a number, which one format writes as 1 and another as 1.0."""
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; an absent label counts as the empty string, as in Prometheus."""

    label: str
    op: str
    value: str
    pattern: re.Pattern[str] | None = None

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels passes."""
        found = labels.get(self.label, "")
        if self.pattern is not None:
            return bool(self.pattern.fullmatch(found)) == (self.op == "=~")
        return (found == self.value or (self.label in _NUMBERS and _same_number(found, self.value))) == (self.op == "=")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric name and conditions on its labels."""

    name: str
    matchers: tuple[Matcher, ...]

    def accepts(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the series `name{labels}` is selected."""
        return name == self.name and all(matcher.accepts(labels) for matcher in self.matchers)


def _same_number(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return False


@lru_cache(maxsize=512)
def parse_selector(text: str) -> Selector:
    """The selector that `text` writes. Raises ValueError naming the place where it stops making sense."""
    start = _NAME.match(text.strip())
    if not start:
        raise ValueError(f'`{text}` is not a series selector; write a metric name, as in `http_requests_total{{code=~"5.."}}`')
    name, rest = start[0], text.strip()[start.end() :].strip()
    if not rest:
        return Selector(name, ())
    if not (rest.startswith("{") and rest.endswith("}")):
        raise ValueError(f"`{rest}` after `{name}` does not parse; label conditions stand in one pair of braces")
    return Selector(name, _matchers(text, rest[1:-1]))


def _matchers(text: str, body: str) -> tuple[Matcher, ...]:
    matchers, at = [], 0
    while body[at:].strip():
        match = _MATCHER.match(body, at)
        if not match:
            raise ValueError(f'`{body[at:].strip()}` in `{text}` does not parse; write `label="value"`, with =, !=, =~ or !~')
        label, op, quoted = match[1], match[2], match[3]
        value = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], "\\" + m[1]), quoted[1:-1])
        matchers.append(Matcher(label, op, value, _pattern(text, value) if op in ("=~", "!~") else None))
        at = match.end()
        if at < len(body) and body[at] != ",":
            raise ValueError(f"`{body[at:].strip()}` in `{text}` does not parse; conditions are separated by commas")
        at += 1
    return tuple(matchers)


def _pattern(text: str, value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"`{value}` in `{text}` is not a regular expression: {error}") from error
