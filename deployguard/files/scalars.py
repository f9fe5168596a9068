"""What a plain YAML scalar means, decided here because YAML 1.1 and 1.2 disagree exactly where people get hurt.

`5:30` and `2026-01-01` stay text, `010` is ten, and `0x600` is text too: in a scenario it is a series without an error.
`yes`, `no`, `on` and `off` are booleans, as kubectl reads them; where text is expected the error asks for quotes.
"""

from __future__ import annotations

import re

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset(form(word) for word in ("true", "yes", "on") for form in (str.lower, str.upper, str.title))
_FALSE = frozenset(form(word) for word in ("false", "no", "off") for form in (str.lower, str.upper, str.title))
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER = 64

CORE = "tag:yaml.org,2002:"


def resolve(text: str) -> bool | int | float | str | None:
    """The value that `text` stands for when it is written without quotes."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return text


def tagged(text: str, tag: str) -> bool | int | float | str | None:
    """The value of a scalar with an explicit tag. Raises ValueError when the text is none of that kind, or the tag is foreign."""
    kind = tag.removeprefix(CORE)
    if kind == "str":
        return text
    value = resolve(text)
    fits = {
        "null": value is None,
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
    }
    if kind not in fits:
        raise ValueError(f"the tag `{tag.replace(CORE, '!!')}` is not allowed; write plain values")
    if not fits[kind]:
        raise ValueError(f"`{text}` is not a `!!{kind}`; take the tag away or change the value")
    return value
