"""One action, told to the world. Every action is idempotent, conditional and fenced: performing it twice is harmless."""

from __future__ import annotations

from typing import assert_never

from deployguard.driver.world import World
from deployguard.model.action import Action, Announce, Append, Forget, Renew, Shift


def perform(world: World, action: Action) -> None:
    """The action is done when this returns. Raises `StaleView` when the world is newer, `WorldError` when it says no."""
    match action:
        case Append(entries):
            world.store.append(entries)
        case Shift(desired, basis):
            world.target.shift(desired, basis)
        case Renew(fence, lease):
            world.target.renew(fence, lease)
        case Announce(entries):
            world.announcer.offer(entries)
        case Forget(requests):
            world.inbox.remove(requests)
        case _:
            assert_never(action)
