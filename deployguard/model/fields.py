"""The field types of the files that people write, each with its text form and its JSON Schema."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from deployguard.model.selector import parse_selector
from deployguard.model.units import format_duration, format_share, parse_duration, parse_share

ApiVersion = Literal["deployguard.dev/v1alpha1"]


class Written(BaseModel):
    """A part of a file: unknown fields are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, validate_default=True)


Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A broken rule: `what is wrong; what would be right`, and the places it is about, the most telling one first."""

    text: str
    places: tuple[Place, ...]


class Broken(ValueError):
    """Rules between fields that do not hold, all of them at once, so that each can be shown where it is broken."""

    def __init__(self, *rules: Rule) -> None:
        super().__init__(", and ".join(rule.text for rule in rules))
        self.rules = rules


def broken(text: str, *places: Place) -> Broken:
    """The error for a single broken rule."""
    return Broken(Rule(text, places))


def _shown(value: Any) -> str:
    if value is None:
        return "an empty value"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a map"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _duration(value: Any) -> Any:
    if isinstance(value, dt.timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    if value == 0 and not isinstance(value, bool):
        return dt.timedelta(0)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        raise ValueError(f"`{value:g}` has no unit; write `{value:g}s` or `{value:g}m`")
    raise ValueError(f"{_shown(value)} is not a duration; write one such as `30s` or `5m`")


def _share(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{_shown(value)} is not a share; write a percentage such as `25%`")
    return parse_share(value)


def _selector(value: Any) -> Any:
    if isinstance(value, str):
        parse_selector(value)
    return value


def is_query(text: str) -> bool:
    """Whether `text` is a query of a monitoring system rather than a selector."""
    return "$arm" in text or "$window" in text or "(" in text.partition("{")[0]


def _query(value: Any) -> Any:
    if not isinstance(value, str) or not is_query(value):
        return _selector(value)
    for name, what in (("$arm", "the condition on the instances"), ("$window", "the time that is asked for")):
        if name not in value:
            example = 'sum(increase(http_requests_total{code=~"5..",$arm}[$window]))'
            raise ValueError(f"the query has no `{name}`, {what}; write one as in `{example}`, or a selector")
    return value


def _pattern(value: Any) -> Any:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"`{value}` is not a regular expression: {error}") from error
    return value


def _above_zero(value: dt.timedelta) -> dt.timedelta:
    if value <= dt.timedelta(0):
        raise ValueError("`0s` is no time at all; write a longer one, such as `1s`")
    return value


def _instant(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value
    try:
        return dt.datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{_shown(value)} is not an instant; write one as in `2026-12-24T18:00:00+01:00`") from error


_INTERVALS = re.compile(r"(\d+)\s*intervals?")


def _span(value: Any) -> Any:
    """A duration, or a number of poll intervals kept as an int."""
    if isinstance(value, str) and (match := _INTERVALS.fullmatch(value.strip())):
        if int(match[1][:9]) == 0:
            raise ValueError(f"`{value}` is no time at all; write at least `1 interval`")
        return int(match[1][:9])
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return _duration(value)


Duration = Annotated[
    dt.timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$|^0$", "examples": ["30s", "5m", "1h30m"]}),
]
PositiveDuration = Annotated[Duration, AfterValidator(_above_zero)]
Span = Annotated[
    dt.timedelta | int,
    BeforeValidator(_span),
    PlainSerializer(lambda v: f"{v} intervals" if isinstance(v, int) else format_duration(v), return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$|^\d+ intervals?$"},
                {"type": "integer", "minimum": 1},
            ],
            "examples": ["2 intervals", "5m"],
        }
    ),
]
Share = Annotated[
    float,
    BeforeValidator(_share),
    PlainSerializer(format_share, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "examples": ["25%", "0.02%"],
        }
    ),
]
Instant = Annotated[
    dt.datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-12-24T18:00:00+01:00"]}),
]
SelectorText = Annotated[
    str,
    BeforeValidator(_selector),
    WithJsonSchema({"type": "string", "examples": ['http_requests_total{code=~"5.."}']}),
]
QueryText = Annotated[
    str,
    BeforeValidator(_query),
    WithJsonSchema(
        {
            "type": "string",
            "examples": ['http_requests_total{code=~"5.."}', 'sum(increase(http_requests_total{code=~"5..",$arm}[$window]))'],
        }
    ),
]
PatternText = Annotated[
    str,
    Field(min_length=1),
    BeforeValidator(_pattern),
    WithJsonSchema({"type": "string", "minLength": 1, "format": "regex", "examples": ["ERROR|FATAL"]}),
]
