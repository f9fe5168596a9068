"""The type of a field in the words of the reference: `duration`, `list of text`, `whole number, 1 to 500`."""

from __future__ import annotations

import datetime as dt
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from deployguard.files.scenario_file import ExpectedLine
from deployguard.files.scenario_series import GaugeText, PartText, SeriesText
from deployguard.files.shape import is_model
from deployguard.files.wording import PATTERNS
from deployguard.model.fields import Duration, Instant, PatternText, QueryText, SelectorText, Share, Span

Words = tuple[str, str]
"""Type and unit."""


def _validator(annotated: Any) -> Any:
    return next(item.func for item in annotated.__metadata__ if isinstance(item, BeforeValidator))


_OWN: dict[Any, Words] = {
    _validator(Duration): ("duration", "ms, s, m, h, d"),
    _validator(Share): ("share", "%"),
    _validator(Span): ("duration or intervals", "ms, s, m, h, d; polls"),
    _validator(SelectorText): ("selector", ""),
    _validator(QueryText): ("selector or query", ""),
    _validator(PatternText): ("regular expression", ""),
    _validator(Instant): ("instant", "ISO 8601 with offset"),
    _validator(SeriesText): ("series", ""),
    _validator(GaugeText): ("series", ""),
    _validator(PartText): ("series or share", ""),
    _validator(ExpectedLine): ("text", ""),
}
_PLAIN: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", dt.timedelta: "duration"}


def type_of(info: FieldInfo) -> Words:
    """Type and unit of a field."""
    words, unit = _words(info.annotation, list(info.metadata))
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "x-unit" in extra:
        unit = str(extra["x-unit"])
    return words, unit


def _words(annotation: Any, metadata: list[Any]) -> Words:
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = [*metadata, *_flat(more)]
    for item in metadata:
        if isinstance(item, BeforeValidator) and item.func in _OWN:
            return _OWN[item.func]
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        found = [_words(option, metadata if len(options) == 1 else []) for option in options]
        return " or ".join(dict.fromkeys(words for words, _ in found)), next((unit for _, unit in found if unit), "")
    if origin is Literal:
        return " or ".join(f"`{str(word).lower() if isinstance(word, bool) else word}`" for word in get_args(annotation)), ""
    if origin is list:
        words, unit = _words(get_args(annotation)[0], [])
        return f"list of {words}", unit
    if origin is dict:
        words, _ = _words(get_args(annotation)[1], [])
        return f"map to {words}", ""
    if is_model(annotation):
        return f"[{annotation.__name__}](#{anchor(annotation)})", ""
    return _PLAIN.get(annotation, "any value") + _bounds(metadata), ""


def anchor(model: type[BaseModel]) -> str:
    """The anchor of the model's section."""
    return model.__name__.lower()


def _flat(metadata: list[Any]) -> list[Any]:
    return [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _bounds(metadata: list[Any]) -> str:
    low = next((f"{item.ge:,}" for item in metadata if isinstance(item, Ge)), None)
    above = next((f"{item.gt:,}" for item in metadata if isinstance(item, Gt)), None)
    high = next((f"{item.le:,}" for item in metadata if isinstance(item, Le)), None)
    below = next((f"{item.lt:,}" for item in metadata if isinstance(item, Lt)), None)
    pattern = next((item.pattern for item in metadata if getattr(item, "pattern", None)), None)
    if pattern in PATTERNS:
        return ": " + PATTERNS[pattern].removeprefix("write ")
    words = [
        f"from {low}" if low else "",
        f"above {above}" if above else "",
        f"to {high}" if high else "",
        f"below {below}" if below else "",
    ]
    said = " ".join(word for word in words if word)
    return f", {said}" if said else ""
