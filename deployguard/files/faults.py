"""Validation errors to faults: file, line, full field path, what was found, what would be right.

pydantic reports in the terms of the model; here each report becomes one fault in the terms of the file, and reports that
only repeat another one are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deployguard.errors import Fault
from deployguard.files.report import MOST, fault
from deployguard.files.shape import Model, close, field_at, fields_of, is_model, listed, members, model_at, nearest
from deployguard.files.wording import say, shown
from deployguard.files.yaml_lines import Document, dotted
from deployguard.model.fields import Broken, Place

T = TypeVar("T", bound=BaseModel)
Origin = Callable[[Place], tuple[Document, Place] | None]
"""Where the value at a place was written; None when it was not written at all."""

SOURCES = ("scrape", "prometheus", "logs", "balancer", "probe")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and the places it is about, the most telling one first."""

    places: tuple[Place, ...]
    found: str
    right: str


def validate(model: type[T], document: Document) -> tuple[T | None, list[Fault]]:
    """The value that a document writes, or None and every fault; duplicate keys are faults too."""
    value, problems = check(model, document.data, lambda place: (document, place))
    faults = [*document.faults, *(fault(document, problem.places[0], problem.found, problem.right) for problem in problems)]
    return (None if faults else value), faults


def check(model: type[T], data: Any, origin: Origin) -> tuple[T | None, list[Problem]]:
    """The value of plain data, or None and every problem. Fields go by the names of the file, not of the class."""
    try:
        return model.model_validate(data, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, _problems(error, model, data, origin)


def _problems(error: ValidationError, model: Model, data: Any, origin: Origin) -> list[Problem]:
    problems: list[Problem] = []
    meant: set[Place] = set()
    # More than anybody reads, and each costs a search for the nearest field.
    for details in error.errors(include_url=False)[: 2 * MOST]:
        place = _place(details["loc"], data, missing=details["type"] == "missing")
        if details["type"] == "extra_forbidden":
            problem, suggestion = _unknown(model, place, data)
            problems.append(problem)
            if suggestion:
                meant.add((*place[:-1], suggestion))
        else:
            problems.extend(_said(details, place, model, data, origin))
    # A misspelt field is also a missing one: the first says it all.
    return [problem for problem in problems if not (problem.found == "missing" and problem.places[0] in meant)]


def _place(location: Iterable[str | int], data: Any, *, missing: bool) -> Place:
    """The place in the file: pydantic's location without the names of union members."""
    steps = list(location)
    place: Place = ()
    for number, step in enumerate(steps):
        checks_item = len(place) >= 2 and isinstance(place[-1], int) and place[-2] == "checks" and step in SOURCES
        if checks_item and steps[number - 1] == place[-1]:
            continue
        if isinstance(step, str) and (step == "[key]" or (step.startswith("<") and step.endswith(">"))):
            continue
        inside = (isinstance(data, dict) and step in data) or (isinstance(data, list) and isinstance(step, int) and step < len(data))
        if inside:
            data = data[step]
        elif not (missing and number == len(steps) - 1):
            data = None
        place = (*place, step)
    return place


def _unknown(model: Model, place: Place, data: Any) -> tuple[Problem, str | None]:
    name = str(place[-1])
    parent = model_at(model, place[:-1], data)
    known = list(fields_of(parent)) if parent else []
    near = nearest(name, known)
    home = _home(model, place, data)
    if home is not None and (near is None or not close(name, near)):
        return Problem((place,), f"unknown field `{name}`", f"it belongs in {home}"), None
    right = f"did you mean `{near}`?" if near else f"known here: {listed(known)}"
    return Problem((place,), f"unknown field `{name}`", right), near


def _home(model: Model, place: Place, data: Any) -> str | None:
    """Where a field of this very name is known: in a map beside it, or further out."""
    name = str(place[-1])
    parent = model_at(model, place[:-1], data)
    for field, info in fields_of(parent).items() if parent else ():
        if any(is_model(option) and name in fields_of(option) for option in members(info.annotation)):
            return f"`{dotted((*place[:-1], field))}`"
    for length in range(len(place) - 2, 0, -1):
        outer = model_at(model, place[:length], data)
        if outer is not None and name in fields_of(outer):
            return f"`{dotted(place[:length])}`"
    return None


def _said(details: ErrorDetails, place: Place, model: Model, data: Any, origin: Origin) -> list[Problem]:
    if details["type"] == "value_error" and isinstance(rules := details["ctx"]["error"], Broken):
        problems = []
        for rule in rules.rules:
            found, _, right = rule.text.partition("; ")
            problems.append(Problem(tuple((*place, *inner) for inner in rule.places), found, right))
        return problems
    if details["type"].startswith("union_tag"):
        return [_which(details, place)]
    written = origin(place)
    text = written[0].texts.get(written[1]) if written else None
    found, right = say(details, field_at(model, place, data), text)
    return [Problem((place,), found, right)]


def _which(details: ErrorDetails, place: Place) -> Problem:
    """A value that may take several forms, and took none."""
    value = details.get("input")
    if len(place) >= 2 and place[-2] == "checks":
        if not isinstance(value, dict):
            return Problem((place,), f"{shown(value, None)} stands here", "write a check, as in `{name: errors, source: balancer}`")
        if "source" not in value:
            return Problem(((*place, "source"),), "missing", f"say where the numbers come from: {listed(SOURCES)}")
        given = value["source"]
        if given == "health":
            right = "restarts, exits and readiness are always watched; take the check away"
            return Problem(((*place, "source"),), "`health` needs no check", right)
        near = nearest(given, SOURCES) if isinstance(given, str) else None
        right = (f"did you mean `{near}`? There are " if near else "there are ") + listed(SOURCES)
        return Problem(((*place, "source"),), f"{shown(given, None)} is not a source", right)
    if len(place) >= 2 and place[-2] == "announce":
        return Problem((place,), "no announcement", "write `{log: true}`, `{command: [...]}` or `{webhook: URL}`")
    return Problem((place,), f"{shown(value, None)} is not a policy", "write the name of one, a path, or the policy itself")
