"""Changes of a pod template that a command line gives: `--image [container=]image` and `--set path=value`. Pure functions on the template.

A `--set` path is short or full. Short ones begin at a container, the only one or the one named before a slash:

    env.LOG_LEVEL=debug             web/env.LOG_LEVEL=debug
    resources.limits.memory=1Gi     image=shop/web:1.9

Full ones begin at the workload and stay within its pod template; items of a list go by name or number, odd keys in brackets:

    spec.template.spec.terminationGracePeriodSeconds=60
    spec.template.spec.containers[web].env[LOG_LEVEL].value=debug
    spec.template.metadata.annotations["shop.example/team"]=checkout
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deployguard.errors import UserError
from deployguard.files.report import printable
from deployguard.files.scalars import resolve
from deployguard.files.shape import listed, nearest

Template = dict[str, Any]
Path = tuple[str | int, ...]

TEMPLATE: Path = ("spec", "template")
TEXTS = ("annotations", "labels", "nodeSelector", "matchLabels", "limits", "requests")
"""Maps whose values are text whatever they look like."""
_CONTAINER_FIELDS = (
    "env",
    "resources",
    "image",
    "imagePullPolicy",
    "workingDir",
    "command",
    "args",
    "readinessProbe",
    "livenessProbe",
    "startupProbe",
)
_IMAGE = re.compile(
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?(@[a-z0-9+._-]+:[0-9a-fA-F]{32,})?"
)
_HOST = re.compile(r"[a-zA-Z0-9.-]+(:[0-9]+)?/")
_STEP = re.compile(r'\.?([A-Za-z0-9_-]+)|\[(?:"([^"]*)"|\'([^\']*)\'|([^\]\[]+))\]')
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
ITEM_KEYS = ("name", "mountPath", "containerPort", "key")


@dataclass(frozen=True, slots=True)
class ImageChange:
    """An image for a container; `container` is empty for the only one."""

    container: str
    image: str


@dataclass(frozen=True, slots=True)
class SetChange:
    """A value for a place of the template. `container` is empty for the only one, and unused in full paths, which begin with `spec`.

    `written` is the option without its value, which may be one that no log should have.
    """

    written: str
    container: str
    path: Path
    value: Any


def image_change(option: str) -> ImageChange:
    """What `--image` says. Raises `UserError` for what no kubelet would take as the name of an image."""
    container, equals, image = option.rpartition("=")
    if equals and not container:
        raise UserError(f"`--image {printable(option)}` names no container", hint="write `--image web=shop/web:1.9`, or the image alone")
    host = _HOST.match(image)
    if not _IMAGE.fullmatch((host[0].lower() + image[host.end() :]) if host else image):
        right = "write `--image shop/web:1.9` or `--image web=shop/web:1.9`; names of images are lower case"
        raise UserError(f"`--image {printable(option)}`: `{printable(image)}` is no name of an image", hint=right)
    return ImageChange(container, image)


def set_change(option: str) -> SetChange:
    """What `--set` says. Raises `UserError` for a path that leads to no place of a pod template."""
    written, equals, text = option.partition("=")
    while equals and written.count("[") > written.count("]"):
        more, equals, text = text.partition("=")
        written += "=" + more
    if not equals or not written:
        raise UserError(f"`--set {printable(written)}` gives no value", hint="write `--set env.LOG_LEVEL=debug`")
    container, slash, rest = written.partition("/")
    if not slash or not re.fullmatch(r"[a-z0-9-]+", container):
        container, rest = "", written
    path = _path(written, rest)
    if path[0] == "spec":
        if container:
            raise UserError(f"`--set {printable(written)}`: a full path names its container itself", hint=f"leave `{container}/` out")
        if path[:2] != TEMPLATE or len(path) < 3:
            right = "a rollout changes what pods run: begin with `spec.template.`, and change the rest by other means"
            raise UserError(f"`--set {printable(written)}`: `{printable(rest)}` is not in the pod template", hint=right)
        return SetChange(written, "", path, _value(path, text))
    if path[0] not in _CONTAINER_FIELDS:
        near = nearest(str(path[0]), _CONTAINER_FIELDS)
        meant = f"did you mean `{near}`? " if near else ""
        raise UserError(
            f"`--set {printable(written)}`: `{printable(str(path[0]))}` is no field of a container that can be set so",
            hint=f"{meant}there are {listed(_CONTAINER_FIELDS)}, and full paths as in `spec.template.spec.nodeSelector.disk=ssd`",
        )
    if path[0] == "env":
        if len(path) != 2 or not _VARIABLE.fullmatch(str(path[1])):
            raise UserError(f"`--set {printable(written)}` names no variable", hint="write `--set env.LOG_LEVEL=debug`")
        return SetChange(written, container, path, text)
    return SetChange(written, container, path, _value(path, text))


def _path(whole: str, written: str) -> Path:
    """The steps of a path; a number in brackets is an index. A variable's name after `env.` is one step, dots and all."""
    if written.startswith("env.") and written.count(".") > 1:
        return ("env", written[4:])
    steps: list[str | int] = []
    at = 0
    while at < len(written):
        found = _STEP.match(written, at)
        if found is None or found[0].startswith(".") != (at > 0 and written[at] == "."):
            right = "write steps with dots, items of lists and odd keys in brackets: `spec.template.spec.containers[web].image`"
            raise UserError(f"`--set {printable(whole)}`: the path cannot be read from `{printable(written[at:])}` on", hint=right)
        plain, double, single, bare = found.groups()
        quoted = double if double is not None else single
        steps.append(plain or (quoted if quoted is not None else int(bare) if bare.isdigit() else bare))
        at = found.end()
    return tuple(steps)


def _value(path: Path, text: str) -> Any:
    """The value as YAML reads it: a number, true, text, or a list or map in braces. Maps of text take it as text."""
    if any(step in TEXTS for step in path[:-1]) or path[-1] in ("value", "image"):
        return text
    if text.startswith(("[", "{")):
        from deployguard.errors import FileError
        from deployguard.files.yaml_lines import parse_yaml

        try:
            return parse_yaml(text, "--set")[0].data
        except FileError as error:
            raise UserError(f"`--set` got a value that is not YAML: {error.faults[0].found}", hint=error.faults[0].right) from error
    return resolve(text)


def with_images(template: Template, changes: Sequence[ImageChange]) -> Template:
    """A copy of the template with these images. Raises `UserError` when the pod has no such container, or several and none is named."""
    result = copy.deepcopy(template)
    for change in changes:
        _container(result, change.container, f"--image {change.image}")["image"] = change.image
    return result


def with_settings(template: Template, changes: Sequence[SetChange]) -> Template:
    """A copy of the template with these values. Raises `UserError` for a place that is not there and cannot be made."""
    result = copy.deepcopy(template)
    for change in changes:
        if change.path[0] == "spec":
            _put(result, change.path[2:], change)
        elif change.path[0] == "env":
            _set_variable(_container(result, change.container, f"--set {change.written}"), str(change.path[1]), change.value)
        else:
            _put(_container(result, change.container, f"--set {change.written}"), change.path, change)
    return result


def _container(template: Template, name: str, option: str) -> dict[str, Any]:
    """The container of this name among the pod's and its init containers; without a name, the only one of the pod."""
    spec = template.get("spec") or {}
    own: list[dict[str, Any]] = spec.get("containers") or []
    known: list[dict[str, Any]] = [*own, *(spec.get("initContainers") or [])]
    if not name:
        if len(own) == 1:
            return own[0]
        names = listed(str(c.get("name")) for c in own)
        raise UserError(f"`{printable(option)}` names no container, and the pod has {len(own)}: {names}", hint=_how_to_name(option, own))
    found = next((container for container in known if container.get("name") == name), None)
    if found is not None:
        return found
    names = listed(str(c.get("name")) for c in known)
    raise UserError(f"`{printable(option)}`: the pod has no container `{printable(name)}`", hint=f"it has {names}")


def _how_to_name(option: str, containers: Sequence[dict[str, Any]]) -> str:
    first = containers[0].get("name", "web") if containers else "web"
    kind, _, rest = option.partition(" ")
    return f"write `{kind} {first}{'=' if kind == '--image' else '/'}{printable(rest)}`"


def _set_variable(container: dict[str, Any], name: str, value: str) -> None:
    variables = container.setdefault("env", [])
    for number, variable in enumerate(variables):
        if variable.get("name") == name:
            variables[number] = {"name": name, "value": value}
            return
    variables.append({"name": name, "value": value})


def _put(at: Any, path: Path, change: SetChange) -> None:
    """Set the value at a path below `at`; maps on the way are made, items of lists must be there."""
    for number, step in enumerate(path):
        last = number == len(path) - 1
        if isinstance(at, list):
            index = _index(at, step, change)
            if last:
                at[index] = change.value
                return
            at = at[index]
        elif isinstance(at, dict):
            if last:
                at[str(step)] = change.value
                return
            if at.get(str(step)) is None:
                at[str(step)] = {}
            at = at[str(step)]
        else:
            raise UserError(
                f"`--set {printable(change.written)}`: nothing can stand below `{printable(str(path[number - 1]))}`",
                hint="it is a single value",
            )


def _index(items: list[Any], step: str | int, change: SetChange) -> int:
    """The number of the item that a step names: by its number, or by its name."""
    if isinstance(step, int) and step < len(items):
        return step
    names = [next((str(item[key]) for key in ITEM_KEYS if isinstance(item, dict) and key in item), "") for item in items]
    if str(step) in names:
        return names.index(str(step))
    there = f"there are {listed(name for name in names if name)}" if any(names) else f"it has {len(items)} items, counted from 0"
    raise UserError(f"`--set {printable(change.written)}`: the list has no item `{printable(str(step))}`", hint=there)
