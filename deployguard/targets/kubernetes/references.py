"""Which ConfigMaps and Secrets a pod template reads, where, and how a template names copies of them instead.

Pure: a template goes in as the API server stores it, and is never changed.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONFIG_MAP = "ConfigMap"
SECRET = "Secret"
_CSI_SECRETS = "secrets-store.csi.k8s.io"
_STORAGE = ("csi", "flexVolume", "cephfs", "rbd", "iscsi", "scaleIO", "storageos")
_STORAGE_FIELDS = ("nodePublishSecretRef", "secretRef")


@dataclass(frozen=True, slots=True, order=True)
class ConfigRef:
    """A ConfigMap or a Secret, by kind and name, in the workload's namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Reference:
    """One place where a pod template names a ConfigMap or a Secret.

    `where` in words. `optional`: pods start without it. `keys` are the keys that are read, empty for all of them. `pinnable`: what
    stands there is content that the program reads; credentials for registries and storage are not.
    """

    kind: str
    name: str
    where: str
    optional: bool = False
    keys: tuple[str, ...] = ()
    pinnable: bool = True

    @property
    def config(self) -> ConfigRef:
        """What is named."""
        return ConfigRef(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class _Place:
    """A reference, and the map and field that hold its name."""

    reference: Reference
    holder: dict[str, Any]
    field: str


def references(template: Mapping[str, Any]) -> tuple[Reference, ...]:
    """Every place where `template` names a ConfigMap or a Secret: volumes first, then containers, then pull secrets."""
    return tuple(place.reference for place in _places(template))


def pinned(template: Mapping[str, Any], pins: Mapping[ConfigRef, str]) -> dict[str, Any]:
    """A copy of `template` in which every reference to a key of `pins` names its value instead."""
    mine: dict[str, Any] = copy.deepcopy(dict(template))
    for place in _places(mine):
        name = pins.get(place.reference.config)
        if name is not None and place.reference.pinnable:
            place.holder[place.field] = name
    return mine


def unguardable(template: Mapping[str, Any], config: Collection[ConfigRef]) -> tuple[str, ...]:
    """What a guard of `config` cannot see or hold of what these pods read, a sentence each."""
    return (*_unguarded(template, config), *_unread(template, config), *_frozen_mounts(template, config), *_foreign_volumes(template))


def containers(template: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container of a template or a pod with the words for it: `container app`, `init container migrate`, `sidecar proxy`."""
    spec = template.get("spec") or {}
    for one in spec.get("initContainers") or []:
        yield f"{'sidecar' if one.get('restartPolicy') == 'Always' else 'init container'} {one.get('name', '')}", one
    for one in spec.get("containers") or []:
        yield f"container {one.get('name', '')}", one


def _places(template: Mapping[str, Any]) -> Iterator[_Place]:
    spec = template.get("spec") or {}
    for volume in spec.get("volumes") or []:
        yield from _of_volume(volume)
    for words, container in containers(template):
        yield from _of_container(words, container)
    for secret in spec.get("imagePullSecrets") or []:
        if secret.get("name"):
            yield _Place(Reference(SECRET, secret["name"], "imagePullSecrets", optional=True, pinnable=False), secret, "name")


def _of_volume(volume: dict[str, Any]) -> Iterator[_Place]:
    where = f"volume {volume.get('name', '')}"
    if volume.get("configMap"):
        yield from _of_source(CONFIG_MAP, volume["configMap"], "name", where)
    if volume.get("secret"):
        yield from _of_source(SECRET, volume["secret"], "secretName", where)
    for source in (volume.get("projected") or {}).get("sources") or []:
        if source.get("configMap"):
            yield from _of_source(CONFIG_MAP, source["configMap"], "name", f"projected {where}")
        if source.get("secret"):
            yield from _of_source(SECRET, source["secret"], "name", f"projected {where}")
    for kind in _STORAGE:
        for field in _STORAGE_FIELDS:
            holder = (volume.get(kind) or {}).get(field)
            if holder and holder.get("name"):
                yield _Place(Reference(SECRET, holder["name"], f"credentials of {where}", pinnable=False), holder, "name")
    azure = volume.get("azureFile")
    if azure and azure.get("secretName"):
        yield _Place(Reference(SECRET, azure["secretName"], f"credentials of {where}", pinnable=False), azure, "secretName")


def _of_source(kind: str, source: dict[str, Any], field: str, where: str) -> Iterator[_Place]:
    if source.get(field):
        keys = tuple(item["key"] for item in source.get("items") or [])
        yield _Place(Reference(kind, source[field], where, bool(source.get("optional")), keys), source, field)


def _of_container(words: str, container: dict[str, Any]) -> Iterator[_Place]:
    for entry in container.get("envFrom") or []:
        for field, kind in (("configMapRef", CONFIG_MAP), ("secretRef", SECRET)):
            holder = entry.get(field)
            if holder and holder.get("name"):
                yield _Place(Reference(kind, holder["name"], f"envFrom of {words}", bool(holder.get("optional"))), holder, "name")
    for variable in container.get("env") or []:
        source = variable.get("valueFrom") or {}
        for field, kind in (("configMapKeyRef", CONFIG_MAP), ("secretKeyRef", SECRET)):
            holder = source.get(field)
            if holder and holder.get("name"):
                where = f"env {variable.get('name', '')} of {words}"
                optional, keys = bool(holder.get("optional")), (holder.get("key", ""),)
                yield _Place(Reference(kind, holder["name"], where, optional, keys), holder, "name")


def _unguarded(template: Mapping[str, Any], config: Collection[ConfigRef]) -> Iterator[str]:
    """Names that the pods read and the guard does not list."""
    found: dict[ConfigRef, list[str]] = {}
    for reference in references(template):
        if reference.pinnable and reference.config not in config:
            found.setdefault(reference.config, []).append(reference.where)
    for ref, where in found.items():
        yield f"{ref} is read ({', '.join(dict.fromkeys(where))}) but not guarded: its changes reach pods unwatched; list it in `config`"


def _unread(template: Mapping[str, Any], config: Collection[ConfigRef]) -> Iterator[str]:
    """What the guard lists and the template names nowhere: at best the program asks the API server for it."""
    named = {reference.config for reference in references(template) if reference.pinnable}
    token = (template.get("spec") or {}).get("automountServiceAccountToken") is not False
    for ref in config:
        if ref not in named:
            api = "; if the program reads it through the API server, canary and stable both read the source" if token else ""
            yield f"{ref} is guarded but the pod template names it nowhere, so a canary cannot be given a content of its own{api}"


def _frozen_mounts(template: Mapping[str, Any], config: Collection[ConfigRef]) -> Iterator[str]:
    """Guarded files mounted by subPath, which a running pod never reads anew."""
    volumes = (template.get("spec") or {}).get("volumes") or []
    held = {v.get("name"): [p.reference.config for p in _of_volume(v) if p.reference.config in config] for v in volumes}
    for words, container in containers(template):
        for mount in container.get("volumeMounts") or []:
            if mount.get("subPath") or mount.get("subPathExpr"):
                for ref in held.get(mount.get("name")) or []:
                    yield (
                        f"{words} mounts {ref} by subPath ({mount.get('mountPath', '')}): "
                        "a running pod never sees a change of it, only a new pod does"
                    )


def _foreign_volumes(template: Mapping[str, Any]) -> Iterator[str]:
    """Secrets that come from outside the cluster by a storage driver."""
    for volume in (template.get("spec") or {}).get("volumes") or []:
        if (volume.get("csi") or {}).get("driver") == _CSI_SECRETS:
            name = ((volume["csi"].get("volumeAttributes")) or {}).get("secretProviderClass", "")
            yield (
                f"volume {volume.get('name', '')} gets its secrets from outside the cluster (SecretProviderClass {name}): "
                "their content is not guarded, and canary and stable read the same"
            )
