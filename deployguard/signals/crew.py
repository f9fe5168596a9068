"""When what was read of some instances may stand for their arm."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from deployguard.model.reading import Missing
from deployguard.model.target import STABLE, Arm, Instance
from deployguard.signals.fetch import Failure


def started(instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
    """Those that can be asked."""
    return tuple(one for one in instances if one.started is not None)


def speaks(arm: Arm, asked: tuple[Instance, ...], read: Mapping[str, Any]) -> bool:
    """Whether what was read may stand for the arm: any candidate says something, a lone stable instance is no control."""
    if arm != STABLE:
        return bool(read)
    ready = [one for one in asked if one.ready]
    return bool(read) and 2 * sum(one.uid in read for one in ready) >= len(ready)


def missing(failed: dict[str, Failure], asked: int) -> Missing:
    """The commonest reason of an arm of which too little was read."""
    reason = collections.Counter(what.reason for what in failed.values()).most_common(1)[0][0]
    name, first = next((name, what) for name, what in failed.items() if what.reason == reason)
    return Missing(reason, f"{asked - len(failed)} of {asked} instances read; {name}: {first.detail}")
