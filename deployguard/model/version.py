"""What runs: a pair of digests, of the release and of the configuration it reads."""

from __future__ import annotations

import hashlib

from deployguard.model.base import Frozen

NOTHING = "sha256:" + hashlib.sha256(b"").hexdigest()
"""The digest of an absent configuration."""


class Version(Frozen, frozen=True, order=True):
    """Everything that would run, named by content: equal content is the same version, whatever it is called."""

    release: str
    config: str = NOTHING

    @property
    def digest(self) -> str:
        """One digest for the pair."""
        return "sha256:" + hashlib.sha256(f"{self.release}\n{self.config}".encode()).hexdigest()

    @property
    def short(self) -> str:
        """Ten hex digits that people compare by eye."""
        return self.digest[7:17]


def components(candidate: Version, stable: Version | None) -> tuple[str, ...]:
    """What FAIL condemns: the digests in which the candidate differs from stable; the pair when both differ."""
    if stable is None or (candidate.release != stable.release and candidate.config != stable.config):
        return (candidate.digest,)
    if candidate.release != stable.release:
        return (candidate.release,)
    return (candidate.config,)
