"""The local fleet as a target: the port's three calls, over the supervisor's control socket."""

from __future__ import annotations

from pathlib import Path

from deployguard.local.client import FleetClient
from deployguard.model.target import Desired, TargetView


class LocalTarget:
    """A fleet on this machine. Raises `StaleView` and `WorldError` as the port says."""

    def __init__(self, fleet_dir: Path) -> None:
        self.client = FleetClient(fleet_dir)

    def observe(self) -> TargetView:
        return self.client.observe()

    def shift(self, desired: Desired, basis: str) -> None:
        self.client.shift(desired, basis)

    def renew(self, fence: int, lease: float) -> None:
        self.client.renew(fence, lease)
