"""What changed in a pod template, a ConfigMap or a Secret, in lines a person can read: `container web: image a -> b`.

What the API server fills in by itself is no change. Of a Secret nothing is shown but which keys came, went or changed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from deployguard.report.diff import MOST_LINES, hidden

PREFIX = "deployguard.dev/"
_OURS = ("pod-template-hash", "controller-revision-hash", "pod-template-generation")
_ECHOES = ("creationTimestamp", "serviceAccount")
_LONGEST = 200
_ITEM_KEYS = ("mountPath", "name", "devicePath", "containerPort", "key", "ip", "topologyKey", "uid")
_CONTAINERS = {"containers": "container", "initContainers": "init container", "ephemeralContainers": "debug container"}
_POD = {"schedulerName": "default-scheduler", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30}
_CONTAINER = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "containers": _CONTAINER,
    "initContainers": _CONTAINER,
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "startupProbe": _PROBE,
    "httpGet": {"scheme": "HTTP"},
    "ports": {"protocol": "TCP"},
    "fieldRef": {"apiVersion": "v1"},
    "configMap": {"defaultMode": 0o644},
    "secret": {"defaultMode": 0o644},
    "projected": {"defaultMode": 0o644},
    "downwardAPI": {"defaultMode": 0o644},
    "hostPath": {"type": ""},
    "spec": _POD,
}
"""What the API server writes into a field that nobody gave, by the field that it stands in."""


def template_diff(old: Mapping[str, Any], new: Mapping[str, Any], *, most: int = MOST_LINES) -> list[str]:
    """How the pod template `new` differs from `old`, one line for each place; at most `most` lines and one that counts the rest."""
    lines: list[str] = []
    before, after = _sensible(old, ""), _sensible(new, "")
    for kind in ("labels", "annotations"):
        one, two = ((side.get("metadata") or {}).get(kind) or {} for side in (before, after))
        lines += _maps(kind.removesuffix("s"), _others(one), _others(two))
    pod_old, pod_new = before.get("spec") or {}, after.get("spec") or {}
    for field, word in _CONTAINERS.items():
        lines += _containers(word, pod_old.get(field) or [], pod_new.get(field) or [])
    rest_old, rest_new = ({k: v for k, v in side.items() if k not in _CONTAINERS} for side in (pod_old, pod_new))
    lines += _places("pod:", rest_old, rest_new)
    return _cut(lines, most)


def config_diff(title: str, old: Mapping[str, str] | None, new: Mapping[str, str] | None, *, most: int = MOST_LINES) -> list[str]:
    """How the text of a ConfigMap differs, key by key as a unified diff; None for one that is not there."""
    lines = _presence(title, old, new)
    one, two = old or {}, new or {}
    for key in sorted(one.keys() | two.keys()):
        if one.get(key) == two.get(key):
            continue
        if "\n" not in one.get(key, "") and "\n" not in two.get(key, "") and key in one and key in two:
            lines.append(f"{title}: {key} {_value(key, one[key])} -> {_value(key, two[key])}")
            continue
        before = f"{title}/{key}" if key in one else "none"
        after = f"{title}/{key}" if key in two else "none"
        text = difflib.unified_diff(one.get(key, "").splitlines(), two.get(key, "").splitlines(), before, after, lineterm="")
        lines += [hidden(line) for line in text] or [f"{title}: {key} {_what(key in one, key in two)}"]
    return _cut(lines, most)


def keys_diff(title: str, old: Mapping[str, object] | None, new: Mapping[str, object] | None, *, most: int = MOST_LINES) -> list[str]:
    """Which keys of a Secret, or of a ConfigMap's binary values, came, went or changed: nothing of the values, nor of their size."""
    lines = _presence(title, old, new)
    one, two = old or {}, new or {}
    for key in sorted(one.keys() | two.keys()):
        if key not in one or key not in two or one[key] != two[key]:
            lines.append(f"{title}: {key} {_what(key in one, key in two)}")
    return _cut(lines, most)


def _presence(title: str, old: object, new: object) -> list[str]:
    return [] if (old is None) == (new is None) else [f"{title} {_what(old is not None, new is not None)}"]


def _what(was: bool, is_there: bool) -> str:
    return "changed" if was and is_there else "removed" if was else "added"


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"... {len(lines) - most} more lines"]


def _others(marks: Mapping[str, Any]) -> dict[str, Any]:
    """Labels or annotations that are not ours and not a controller's."""
    return {key: value for key, value in marks.items() if not key.startswith(PREFIX) and key not in _OURS}


def _sensible(value: Any, field: str) -> Any:
    """The value without nulls, without empty maps and lists, and without what the API server fills in by itself."""
    if isinstance(value, Mapping):
        given = _DEFAULTS.get(field, {})
        inner = {key: _sensible(one, key) for key, one in value.items() if key not in _ECHOES}
        if field in ("limits", "requests"):
            return {key: str(one) for key, one in inner.items()}
        return {key: one for key, one in inner.items() if _says(key, one) and not (key in given and given[key] == one)}
    if isinstance(value, list):
        return [_sensible(one, field) for one in value]
    return value


def _says(key: str, value: Any) -> bool:
    """Whether a field says anything: an empty map does where the map's name is the choice."""
    return value is not None and (value not in ({}, []) or key == "emptyDir")


def _containers(word: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    one, two = ({str(c.get("name")): c for c in side} for side in (old, new))
    lines: list[str] = []
    for name in [*one, *(name for name in two if name not in one)]:
        head = f"{word} {name}:"
        if name not in two:
            lines.append(f"{head} removed")
        elif name not in one:
            lines.append(f"{head} added, image {two[name].get('image')}")
        else:
            lines += _container(head, one[name], two[name])
    if [name for name in one if name in two] != [name for name in two if name in one]:
        lines.append(f"{word}s: in another order: {', '.join(two)}")
    return lines


def _container(head: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if _pull_policy(old) == _pull_policy(new):
        old, new = ({key: value for key, value in side.items() if key != "imagePullPolicy"} for side in (old, new))
    lines = _places(head, *({k: side[k] for k in ("image",) if k in side} for side in (old, new)))
    one, two = ({str(v.get("name")): v for v in side.get("env") or []} for side in (old, new))
    lines += _maps(f"{head} env", *({k: _variable(v) for k, v in side.items()} for side in (one, two)))
    rest_old, rest_new = ({k: v for k, v in side.items() if k not in ("image", "env", "name")} for side in (old, new))
    return lines + _places(head, rest_old, rest_new)


def _pull_policy(container: Mapping[str, Any]) -> str:
    """When the image is pulled; without a word about it the tag decides."""
    image = str(container.get("image") or "")
    tag = image.rpartition("/")[2].partition(":")[2]
    return str(container.get("imagePullPolicy") or ("Always" if "@" not in image and tag in ("", "latest") else "IfNotPresent"))


def _variable(variable: Mapping[str, Any]) -> Any:
    """Where the value of a variable comes from, or the value itself."""
    source = variable.get("valueFrom")
    if not isinstance(source, Mapping):
        return variable.get("value", "")
    ((kind, ref),) = source.items() if len(source) == 1 else (("a source", {}),)
    words = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}
    if kind in words and isinstance(ref, Mapping):
        return f"from {words[kind]}/{ref.get('name')} {ref.get('key')}"
    return f"from {kind} {json.dumps(ref, sort_keys=True)}"


def _maps(head: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences of two maps of single values: labels, annotations, variables."""
    lines: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            lines.append(f"{head} {key} removed")
        elif key not in old:
            lines.append(f"{head} {key} added: {_value(key, new[key])}")
        elif old[key] != new[key]:
            lines.append(f"{head} {key} {_value(key, old[key])} -> {_value(key, new[key])}")
    return lines


def _places(head: str, old: Any, new: Any) -> list[str]:
    """Differences of two values by path: `container web: resources.limits.memory 512Mi -> 1Gi`."""
    return _maps(head, _flat(old, ""), _flat(new, ""))


def _flat(value: Any, path: str) -> dict[str, Any]:
    """Single values by path. Items of a list go by what names them, so that one that is put in does not change all after it."""
    if isinstance(value, Mapping) and value:
        return {p: v for key, one in value.items() for p, v in _flat(one, f"{path}.{key}" if path else str(key)).items()}
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return {p: v for name, item in _named(value) for p, v in _flat(item, f"{path}[{name}]").items()}
    return {path: value}


def _named(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The items with what tells them apart: a field that all of them have, which is then left out of them, or their number."""
    for key in _ITEM_KEYS:
        names = [str(item.get(key, "")) for item in items]
        if all(names) and len(set(names)) == len(names):
            return [(n, {k: v for k, v in item.items() if k != key} or item) for n, item in zip(names, items, strict=True)]
    return [(str(n), item) for n, item in enumerate(items)]


def _value(name: str, value: Any) -> str:
    """The value on one line, hidden where the name says that it is a secret."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, sort_keys=True)
    text = text if text.isprintable() else json.dumps(text, ensure_ascii=False)
    last = name.rpartition(".")[2]
    safe = hidden(f" {last}: {text}").partition(": ")[2]
    return safe if len(safe) <= _LONGEST else safe[: _LONGEST - 3] + "..."
