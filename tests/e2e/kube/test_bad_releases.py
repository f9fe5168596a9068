"""Bad releases of a Deployment, in front of users: each is taken back for the right reason, and the stable pods never notice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.world import POD_ERRORS
from tests.e2e.kube.registry import empty_registry
from tests.e2e.kube.shop import LATENCY, STAYS, Shop, quick
from tests.e2e.world import Done

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]


@dataclass(frozen=True)
class Case:
    """What is wrong with a release, and what a person must be told of it. Without a policy it is the shipped `fast`."""

    settings: tuple[str, ...]
    cause: tuple[str, ...]
    policy: Any = "fast"
    checks: tuple[dict[str, Any], ...] = (POD_ERRORS,)
    serves: bool = field(default=False, kw_only=True)
    long: bool = field(default=False, kw_only=True)

    @property
    def words(self) -> list[str]:
        return [word for one in self.settings for word in ("--set", one)]


CASES = {
    "errors": Case(("env.ERROR_RATE=0.2",), ("errors", "candidate", "stable 0%"), serves=True),
    "slow": Case(("env.LATENCY_MS=30",), ("latency", "stable"), checks=(POD_ERRORS, LATENCY), serves=True),
    "crash at start": Case(("env.CRASH_AT_START=1",), ("with code 1", "ERROR told to crash at start")),
    "crash soon": Case(("env.CRASH_AFTER_S=2",), ("with code 3", "ERROR told to crash by now"), long=True),
    "never ready": Case(("env.NEVER_READY=1",), ("runs but is not ready in time",), quick(**STAYS, advance_within="15s")),
    "out of memory": Case(("env.MEMORY_MB=200", "resources.limits.memory=64Mi"), ("it used more memory than its limit",)),
    "no such command": Case(('command=["/none"]',), ("cannot be started", "/none"), long=True),
}


def judged(shop: Shop, done: Done, code: int, *cause: str) -> None:
    """The command ended so, and `why`, the report and the Deployment's Events name the cause."""
    assert done.code == code, done.err
    assert done.data["exit_code"] == code
    why, story = shop.why(), shop.described()
    for words in cause:
        assert words in why, why
        assert words in done.data["reason"] + done.err, done.err
    rollout = [line for line in story.splitlines() if done.data["rollout"] in line]
    assert any("CanaryExposed" in line for line in rollout), story
    assert any("RollingBack" in line and cause[0] in line for line in rollout), story


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.full) if case.long else name for name, case in CASES.items()])
def test_a_bad_release_is_taken_back(stable_shop: Shop, name: str) -> None:
    """It never gets beyond one pod, users saw errors of that pod alone, and its cause is told, with the last line that it logged."""
    case, began = CASES[name], len(stable_shop.users.answers)
    with stable_shop.unharmed():
        done = stable_shop.run(*case.words, policy=case.policy, checks=case.checks)
    judged(stable_shop, done, 10, *case.cause)
    assert done.data["exposure_max"]["instances"] == 1
    failed = [answer for answer in stable_shop.users.answers[began:] if not answer.good]
    assert case.serves or not [answer for answer in failed if answer.status >= 500], stable_shop.users.summary()


def test_an_image_that_does_not_exist_is_condemned(stable_shop: Shop) -> None:
    """A registry that does not know the image condemns the release at once."""
    with empty_registry() as registry, stable_shop.unharmed():
        done = stable_shop.run("--image", f"{registry}/shop/none:7")
        judged(stable_shop, done, 10, f"its image {registry}/shop/none:7 cannot be had")


def test_a_registry_that_does_not_answer_blames_nobody(stable_shop: Shop) -> None:
    """A release whose image cannot be fetched now is taken back without a verdict, and may be tried again."""
    blind = {"hold_after": "2s", "retreat_after": "4s", "hold_limit": "1m"}
    with stable_shop.unharmed():
        done = stable_shop.run("--image", "localhost:9/shop/none:7", policy=quick(**STAYS, advance_within="10s", blind=blind))
    assert done.code == 12, done.err
    assert "its image localhost:9/shop/none:7 cannot be had" in stable_shop.why()
    assert "nothing is quarantined" in stable_shop.why()


@pytest.mark.full
def test_a_crash_after_half_a_minute_is_seen(stable_shop: Shop) -> None:
    """A release that serves well for 30 s and then ends is taken back at its second end."""
    with stable_shop.unharmed():
        done = stable_shop.run("--set", "env.CRASH_AFTER_S=30")
    judged(stable_shop, done, 10, "exited 2 times by itself, last with code 3", "ERROR told to crash by now")
