"""JSON Patches: operations with their tests, built and never sent here."""

from __future__ import annotations

from typing import Any

MANAGER = "deployguard"
"""The field manager of every write."""

Operation = dict[str, Any]


def pointer(*parts: str | int) -> str:
    """The JSON pointer to a field; `~` and `/` in a part are escaped."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def test(path: str, value: Any) -> Operation:
    """The whole patch is refused unless the field holds exactly this value. An absent field fails every test but one for null."""
    return {"op": "test", "path": path, "value": value}


def add(path: str, value: Any) -> Operation:
    """The field holds the value, whether it was there before or not; its parent must be there."""
    return {"op": "add", "path": path, "value": value}


def replace(path: str, value: Any) -> Operation:
    """The field, which must be there, holds the value."""
    return {"op": "replace", "path": path, "value": value}


def remove(path: str) -> Operation:
    """The field, which must be there, is gone."""
    return {"op": "remove", "path": path}


def without_manager(obj: dict[str, Any], manager: str = MANAGER) -> list[Operation]:
    """The patch that takes the entries of `manager` out of the managed fields of `obj`; empty when it has none.

    Without it the next server-side apply or `helm upgrade` of the object's owner ends in a conflict with us. It tests the
    resourceVersion, so that nobody else's entry is lost. A patch that leaves no entry at all would be taken for "start
    anew" by the server, which is what an empty entry says.
    """
    metadata = obj["metadata"]
    fields = metadata.get("managedFields") or []
    kept = [entry for entry in fields if entry.get("manager") != manager]
    if len(kept) == len(fields):
        return []
    return [test("/metadata/resourceVersion", metadata["resourceVersion"]), replace("/metadata/managedFields", kept or [{}])]
