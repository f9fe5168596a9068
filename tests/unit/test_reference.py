"""The reference and the schemas say what the models say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deployguard.errors import UserError
from deployguard.files.bundle import KINDS
from deployguard.files.guard_file import load_bundle, resolve
from deployguard.files.reference import PARTS, reference
from deployguard.files.reference_text import EXAMPLES
from deployguard.files.scenario_file import load_scenarios
from deployguard.files.schemas import MODELS, schema, schema_text
from deployguard.files.shape import Model, fields_of, is_model, members
from deployguard.files.wording import PATTERNS
from deployguard.files.yaml_lines import parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]
KIND = {"Guard": "guard", "GuardPolicy": "policy", "LocalFleet": "fleet", "PolicyTest": "test"}


def test_the_committed_reference_is_what_the_models_say() -> None:
    """`python -m deployguard.files.reference > docs/reference.md` makes it so."""
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize("kind", MODELS)
def test_the_committed_schemas_are_what_the_models_say(kind: str) -> None:
    """`python -m deployguard.files.schemas docs/schemas` makes it so, and each is a schema of the draft it names."""
    text = (ROOT / "docs" / "schemas" / f"{kind}.json").read_text(encoding="utf-8")
    assert text == schema_text(kind)
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_an_unknown_schema_lists_the_known_ones() -> None:
    """The error names all of them."""
    with pytest.raises(UserError) as caught:
        schema("gaurd")
    assert caught.value.hint == "there are `guard`, `policy`, `fleet`, `test`"


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_examples_of_the_reference_load_and_fit_their_schema(kind: str, tmp_path: Path) -> None:
    """What a reader copies works."""
    path = tmp_path / "example.yaml"
    path.write_text(EXAMPLES[kind])
    if kind == "PolicyTest":
        assert len(load_scenarios(path)) == 1
    else:
        bundle = load_bundle([path])
        assert len(bundle.guards) + len(bundle.policies) + len(bundle.fleets) == 1
        assert kind != "Guard" or resolve(None, bundle).policy_name == "production"
    for document in parse_yaml(EXAMPLES[kind], "example"):
        jsonschema.validate(document.data, schema(KIND[kind]))


def test_every_file_of_the_project_fits_its_schema() -> None:
    """The shipped policies and the shop, as an editor would check them."""
    paths = [*ROOT.glob("policies/*.yaml"), *ROOT.glob("examples/shop/*.yaml")]
    assert len(paths) >= 6
    for path in paths:
        for document in read_yaml(path):
            jsonschema.validate(document.data, schema(KIND[document.data.get("kind", "PolicyTest")]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"spec": {"stages": [{"instances": 1, "soak": 5}]}},
        {"spec": {"stages": [{"instances": 1, "soack": "5m"}]}},
        {"spec": {"stages": [{"instances": 1, "soak": "5m"}], "checks": [{"name": "a"}]}},
        {"spec": {"stages": [{"instances": 1, "soak": "5m"}], "pass": "prof"}},
    ],
)
def test_a_schema_refuses_what_the_loader_refuses(wrong: dict[str, Any]) -> None:
    """So that the editor is right."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"kind": "GuardPolicy", "metadata": {"name": "x"}, **wrong}, schema("policy"))


def every_model() -> list[Model]:
    """All models that files are made of."""
    found: list[Model] = []
    todo: list[Any] = [root for _, roots in PARTS for root in roots]
    while todo:
        here = todo.pop()
        if is_model(here) and here not in found:
            found.append(here)
            todo += [option for info in fields_of(here).values() for option in members(info.annotation)]
        todo += [item for argument in getattr(here, "__args__", ()) for item in members(argument)]
    return found


def test_every_field_is_described_and_every_pattern_has_words() -> None:
    """No field without a description, no message that shows a regular expression."""
    models = every_model()
    assert len(models) > 25
    for model in models:
        for name, info in fields_of(model).items():
            assert info.description, f"{model.__name__}.{name}"
    texts = json.dumps([schema(kind) for kind in MODELS])
    assert all(json.dumps(pattern)[1:-1] in texts for pattern in PATTERNS)
    assert set(KINDS) | {"PolicyTest"} == set(EXAMPLES)
