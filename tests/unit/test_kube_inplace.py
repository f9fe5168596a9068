"""Where candidates of a StatefulSet may be, in numbers."""

from __future__ import annotations

import pytest

from deployguard.model.target import Desired
from deployguard.model.version import Version
from deployguard.targets.kubernetes.statefulset import index, partition

OLD, NEW = Version("sha256:old"), Version("sha256:new")


@pytest.mark.parametrize(
    ("wanted", "count", "full", "least"),
    [
        (5, 1, False, 4),
        (5, 2, False, 3),
        (5, 5, True, 0),
        (3, 3, False, 1),
        (2, 4, False, 1),
        (1, 1, False, 1),
        (1, 1, True, 0),
        (0, 1, False, 0),
    ],
)
def test_only_a_promotion_takes_every_pod(wanted: int, count: int, full: bool, least: int) -> None:
    """A stage leaves at least one stable pod, however small the workload has become since it was planned."""
    assert partition(Desired(1, OLD, NEW, count, full=full), wanted) == least


@pytest.mark.parametrize(
    ("labels", "name", "start", "place"),
    [
        ({"apps.kubernetes.io/pod-index": "2"}, "web-2", 0, 2),
        ({}, "my-web-11", 0, 11),
        ({"apps.kubernetes.io/pod-index": "7"}, "web-7", 5, 2),
    ],
)
def test_a_pods_place_is_counted_from_the_first_one(labels: dict[str, str], name: str, start: int, place: int) -> None:
    """By its label, by its name where an older cluster sets none, and from the workload's own first ordinal."""
    assert index({"spec": {"ordinals": {"start": start}}}, {"metadata": {"name": name, "labels": labels}}) == place
