"""Versions as the reports name them. Apart from the run report, because `status` needs no more of it than this."""

from __future__ import annotations

from typing import Any

from deployguard.model.document import Document, StableVersion
from deployguard.model.version import Version


def version_json(document: Document, version: Version) -> dict[str, Any]:
    """The version's digests, and what people call it."""
    return {"digest": version.digest, "release": version.release, "config": version.config, "name": document.name(version)}


def names_of(document: Document) -> dict[str, str]:
    """What people call the versions of the document, by the digest of the pair: the ledger names versions by it."""
    rollout = document.rollout
    versions = [s.version for s in document.stable] + ([rollout.stable, rollout.candidate] if rollout is not None else [])
    return {**document.names, **{version.digest: document.name(version) for version in versions}}


def stable_of(document: Document, version: Version) -> StableVersion | None:
    """The record of `version` as stable; None when there is none."""
    return next((s for s in document.stable if s.version == version), None)
