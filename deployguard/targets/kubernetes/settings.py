"""The content of ConfigMaps and Secrets as values, and their digests. Pure, and careful never to show a value."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployguard.model.base import Frozen
from deployguard.model.version import NOTHING
from deployguard.targets.kubernetes.references import SECRET, ConfigRef

_OPAQUE = "Opaque"


@dataclass(frozen=True, slots=True)
class ConfigContent:
    """What a ConfigMap or a Secret holds: text, and base64 text (everything, in a Secret). `type` is a Secret's type."""

    data: Mapping[str, str] = field(default_factory=dict, repr=False)
    binary: Mapping[str, str] = field(default_factory=dict, repr=False)
    type: str = ""

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> ConfigContent:
        """The content of an object as the API server shows it, or as a manifest writes it."""
        if obj.get("kind") == SECRET or "stringData" in obj or "type" in obj:
            said = {key: base64.b64encode(value.encode()).decode() for key, value in (obj.get("stringData") or {}).items()}
            return cls(binary={**(obj.get("data") or {}), **said}, type=obj.get("type") or _OPAQUE)
        return cls(data=obj.get("data") or {}, binary=obj.get("binaryData") or {})

    def fields(self, kind: str) -> dict[str, Any]:
        """The fields of an object of `kind` with this content."""
        if kind == SECRET:
            return {"data": dict(self.binary), "type": self.type or _OPAQUE}
        return {"data": dict(self.data)} | ({"binaryData": dict(self.binary)} if self.binary else {})


@dataclass(frozen=True, slots=True)
class Copy:
    """An immutable copy: its name and its content."""

    name: str
    content: ConfigContent


class Entry(Frozen, frozen=True):
    """One line of an index: a source, the name of the copy of its content, and the content's digest."""

    kind: str
    name: str
    copy: str
    digest: str

    @property
    def ref(self) -> ConfigRef:
        return ConfigRef(self.kind, self.name)


def content_digest(content: ConfigContent, key: bytes | None) -> str:
    """The digest of one content; with a key nobody without it can try values against the digest."""
    said = {"data": dict(content.data), "binary": dict(content.binary), "type": content.type}
    text = msgspec.json.encode(said, order="sorted")
    if key is not None:
        return "hmac-sha256:" + hmac.new(key, text, hashlib.sha256).hexdigest()
    return "sha256:" + hashlib.sha256(text).hexdigest()


def config_digest(digests: Mapping[ConfigRef, str]) -> str:
    """The digest of a configuration: of the digests of its sources' contents, sorted by kind and name; `NOTHING` when there is none."""
    if not digests:
        return NOTHING
    lines = [[ref.kind, ref.name, digests[ref]] for ref in sorted(digests)]
    return "sha256:" + hashlib.sha256(msgspec.json.encode(lines)).hexdigest()


def entries_of(index: Mapping[str, Any], key: str) -> tuple[Entry, ...]:
    """The lines of an index; none when it cannot be read, or is no index."""
    try:
        return msgspec.json.decode((index.get("data") or {}).get(key, ""), type=tuple[Entry, ...])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
