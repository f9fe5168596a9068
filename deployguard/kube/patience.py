"""Creations that a busy server turned away: it says that it did nothing, so whoever needs the object may ask again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from deployguard import clock
from deployguard.kube.errors import Throttled

T = TypeVar("T")
ATTEMPTS = 5
LONGEST = 5.0
"""Seconds to wait at most before the next attempt, whatever the server asks for."""


def patiently(create: Callable[[], T]) -> T:
    """What `create` gives. It is called again, a few times at most, when the server was too busy (429), which carried nothing out.

    Raises the last `Throttled`, and at once everything else: of another failure nobody knows whether the object is there.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return create()
        except Throttled as error:
            if attempt == ATTEMPTS:
                raise
            clock.sleep(min(LONGEST, max(error.retry_after, 0.2 * 2**attempt)))
    raise AssertionError("the last attempt returns or raises")
