"""JSON Schemas of the files, for editors: made from the models, so that they cannot say anything else.

`python -m deployguard.files.schemas docs/schemas` writes the committed copies.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from deployguard.errors import UserError
from deployguard.files.scenario_file import ScenarioFile, ScenarioListFile
from deployguard.files.shape import listed
from deployguard.files.write import plain
from deployguard.model.fleet import FleetFile
from deployguard.model.guard import GuardFile
from deployguard.model.policy import PolicyFile
from deployguard.model.units import format_duration

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "guard": (GuardFile,),
    "policy": (PolicyFile,),
    "fleet": (FleetFile,),
    "test": (ScenarioFile, ScenarioListFile),
}


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `guard`, `policy`, `fleet` or `test`. Raises `UserError` for any other word."""
    if kind not in MODELS:
        raise UserError(f"no schema `{kind}`", hint=f"there are {listed(MODELS)}")
    models = MODELS[kind]
    if len(models) == 1:
        return {"$schema": DIALECT, **_of(models[0])}
    parts = [_of(model) for model in models]
    definitions: dict[str, Any] = {}
    for part in parts:
        definitions |= part.pop("$defs", {})
    return {"$schema": DIALECT, "title": parts[0]["title"], "anyOf": parts, "$defs": definitions}


def schema_text(kind: str) -> str:
    """The schema as it is printed and committed."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"


def _of(model: type[BaseModel]) -> dict[str, Any]:
    written = _tidy(model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator))
    if "spec" in written["properties"]:
        written["required"] = ["kind", *written["required"]]
    return dict(written)


class _Generator(GenerateJsonSchema):
    """Writes default values as they stand in files."""

    def encode_default(self, dft: Any) -> Any:
        """`5m`, not the seconds or the ISO form of it."""
        if isinstance(dft, dt.timedelta):
            return format_duration(dft)
        return plain(dft) if isinstance(dft, BaseModel) else super().encode_default(dft)


def _tidy(part: Any) -> Any:
    """The schema as a reader of files needs it: no OpenAPI keywords, and the word that tells checks apart is required."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    tidy = {
        key: _tidy(value)
        for key, value in part.items()
        if not (key == "discriminator" and isinstance(value, dict) and "propertyName" in value)
    }
    if "const" in _mapping(_mapping(tidy.get("properties")).get("source")):
        tidy["required"] = [*tidy.get("required", []), "source"]
    return tidy


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def main(folder: str) -> None:
    """The committed copies in `folder` are what the models say."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for kind in MODELS:
        (Path(folder) / f"{kind}.json").write_text(schema_text(kind), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
