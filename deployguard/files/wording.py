"""One sentence for each kind of error that pydantic reports: what was found, and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from deployguard.files.shape import listed, nearest

Said = tuple[str, str]
"""What was found, and what would be right."""

PATTERNS = {
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": "write lower-case letters, digits and `-`, at most 63",
    r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$": "write lower-case letters, digits, `-` and `.`, at most 63",
    r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$": "write `host:port`, as in `127.0.0.1:8080`",
    r"^/": "write a path that begins with `/`",
    r"^\$": "write a JSONPath that begins with `$`, as in `$.config`",
    r"^https?://": "write a URL that begins with `https://` or `http://`",
    r"^\d{1,5}-\d{1,5}$": "write a range, as in `9000-9099`",
}
_WANTED = {
    "string": "write text",
    "int": "write a whole number",
    "float": "write a number",
    "finite": "write a number",
    "bool": "write `true` or `false`",
    "list": "write a list, as in `[a, b]`",
    "dict": "write a map, as in `{key: value}`",
    "model": "write a map, as in `{key: value}`",
    "datetime": "write an instant, as in `2026-12-24T18:00:00+01:00`",
}


def shown(value: Any, text: str | None) -> str:
    """What stands in the file, for a message: the text as written where there is one, the kind of value else."""
    if value is None:
        return "empty"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a map"
    written = text if text is not None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{written if len(written) <= 80 else written[:77] + '...'}`"


def say(error: ErrorDetails, info: FieldInfo | None, text: str | None) -> Said:
    """The sentence for one error at a field with `info`, whose value is written as `text`."""
    kind, value = error["type"], error.get("input")
    found = shown(value, text)
    if kind == "missing":
        return "missing", _add(info)
    if kind == "value_error":
        said, _, right = str(error["ctx"]["error"]).partition("; ")
        return said, right
    if kind in _BOUNDS:
        return _BOUNDS[kind](found, error.get("ctx", {}))
    if kind == "literal_error":
        return _literal(value, found, info)
    if kind == "string_pattern_mismatch":
        pattern = str(error["ctx"]["pattern"])
        return f"{found} does not fit", PATTERNS.get(pattern, f"write text that matches `{pattern}`")
    return _wrong_kind(kind, value, found, text)


def _add(info: FieldInfo | None) -> str:
    return f"give it: {info.description}" if info is not None and info.description else "give it"


def _wrong_kind(kind: str, value: Any, found: str, text: str | None) -> Said:
    wanted = next((right for prefix, right in _WANTED.items() if kind.startswith(prefix)), "write what the reference says")
    if value is None:
        return found, f"{wanted}, or leave the field out"
    if kind.startswith("string") and isinstance(value, (bool, int, float)):
        written = text if text is not None else str(value).lower()
        what = f"reads as {str(value).lower()} in YAML" if isinstance(value, bool) else "is a number, not text"
        return f"`{written}` {what}", f'put it in quotes: `"{written}"`'
    if isinstance(value, (list, dict)):
        return f"{found} stands here", wanted
    return f"{found} does not fit", wanted


def _literal(value: Any, found: str, info: FieldInfo | None) -> Said:
    known = [str(word) for word in literals(info)]
    if known == ["True"]:
        return f"{found} does not fit", "write `true`, or take the entry away"
    if len(known) == 1:
        return f"{found} is not known to this version", f"write `{known[0]}`"
    near = nearest(value, known) if isinstance(value, str) else None
    meant = f"did you mean `{near}`? There are " if near else "there are "
    return (f"{found} is not known" if value is not None else "empty"), meant + listed(known)


def literals(info: FieldInfo | None) -> list[Any]:
    """The words that a field accepts, where these are all it accepts."""
    from typing import Literal, get_args, get_origin

    from deployguard.files.shape import members

    if info is None:
        return []
    options = members(info.annotation)
    inner = [item for option in options for item in (get_args(option) if get_origin(option) is list else [option])]
    return [word for option in inner if get_origin(option) is Literal for word in get_args(option)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def _least(found: str, context: dict[str, Any]) -> Said:
    return f"{found} is too small", f"write at least {_number(context['ge'])}"


def _above(found: str, context: dict[str, Any]) -> Said:
    return f"{found} is too small", f"write more than {_number(context['gt'])}"


def _most(found: str, context: dict[str, Any]) -> Said:
    return f"{found} is too large", f"write at most {_number(context['le'])}"


def _below(found: str, context: dict[str, Any]) -> Said:
    return f"{found} is too large", f"write less than {_number(context['lt'])}"


def _few(_: str, context: dict[str, Any]) -> Said:
    least = context["min_length"]
    return ("the list is empty" if least == 1 else f"{context['actual_length']} items are too few"), f"write at least {least}"


def _many(_: str, context: dict[str, Any]) -> Said:
    return f"{context['actual_length']} items are too many", f"write at most {context['max_length']}"


_BOUNDS: dict[str, Callable[[str, dict[str, Any]], Said]] = {
    "greater_than_equal": _least,
    "greater_than": _above,
    "less_than_equal": _most,
    "less_than": _below,
    "too_short": _few,
    "too_long": _many,
    "string_too_short": lambda _found, _context: ("the text is empty", "write some"),
}
