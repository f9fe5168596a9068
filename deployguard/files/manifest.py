"""What a pipeline hands over: the objects of manifests, of kustomize's or Helm's output, each with the place where it is written.

Only the guarded workload and its configuration are ours to apply; everything else is listed as the user's. No message shows a value
of an object: a Secret's must not reach a log, and nobody can tell from a key which ConfigMap holds one too.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployguard.errors import Fault, FileError, UserError
from deployguard.files.read import STDIN, read_text
from deployguard.files.report import fault, file_error, printable
from deployguard.files.shape import listed, nearest
from deployguard.files.yaml_lines import Document, Place, parse_yaml

LIMIT = 20_000_000
NODES = 1_000_000
DEPTH = 100
"""Bytes, values and nesting of one file: what the largest charts with their CustomResourceDefinitions stay far below."""

SUFFIXES = (".yaml", ".yml", ".json")
MOST_NAMED = 12
_OCTAL = re.compile(r"([-+]?)0o?([0-7]+)")
_QUOTED = re.compile("`[^`]*`")
_HEX = re.compile(r"([-+]?)0x([0-9a-fA-F]{1,16})")


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a manifest. `place` leads to it within its document, `index` counts the objects of the manifest from 0."""

    data: dict[str, Any]
    document: Document
    place: Place
    index: int

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        """Its name; empty when the server is to make one up."""
        return str(self._metadata().get("name") or "")

    @property
    def namespace(self) -> str:
        """The namespace that it says; empty when it says none."""
        return str(self._metadata().get("namespace") or "")

    @property
    def group(self) -> str:
        """The API group; empty for the core's."""
        return str(self.data["apiVersion"]).rpartition("/")[0]

    @property
    def title(self) -> str:
        """Kind and name, as `Deployment/web`."""
        return printable(f"{self.kind}/{self.name or '(made up by the server)'}")

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.document.path} line {self.document.line_of(self.place)}"

    def _metadata(self) -> dict[str, Any]:
        found = self.data.get("metadata")
        return found if isinstance(found, dict) else {}

    def fault(self, place: Place, found: str, right: str) -> Fault:
        """A fault at a place of this object."""
        return fault(self.document, (*self.place, *place), found, right)

    def error(self, faults: Iterable[Fault]) -> FileError:
        """The error with these faults of this object."""
        return file_error(self.document.path, faults)

    def twice(self) -> list[Fault]:
        """Keys of this object that are written twice."""
        first, last = self.document.line_of(self.place), self._last_line()
        return [one for one in self.document.faults if first <= one.line <= last]

    def _last_line(self) -> int:
        size = len(self.place)
        return max((line for place, line in self.document.lines.items() if place[:size] == self.place), default=self.document.line)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The objects of a manifest, in the order in which they are written."""

    path: str
    objects: tuple[Object, ...]


def load_manifest(path: str | Path) -> Manifest:
    """Every object of a file, of a directory (all .yaml, .yml and .json below it, by path) or of standard input (`-`).

    Raises `FileError` for what cannot be read or holds no object, with the faults of the first file that has one.
    """
    name = str(path)
    files = [name] if name == STDIN or not Path(name).is_dir() else _below(Path(name))
    objects: list[Object] = []
    for file in files:
        objects += _objects(file, len(objects))
    if not objects:
        raise FileError(name, [Fault(0, "", "no object stands in it", "give the manifest of the workload, or pipe it in with `-`")])
    return Manifest(name, tuple(objects))


def _below(folder: Path) -> list[str]:
    """The manifests below a directory. Raises `FileError` for one that first has to be rendered."""
    for name, command in (
        ("kustomization.yaml", "kubectl kustomize"),
        ("kustomization.yml", "kubectl kustomize"),
        ("Chart.yaml", "helm template"),
    ):
        if (folder / name).is_file():
            right = f"render it: `{command} {folder} | deployguard run -f guard.yaml --manifest -`"
            raise FileError(str(folder), [Fault(0, "", f"it holds a {name}, so its files are no manifests yet", right)])
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise FileError(str(folder), [Fault(0, "", "no .yaml, .yml or .json file lies below it", "name the directory of the manifests")])
    return found


def _objects(path: str, count: int) -> list[Object]:
    text = read_text(path, LIMIT)
    try:
        documents = parse_yaml(text, path, nodes=NODES, depth=DEPTH)
    except FileError as error:
        raise _unreadable(path, text, error) from error
    objects: list[Object] = []
    faults: list[Fault] = []
    for document in documents:
        _numbers_of_kubectl(document)
        for data, place in _flat(document.data, (), document, faults):
            objects.append(Object(data, document, place, count + len(objects)))
    if faults:
        raise file_error(path, faults)
    return objects


def _unreadable(path: str, text: str, error: FileError) -> FileError:
    """The error without what it quotes where a Secret may stand: a password that begins with `*` reads as an alias."""
    line = text.split("\n")[error.faults[0].line - 1] if error.faults[0].line else ""
    hint = "this is a template of Helm: give what `helm template` makes of it" if "{{" in line else error.hint
    if "Secret" not in text:
        return FileError(path, list(error.faults), hint=hint)
    hidden = [
        Fault(one.line, one.field, _QUOTED.sub("(not shown)", one.found), _QUOTED.sub("(not shown)", one.right)) for one in error.faults
    ]
    return FileError(path, hidden, hint=hint)


def _numbers_of_kubectl(document: Document) -> None:
    """Numbers mean what kubectl takes them for: the `0400` of a file's mode is 256."""
    for place, text in document.texts.items():
        if not text.lstrip("+-").startswith("0"):
            continue
        octal, base16 = _OCTAL.fullmatch(text), _HEX.fullmatch(text)
        if octal or base16:
            sign, digits = (octal or base16).groups()  # type: ignore[union-attr]
            _put(document, place, int(sign + digits, 8 if octal else 16))


def _put(document: Document, place: Place, value: Any) -> None:
    if not place:
        document.data = value
        return
    at = document.data
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value


def _flat(data: Any, place: Place, document: Document, faults: list[Fault]) -> Iterator[tuple[dict[str, Any], Place]]:
    """The objects of one value: itself, or the items of a list of objects. What is none becomes a fault."""
    if not isinstance(data, dict):
        what = "a list" if isinstance(data, list) else "nothing" if data is None else "text"
        faults.append(fault(document, place, f"{what} stands where an object is expected", "begin with `apiVersion:` and `kind:`"))
        return
    missing = [field for field in ("apiVersion", "kind") if not isinstance(data.get(field), str) or not data[field]]
    if missing:
        faults.extend(fault(document, (*place, field), "missing", "every object of a manifest says it") for field in missing)
        return
    items = data.get("items")
    if not (data["kind"].endswith("List") and isinstance(items, list)):
        yield data, place
        return
    own = data["kind"].removesuffix("List")
    for number, item in enumerate(items):
        named = {"apiVersion": data["apiVersion"], "kind": own, **item} if own and isinstance(item, dict) else item
        yield from _flat(named, (*place, "items", number), document, faults)


def candidate_of(manifest: Manifest, kind: str, name: str, namespace: str) -> dict[str, Any]:
    """The guarded workload as the manifest writes it, a copy. Raises what `workload_of` raises."""
    return copy.deepcopy(workload_of(manifest, kind, name, namespace).data)


def workload_of(manifest: Manifest, kind: str, name: str, namespace: str) -> Object:
    """The guarded workload and its place; without a namespace of its own it is taken to be for `namespace`.

    Raises `UserError` that says what is there when it is not there once, and `FileError` when it has no usable pod template.
    """
    found = _only(manifest, kind, name, namespace)
    if found is None:
        raise _absent(manifest, kind, name, namespace)
    faults = found.twice() + _template_faults(found)
    if faults:
        raise found.error(faults)
    return found


def _only(manifest: Manifest, kind: str, name: str, namespace: str) -> Object | None:
    """The object of this kind and name in this namespace; None without one. Raises `UserError` when there are two."""
    found = [o for o in manifest.objects if (o.kind, o.name) == (kind, name) and o.namespace in ("", namespace)]
    if len(found) > 1:
        places = " and ".join(one.where for one in found[:3])
        raise UserError(f"{manifest.path} writes {found[0].title} {len(found)} times: {places}", hint="keep one of them")
    return found[0] if found else None


def _absent(manifest: Manifest, kind: str, name: str, namespace: str) -> UserError:
    asked = f"{manifest.path} has no {kind}/{name} for the namespace `{namespace}`"
    elsewhere = [o for o in manifest.objects if (o.kind, o.name) == (kind, name)]
    if elsewhere:
        return UserError(
            f"{asked}: the one at {elsewhere[0].where} is for `{printable(elsewhere[0].namespace)}`",
            hint=f"give `--namespace {printable(elsewhere[0].namespace)}` if that one is meant",
        )
    same = sorted({o.title for o in manifest.objects if o.kind == kind})
    there = same or sorted({o.title for o in manifest.objects})
    more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
    near = nearest(f"{kind}/{name}", there)
    meant = f"did you mean {near}? " if near else ""
    return UserError(asked, hint=f"{meant}it has {', '.join(there[:MOST_NAMED])}{more}")


def _template_faults(found: Object) -> list[Fault]:
    """What is wrong with the workload's pod template, as far as nobody needs the server to see it."""
    if found.group != "apps":
        old = printable(str(found.data["apiVersion"]))
        return [found.fault(("apiVersion",), f"`{old}` has no {found.kind} that could be guarded", "write `apiVersion: apps/v1`")]
    template = ("spec", "template")
    place, data = (), found.data
    for step in (*template, "spec"):
        inner = data.get(step)
        place = (*place, step)  # type: ignore[assignment]
        if not isinstance(inner, dict):
            return [found.fault(place, "missing" if inner is None else "no map", "a workload says what its pods are")]
        data = inner
    containers = data.get("containers")
    if not isinstance(containers, list) or not containers:
        return [found.fault((*place, "containers"), "no container stands here", "a pod has at least one container")]
    return [one for n, container in enumerate(containers) for one in _container_faults(found, (*place, "containers", n), container)]


def _container_faults(found: Object, place: Place, container: Any) -> list[Fault]:
    if not isinstance(container, dict):
        return [found.fault(place, "no map stands here", "write `{name: web, image: shop/web:1.9}`")]
    return [
        found.fault((*place, field), "missing" if container.get(field) is None else "no text", f"a container has {what}")
        for field, what in (("name", "a name"), ("image", "an image"))
        if not isinstance(container.get(field), str) or not container[field]
    ]


def object_of(manifest: Manifest, kind: str, name: str, namespace: str) -> Object | None:
    """The object of the core group with this kind and name; None without one. Raises `UserError` when there are two."""
    found = _only(manifest, kind, name, namespace)
    return found if found is not None and not found.group else None


def others(manifest: Manifest, ours: Iterable[tuple[str, str]], namespace: str) -> list[Object]:
    """The objects that are not among `ours` (kind and name, in `namespace`): the user's to apply, in the manifest's order."""
    known = set(ours)
    return [o for o in manifest.objects if (o.kind, o.name) not in known or o.namespace not in ("", namespace)]


def others_words(objects: Iterable[Object]) -> list[str]:
    """One line for each kind of the user's objects, as in `ConfigMap: one, two`."""
    by_kind: dict[str, list[str]] = {}
    for one in objects:
        by_kind.setdefault(one.kind, []).append(one.name or "(made up by the server)")
    return [printable(f"{kind}: {listed(names)}".replace("`", "")) for kind, names in by_kind.items()]
