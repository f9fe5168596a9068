"""`run` with a good change and with every kind of bad one, on one fleet of shops with users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.world import ERRORS, LOGIN, UNTIL_JUDGED, USERS, World, words

pytestmark = pytest.mark.e2e
LONG = pytest.mark.full


@pytest.fixture(scope="module", params=[pytest.param(6, id="six"), pytest.param(20, id="twenty", marks=LONG)])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A fleet with users, which many rollouts follow one another on."""
    made = World(tmp_path_factory.mktemp("shop").resolve(), instances=request.param)
    made.up()
    with made.load(rate=12 * made.instances):
        yield made
    made.close()


def judged_bad(shop: World, before: dict[str, str], report: dict[str, Any], code: int) -> None:
    """It was judged bad on one instance, which is back on stable, and no other process was ever started again."""
    assert (code, report["outcome"], report["exit_code"]) == (10, "rolled_back", 10), report["reason"]
    assert report["exposure_max"]["instances"] == 1
    assert report["exposure_max"]["of"] == shop.instances
    assert len(shop.changed(before)) <= 1
    assert shop.on_stable()
    status = shop.status()
    assert (status["serving"]["digest"], status["exposure"]["instances"]) == (report["stable"]["digest"], 0)
    assert (status["serving"]["instances"], status["overdue"]) == (shop.instances, False)
    assert shop.ledger_is_whole()


def quarantined(report: dict[str, Any], part: str) -> None:
    """Only this component of the candidate is condemned."""
    assert [q["digest"] for q in report["quarantined"]] == [report["candidate"][part]]


@pytest.mark.parametrize("part", ["release", "config"])
def test_errors(shop: World, part: str) -> None:
    """A change that fails 20 % of the requests is condemned by the counts, and `why` has every number of it."""
    before = shop.uids()
    change = shop.release(errors=0.2) if part == "release" else shop.config(errors=0.2)
    done = shop.run(shop.guard(ERRORS, stages=UNTIL_JUDGED), **{part: change})
    report = done.data
    judged_bad(shop, before, report, done.code)
    quarantined(report, part)
    if part == "config":
        assert not shop.changed(before), "a config is reloaded, both ways"
    (check,) = report["checks"]
    assert (check["name"], check["verdict"], check["reason"]) == ("errors", "fail", "evidence")
    assert check["counts"]["candidate"]["bad"] > 0
    assert check["counts"]["stable"]["total"] > check["counts"]["stable"]["bad"]
    assert check["interval"][0] > 1.25
    assert check["evidence"] >= check["needed"]
    assert report["requests"]["candidate"] >= report["failed_requests"]["candidate"] > 0
    why = shop.why()
    candidate, stable = check["counts"]["candidate"], check["counts"]["stable"]
    for piece in (
        "ROLLED BACK to",
        f"({candidate['bad']:,.0f} of {candidate['total']:,.0f})",
        f"({stable['bad']:,.0f} of {stable['total']:,.0f})",
        "errors  candidate",
        "ratio ",
        "floor 1%" if "floor" in check["limit"] else "limit 15%",
        "FAIL (evidence)",
        f"exposure: at most 1 of {shop.instances} instances",
        "action: went back to",
        f"{shop.instances} of {shop.instances} instances have loaded the stable version",
        f"quarantine: {change.stem}",
    ):
        assert piece in why


@pytest.mark.parametrize(
    ("word", "flaws", "reason"),
    [
        ("crash-at-start", {"crash_at_start": True}, "doomed"),
        ("crash-later", {"crash_after_s": 6}, "doomed"),
        pytest.param("crash-after-30", {"crash_after_s": 30}, "doomed", marks=LONG),
        ("never-ready", {"never_ready": True}, "late"),
    ],
)
def test_cannot_live(shop: World, word: str, flaws: dict[str, Any], reason: str) -> None:
    """A release that crashes, at once or later, or never gets ready is condemned by its health alone."""
    before = shop.uids()
    stages = [{"instances": 1, "soak": "3m"}, {"exposure": "100%", "soak": "2s"}]
    within = "8s" if reason == "late" else "60s"
    done = shop.run(shop.guard(ERRORS, stages=stages, warmup="2s", advance_within=within), release=shop.release(word, **flaws))
    report = done.data
    judged_bad(shop, before, report, done.code)
    quarantined(report, "release")
    check = report["checks"][0]
    assert (check["name"], check["verdict"], check["reason"]) == ("health", "fail", reason)
    assert "instance" in check["text"]
    if reason == "doomed":
        assert "the shop cannot go on" in check["text"]
    why = shop.why()
    for piece in (
        "health",
        f"FAIL ({reason})",
        check["text"][:60],
        f"exposure: at most 1 of {shop.instances} instances",
        "action: went back to",
    ):
        assert piece in why


@pytest.mark.parametrize("flaw", ["hang", "login_broken"])
def test_only_users_see_it(shop: World, flaw: str) -> None:
    """A release whose health and counters are green, but which hangs or lets nobody sign in, is vetoed by the probe."""
    before = shop.uids()
    done = shop.run(shop.guard(ERRORS, LOGIN), release=shop.release(flaw, **{flaw: True}))
    report = done.data
    judged_bad(shop, before, report, done.code)
    quarantined(report, "release")
    check = report["checks"][0]
    assert (check["name"], check["verdict"], check["reason"]) == ("login", "fail", "veto")
    assert check["counts"]["candidate"]["bad"] >= 3
    assert check["counts"]["stable"]["bad"] == 0
    why = shop.why()
    for piece in ("login", "FAIL (veto)", "3 red walks in a row", f"at most 1 of {shop.instances} instances", "action: went back to"):
        assert piece in why


def test_hang_is_counted_by_the_balancer(shop: World) -> None:
    """Requests that are never answered count as failed at the balancer, whatever the release says of itself."""
    before = shop.uids()
    done = shop.run(shop.guard(USERS, stages=UNTIL_JUDGED), release=shop.release("hang", hang=True))
    judged_bad(shop, before, done.data, done.code)
    assert done.data["checks"][0]["name"] == "users"


def test_refused_after_it_was_condemned(shop: World) -> None:
    """What was condemned is refused with exit code 13 and nothing is touched, and runs again when a reason is given."""
    bad = shop.release(crash_at_start=True)
    guard = shop.guard(ERRORS)
    assert shop.run(guard, release=bad).code == 10
    before = shop.uids()
    again = shop.run(guard, release=bad)
    assert (again.code, again.data["outcome"]) == (13, "refused")
    assert "quarantined" in again.err
    assert not shop.changed(before)
    assert shop.run(guard, "--override", "to see it again", release=bad).code == 10


@pytest.mark.parametrize("part", ["release", "config"])
def test_good(shop: World, part: str) -> None:
    """A good change goes through all stages to everybody, and a good config without the restart of any process."""
    before = shop.uids()
    change = shop.release("good") if part == "release" else shop.config("good")
    done = shop.run(shop.guard(ERRORS, LOGIN), **{part: change})
    report = done.data
    assert (done.code, report["outcome"]) == (0, "promoted"), report["reason"]
    assert words(report).count("advancing") >= 3
    assert words(report)[-1] == "watching"
    assert report["exposure_max"]["instances"] == shop.instances
    assert report["quarantined"] == []
    assert shop.on_stable()
    assert shop.changed(before) == (set(before) if part == "release" else set())
    status = shop.status()
    assert status["serving"]["digest"] == report["candidate"]["digest"]
    assert status["serving"]["stable"]
    assert status["serving"]["instances"] == shop.instances
    row = shop.cli("history", "-o", "json").data[0]
    assert row["rollout"] == report["rollout"]
    assert row["outcome"] in ("watching", "promoted")
    again = shop.run(shop.guard(ERRORS, LOGIN), **{part: change})
    assert (again.code, again.data["outcome"]) == (0, "unchanged")
