"""The contents of guarded ConfigMaps and Secrets as a pipeline gives them: in a manifest, or as files (`--config KIND/NAME=PATH`).

What is checked here is what the API server would refuse later, when half of the change is already made. A value never reaches a message.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployguard.errors import Fault, FileError, UserError
from deployguard.files.manifest import SUFFIXES, Manifest, Object, load_manifest, object_of
from deployguard.files.read import read_bytes
from deployguard.files.report import printable

KINDS = ("ConfigMap", "Secret")
MOST = 1024 * 1024
"""Bytes of all values of one object: the API server's own limit."""
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Source:
    """The content of one ConfigMap or Secret. `text` is what a ConfigMap keeps as text, `binary` its other values and all of a Secret's.

    `type` is a Secret's, empty when the present one's is kept. `skipped` names what lay in a directory and is no value.
    Values are left out when it is printed.
    """

    kind: str
    name: str
    text: dict[str, str] = field(default_factory=dict, repr=False)
    binary: dict[str, bytes] = field(default_factory=dict, repr=False)
    type: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Kind and name, as `ConfigMap/web-settings`."""
        return f"{self.kind}/{self.name}"

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(len(value.encode()) for value in self.text.values()) + sum(map(len, self.binary.values()))

    def body(self) -> dict[str, Any]:
        """The content as fields of the object: `data`, a ConfigMap's `binaryData`, a Secret's `type` where it is known."""
        coded = {key: base64.b64encode(value).decode() for key, value in sorted(self.binary.items())}
        if self.kind == "Secret":
            return {"data": coded} | ({"type": self.type} if self.type else {})
        return {"data": dict(sorted(self.text.items()))} | ({"binaryData": coded} if coded else {})


def sources_of(manifest: Manifest, refs: Iterable[tuple[str, str]], namespace: str) -> dict[tuple[str, str], Source]:
    """The contents of those guarded ConfigMaps and Secrets (kind, name) that the manifest writes.

    Raises `FileError` with every fault of one that the API server would refuse.
    """
    found: dict[tuple[str, str], Source] = {}
    for ref in refs:
        written = object_of(manifest, *ref, namespace)
        if written is not None:
            found[ref] = source_of(written)
    return found


def source_of(written: Object) -> Source:
    """The content of a ConfigMap or Secret that a manifest writes. Raises `FileError` with all its faults; none shows a value."""
    faults = written.twice()
    text = _values(written, "stringData" if written.kind == "Secret" else "data", faults)
    coded = _values(written, "data" if written.kind == "Secret" else "binaryData", faults)
    binary: dict[str, bytes] = {}
    for key, value in coded.items():
        field_name = "data" if written.kind == "Secret" else "binaryData"
        try:
            binary[key] = base64.b64decode(re.sub(r"[\r\n]", "", value), validate=True)
        except (binascii.Error, ValueError):
            right = "write it in base64, or as text under `stringData`" if written.kind == "Secret" else "write it in base64"
            faults.append(written.fault((field_name, key), "the value is not base64", right))
    if written.kind == "ConfigMap":
        faults += [
            written.fault(("binaryData", key), "the key stands in `data` and in `binaryData`", "keep one of them")
            for key in text
            if key in binary
        ]
        source = Source(written.kind, written.name, text, binary)
    else:
        kind = written.data.get("type")
        merged = binary | {key: value.encode() for key, value in text.items()}
        source = Source(written.kind, written.name, {}, merged, kind if isinstance(kind, str) else "")
    if source.size > MOST:
        faults.append(written.fault((), _too_large(source), "put large files into an image or a volume"))
    if faults:
        raise written.error(faults)
    return source


def _values(written: Object, name: str, faults: list[Fault]) -> dict[str, str]:
    """The text values of one field; what is no text, and a key that no file can have, is a fault."""
    values = written.data.get(name)
    if values is None:
        return {}
    if not isinstance(values, dict):
        faults.append(written.fault((name,), "no map stands here", "write `key: value`"))
        return {}
    found: dict[str, str] = {}
    for key, value in values.items():
        if why := key_fault(key):
            faults.append(written.fault((name, key), f"the key {why}", "keys are letters, digits, `-`, `_` and `.`"))
        elif isinstance(value, str):
            found[key] = value
        else:
            what = "a list" if isinstance(value, list) else "a map" if isinstance(value, dict) else "nothing" if value is None else ""
            shown = f"{what} stands here" if what else "a number or true/false stands here"
            faults.append(written.fault((name, key), shown, "every value is text: put it in quotes"))
    return found


def key_fault(key: str) -> str:
    """Why the API server would refuse the key; empty when it would not."""
    if not _KEY.fullmatch(key):
        return "is empty" if not key else "is longer than 253 characters" if len(key) > 253 else "has a character that keys cannot have"
    return "begins with `..`" if key.startswith("..") else "is `.`" if key == "." else ""


def _too_large(source: Source) -> str:
    return f"{source.title} has {source.size:,} bytes of values, and {MOST:,} are the most"


@dataclass(frozen=True, slots=True)
class Given:
    """What `--config KIND/NAME=PATH` says."""

    kind: str
    name: str
    path: str


def given(option: str) -> Given:
    """The parts of a `--config` option. Raises `UserError` that shows how to write it."""
    what, equals, path = option.partition("=")
    kind, slash, name = what.partition("/")
    known = {word.lower(): word for word in KINDS} | {"cm": "ConfigMap"}
    right = "write `--config ConfigMap/web-settings=./new/` or `--config Secret/web-tls=./tls/`"
    if not equals or not slash or not path:
        raise UserError(f"`--config {printable(option)}` does not say what it is the content of", hint=right)
    if kind.lower() not in known:
        raise UserError(f"`--config {printable(option)}`: `{printable(kind)}` is no kind of configuration", hint=right)
    if not _NAME.fullmatch(name):
        raise UserError(f"`--config {printable(option)}`: `{printable(name)}` is no name that an object can have", hint=right)
    return Given(known[kind.lower()], name, path)


def config_sources(options: Iterable[str]) -> dict[tuple[str, str], Source]:
    """The contents that the `--config` options name, by kind and name. Raises `UserError` for one that is given twice."""
    found: dict[tuple[str, str], Source] = {}
    for option in options:
        wanted = given(option)
        if (wanted.kind, wanted.name) in found:
            raise UserError(
                f"`--config` gives {wanted.kind}/{wanted.name} twice", hint="put the files into one directory: it is the whole content"
            )
        found[wanted.kind, wanted.name] = content_at(wanted)
    return found


def content_at(wanted: Given) -> Source:
    """The whole content that lies at a path, read as `kubectl create configmap` reads it.

    A directory: each regular file in it is a value, its name the key. A file that ends in .env: each line `KEY=value`. A manifest that
    writes this very object: its content. Any other file: one value, the file's name is the key. Raises `FileError`.
    """
    path = Path(wanted.path)
    if path.is_dir():
        return _directory(wanted, path)
    if path.suffix == ".env" or path.name == ".env":
        return _made(wanted, _environment(path))
    written = _manifest(wanted, path)
    if written is not None:
        return source_of(written)
    if why := key_fault(path.name):
        right = "rename it, or put it into a directory of its own under another name"
        raise FileError(wanted.path, [Fault(0, "", f"the file's name is to be the key, and it {why}", right)])
    return _made(wanted, {path.name: read_bytes(path, MOST)})


def _directory(wanted: Given, folder: Path) -> Source:
    values: dict[str, bytes] = {}
    skipped: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            skipped.append(path.name)
        elif why := key_fault(path.name):
            raise FileError(str(path), [Fault(0, "", f"the file's name is to be the key, and it {why}", "rename it, or take it away")])
        else:
            values[path.name] = read_bytes(path, MOST)
    if not values:
        raise FileError(wanted.path, [Fault(0, "", "no regular file lies in it", "each file in it becomes a value")])
    return _made(wanted, values, tuple(skipped))


def _made(wanted: Given, values: dict[str, bytes], skipped: tuple[str, ...] = ()) -> Source:
    text: dict[str, str] = {}
    binary: dict[str, bytes] = {}
    for key, value in values.items():
        decoded = None if wanted.kind == "Secret" else _utf8(value)
        if decoded is None:
            binary[key] = value
        else:
            text[key] = decoded
    source = Source(wanted.kind, wanted.name, text, binary, skipped=skipped)
    if source.size > MOST:
        raise FileError(wanted.path, [Fault(0, "", _too_large(source), "put large files into an image or a volume")])
    return source


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _environment(path: Path) -> dict[str, bytes]:
    """The variables of an .env file: `KEY=value` lines, `#` and empty lines left out, the value as it stands, quotes and all."""
    values: dict[str, bytes] = {}
    faults: list[Fault] = []
    text = _utf8(read_bytes(path, MOST).removeprefix(b"\xef\xbb\xbf"))
    if text is None:
        raise FileError(str(path), [Fault(0, "", "text that is not UTF-8", "save it as UTF-8")])
    for number, line in enumerate(text.split("\n"), 1):
        line = line.lstrip().removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            faults.append(Fault(number, "", "a line without `=`", "write `KEY=value`; no value is taken from the environment"))
        elif not _VARIABLE.fullmatch(key):
            faults.append(Fault(number, "", "what stands before `=` is no name of a variable", "write `KEY=value`"))
        elif key in values:
            faults.append(Fault(number, key, "written twice", "keep one of them"))
        else:
            values[key] = value.encode()
    if faults or not values:
        raise FileError(str(path), faults or [Fault(0, "", "no variable stands in it", "write `KEY=value`")])
    return values


def _manifest(wanted: Given, path: Path) -> Object | None:
    """The object at `path` when the file is a manifest of it; None when it is a plain file of settings.

    Raises `UserError` when it is a manifest of another ConfigMap or Secret: to make such a file a value is never what was meant.
    """
    if path.suffix not in SUFFIXES:
        return None
    try:
        objects = load_manifest(path).objects
    except FileError:
        return None
    there = [one for one in objects if one.kind in KINDS and not one.group]
    found = [one for one in there if (one.kind, one.name) == (wanted.kind, wanted.name)]
    if len(found) > 1:
        raise UserError(f"{path} writes {found[0].title} {len(found)} times", hint="keep one of them")
    if there and not found:
        titles = ", ".join(one.title for one in there[:5])
        raise UserError(f"{path} does not write {wanted.kind}/{wanted.name}: it has {titles}", hint="name the one that is meant")
    return found[0] if found else None
