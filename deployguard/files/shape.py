"""The shape of a model seen from a place in a file: which fields are known there, and what they mean."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deployguard.model.fields import Place

Model = type[BaseModel]


def fields_of(model: Model) -> dict[str, FieldInfo]:
    """The fields of a model by the names that stand in files."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def members(annotation: Any) -> list[Any]:
    """What a value of this annotation may be: unions opened, `Annotated` and None taken away."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [found for option in get_args(annotation) for found in members(option)]
    return [] if annotation is type(None) else [annotation]


def is_model(annotation: Any) -> bool:
    """Whether the annotation is a model class."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def field_at(model: Model, place: Place, data: Any) -> FieldInfo | None:
    """The field whose value stands at `place`; None for items of lists and for places that the model does not know."""
    if not place or not isinstance(place[-1], str):
        return None
    parent = model_at(model, place[:-1], data)
    return fields_of(parent).get(place[-1]) if parent else None


def model_at(model: Model, place: Place, data: Any) -> Model | None:
    """The model of the map at `place`, chosen by what stands there when several are possible."""
    options: list[Any] = [model]
    for step in place:
        here = _chosen(options, data)
        inner = _value_at(data, step)
        if here is not None and isinstance(step, str):
            info = fields_of(here).get(step)
            options = members(info.annotation) if info else []
        else:
            options = [found for option in options for found in members(_item(option))]
        data = inner
    return _chosen(options, data)


def _item(annotation: Any) -> Any:
    arguments = get_args(annotation)
    return arguments[-1] if get_origin(annotation) in (list, dict) and arguments else type(None)


def _value_at(data: Any, step: str | int) -> Any:
    try:
        return data[step]
    except (KeyError, IndexError, TypeError):
        return None


def _chosen(options: Iterable[Any], data: Any) -> Model | None:
    models: list[Model] = [option for option in options if is_model(option)]
    if len(models) < 2 or not isinstance(data, dict):
        return models[0] if len(models) == 1 else None
    if "source" in data:
        return next((model for model in models if _default(model, "source") == data["source"]), None)
    return max(models, key=lambda model: len(fields_of(model).keys() & data.keys()))


def _default(model: Model, field: str) -> Any:
    info = model.model_fields.get(field)
    return info.default if info else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    found = difflib.get_close_matches(word[:100].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def close(word: str, other: str) -> bool:
    """Whether one is the other with a slip of the finger."""
    return difflib.SequenceMatcher(None, word[:100].lower(), other).ratio() >= 0.8


def listed(words: Iterable[str]) -> str:
    """`a`, `b`, `c`."""
    return ", ".join(f"`{word}`" for word in words)
