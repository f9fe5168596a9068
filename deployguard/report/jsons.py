"""JSON as it is printed: stable, so that two reports can be compared line by line."""

from __future__ import annotations

import json
from typing import Any


def dump(value: Any) -> str:
    """The value as indented JSON that ends with a newline; keys keep the order of the report."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
