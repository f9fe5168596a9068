"""Yards for these tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Api
from tests.cluster.fixtures import Cluster
from tests.cluster.world import ClusterWorld
from tests.e2e.kube_others.stage import Yard


@pytest.fixture
def yard(node: Cluster, api: Api, command: ClusterWorld, tmp_path: Path) -> Callable[..., Yard]:
    """A Deployment of two pods; nobody has deployed it yet."""

    def made(**more: Any) -> Yard:
        place = Yard(node, api, command, tmp_path.resolve(), **more)
        place.service()
        return place

    return made
