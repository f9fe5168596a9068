"""The reference of the files, made from the models: `python -m deployguard.files.reference` prints docs/reference.md."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deployguard.files.reference_text import EXAMPLES, HEAD, TAIL
from deployguard.files.scenario_file import ScenarioFile, ScenarioListFile
from deployguard.files.shape import Model, fields_of, is_model, members
from deployguard.files.type_words import anchor, type_of
from deployguard.files.write import plain
from deployguard.model.fleet import FleetFile
from deployguard.model.guard import GuardFile
from deployguard.model.policy import PolicyFile
from deployguard.model.units import format_duration, format_share

SINCE: dict[tuple[str, str], str] = {}
"""The release that brought a field, by model and field, where it was not the first."""
FIRST = "0.1.0"

PARTS: list[tuple[str, tuple[Model, ...]]] = [
    ("Guard", (GuardFile,)),
    ("GuardPolicy", (PolicyFile,)),
    ("LocalFleet", (FleetFile,)),
    ("PolicyTest", (ScenarioFile, ScenarioListFile)),
]


def reference() -> str:
    """The whole of docs/reference.md."""
    lines = [HEAD]
    shown: set[Model] = {root for _, roots in PARTS for root in roots}
    for title, roots in PARTS:
        lines += [f"## {title} files", "", "```yaml", EXAMPLES[title].strip(), "```", ""]
        for root in roots:
            lines += _section(root, shown | set(_inside(ScenarioListFile)))
        for root in roots:
            for model in _inside(root):
                if model not in shown:
                    shown.add(model)
                    lines += _section(model, set())
    return "\n".join([*lines, TAIL.strip(), ""])


def _inside(model: Model) -> list[Model]:
    """The models that a model is made of, in the order of its fields, each before what it is made of itself."""
    found: list[Model] = []
    for info in model.model_fields.values():
        for part in _models(info.annotation):
            found += [part, *_inside(part)]
    return list(dict.fromkeys(found))


def _models(annotation: Any) -> list[Model]:
    found: list[Model] = []
    for option in members(annotation):
        if is_model(option):
            found.append(option)
        elif get_origin(option) in (list, dict):
            found += _models(get_args(option)[-1])
    return found


def _section(model: Model, described: set[Model]) -> list[str]:
    """The table of a model; fields of a parent that has a table of its own are not repeated."""
    summary = (model.__doc__ or "").strip().replace("\n    ", " ")
    parent = next((base for base in model.__mro__[1:] if base in described), None)
    inherited = set(fields_of(parent)) if parent else set()
    if parent:
        summary += f" It has all fields of [{parent.__name__}](#{anchor(parent)}), and these:"
    rows = [
        f"### {model.__name__}",
        "",
        summary,
        "",
        "| field | type | unit | default | since | description |",
        "|---|---|---|---|---|---|",
    ]
    for name, info in fields_of(model).items():
        if name in inherited:
            continue
        words, unit = type_of(info)
        since = SINCE.get((model.__name__, name), FIRST)
        cells = [f"`{name}`", words, unit, _default(info, words), since, info.description or ""]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


def _default(info: FieldInfo, words: str) -> str:
    value = info.get_default(call_default_factory=False)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "not given"
    return f"`{_written(value, words)}`"


def _written(value: Any, words: str) -> str:
    if isinstance(value, dt.timedelta):
        return format_duration(value)
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name}: {_written(item, '')}" for name, item in plain(value).items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    if words == "share":
        return format_share(value)
    if words.endswith("intervals") and isinstance(value, int):
        return f"{value} intervals"
    if isinstance(value, list):
        return "[" + ", ".join(_written(item, "") for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(item, '')}" for name, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


if __name__ == "__main__":
    sys.stdout.write(reference())
