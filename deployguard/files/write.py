"""A policy as text: what `policy show` prints, and what loads back as the same policy."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from deployguard.files.scalars import resolve
from deployguard.model.policy import Metadata, Policy, PolicyFile


def to_yaml(policy: Policy, name: str = "merged") -> str:
    """A GuardPolicy document with every field of the policy; reading it gives an equal policy."""
    document = PolicyFile(metadata=Metadata(name=name), spec=policy)
    return yaml.dump(plain(document), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def plain(value: BaseModel) -> dict[str, Any]:
    """The model as plain data in the words of the file, without fields that say nothing."""
    return dict(_without_nothing(value, value.model_dump(mode="json", by_alias=True)))


def _without_nothing(value: Any, data: Any) -> Any:
    """The data without empty maps and fields that are null by default; a null that switches something off stays."""
    if isinstance(value, list):
        return [_without_nothing(item, written) for item, written in zip(value, data, strict=True)]
    if not isinstance(value, BaseModel):
        return data
    kept = {}
    for name, info in type(value).model_fields.items():
        written = data[info.alias or name]
        default = info.get_default(call_default_factory=False)
        if written is None and default is None:
            continue
        inner = _without_nothing(getattr(value, name), written)
        if inner == {} and not info.is_required():
            continue
        kept[info.alias or name] = inner
    return kept


class _Dumper(yaml.SafeDumper):
    """Quotes every text that would be read as something else, and never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        """True: a value that stands twice is written twice."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(resolve(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
