"""Pod templates: their normal form and digest, the template of a canary, and the one that a workload gets on promotion.

Pure: a template goes in as the API server stores it, and is never changed.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from deployguard.errors import UserError
from deployguard.model.version import NOTHING
from deployguard.targets.kubernetes.references import ConfigRef, containers, pinned

PREFIX = "deployguard.dev/"
"""What every label and annotation of ours begins with."""
CONFIG_ANNOTATION = PREFIX + "config"
"""On a pod template: the digest of the configuration that its pods read."""
_CONTROLLERS_LABELS = ("pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name")
_ABSENT = "\0absent"
"""Where a map has no such key; no template can hold it."""
_MEANINGLESS_WHEN_EMPTY = ("resources", "securityContext")


def plain(template: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `template` as people mean it: without marks of ours, marks of controllers, nulls, and maps that say nothing."""
    mine: dict[str, Any] = _without_nulls(template)
    meta = mine.get("metadata") or {}
    meta.pop("creationTimestamp", None)
    for field in ("labels", "annotations"):
        kept = {k: v for k, v in (meta.pop(field, None) or {}).items() if not k.startswith(PREFIX) and k not in _CONTROLLERS_LABELS}
        if kept:
            meta[field] = kept
    mine.pop("metadata", None)
    spec = mine.get("spec") or {}
    for one in (spec, *(container for _words, container in containers(mine))):
        for field in _MEANINGLESS_WHEN_EMPTY:
            if one.get(field) == {}:
                del one[field]
    return {"metadata": meta, **mine} if meta else mine


def digest(template: Mapping[str, Any]) -> str:
    """What `template` would run, named by content: the same for every template that `plain` makes equal."""
    text = json.dumps(plain(template), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def canary(template: Mapping[str, Any], *, pins: Mapping[ConfigRef, str], labels: Mapping[str, str], config_digest: str) -> dict[str, Any]:
    """The template of a canary: it names the copies in `pins` instead of their sources, and carries `labels` and its config digest."""
    mine = pinned(plain(template), pins)
    meta = mine.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), **labels}
    return _with_config(mine, config_digest)


def promoted(template: Mapping[str, Any], config_digest: str) -> dict[str, Any]:
    """The template that the workload itself gets: the user's names, and the config digest when a configuration is guarded.

    The digest makes a change of the configuration alone a new template, so that pods are replaced and read it.
    """
    return _with_config(plain(template), config_digest) if config_digest not in ("", NOTHING) else plain(template)


def config_of(template: Mapping[str, Any]) -> str | None:
    """The config digest that a template or a pod carries; None when it carries none."""
    value = ((template.get("metadata") or {}).get("annotations") or {}).get(CONFIG_ANNOTATION)
    return value if isinstance(value, str) else None


def images(template: Mapping[str, Any]) -> dict[str, str]:
    """The image of every container, init containers and sidecars included, by the container's name."""
    return {one.get("name", ""): one.get("image", "") for _words, one in containers(template)}


def with_image(template: Mapping[str, Any], container: str, image: str) -> dict[str, Any]:
    """A copy of `template` in which `container` runs `image`. Raises `UserError` when there is no such container."""
    mine: dict[str, Any] = copy.deepcopy(dict(template))
    for _words, one in containers(mine):
        if one.get("name") == container:
            one["image"] = image
            return mine
    raise UserError(
        f"could not set the image {image}: the pod template has no container {container}",
        hint=f"its containers are {', '.join(images(template)) or 'none'}",
    )


def merged(base: Any, theirs: Any, mine: Any) -> Any:
    """What others made of `base`, made of `mine` instead: their changes stay, and what they left as it was is as in `mine`.

    Lists of named things (containers, variables, volumes) are merged by name; other lists are theirs where they changed them.
    """
    if theirs == base:
        return copy.deepcopy(mine)
    if base in (mine, _ABSENT) or mine in (theirs, _ABSENT):
        return copy.deepcopy(theirs)
    if all(isinstance(one, dict) for one in (base, theirs, mine)):
        return _merged_maps(base, theirs, mine)
    named = [_by_name(one) for one in (base, theirs, mine)]
    if all(one is not None for one in named):
        return list(_merged_maps(*named).values())
    return copy.deepcopy(theirs)


def _merged_maps(base: Any, theirs: Any, mine: Any) -> dict[str, Any]:
    found = {key: merged(base.get(key, _ABSENT), theirs.get(key, _ABSENT), mine.get(key, _ABSENT)) for key in {**mine, **theirs}}
    return {key: value for key, value in found.items() if value != _ABSENT}


def _by_name(value: Any) -> dict[str, Any] | None:
    """A list of things with names of their own as a map; None when it is something else."""
    if not isinstance(value, list) or not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in value):
        return None
    found = {one["name"]: one for one in value}
    return found if len(found) == len(value) else None


def _with_config(template: dict[str, Any], config_digest: str) -> dict[str, Any]:
    meta = template.setdefault("metadata", {})
    meta["annotations"] = {**(meta.get("annotations") or {}), CONFIG_ANNOTATION: config_digest}
    return template


def _without_nulls(value: Any) -> Any:
    """A deep copy without the nulls in maps: for the API server they are as good as absent."""
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value
