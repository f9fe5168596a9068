"""Rollouts of a real fleet, decided again from their recordings."""

from __future__ import annotations

import json
import signal

import pytest

from tests.e2e.world import ERRORS, LOGIN, World

pytestmark = pytest.mark.e2e
SHORT = [{"instances": 1, "soak": "4s", "limit": "2m"}, {"exposure": "100%", "soak": "2s", "limit": "2m"}]


def test_every_decision_of_a_real_fleet_comes_out_again(world: World) -> None:
    """Of a good release whose guard was killed halfway and followed by another, and of a bad one after it: to the byte.

    The guard's own policy as a draft ends both as they ended.
    """
    world.instances = 3
    world.up()
    guard = world.guard(ERRORS, LOGIN, stages=SHORT)
    with world.load(rate=60):
        going = world.begin(guard, release=world.release("good"))
        going.says("analyzing stage 1/2")
        going.signal(signal.SIGKILL)
        going.end()
        good = world.cli("run", "--resume", "--stay", "0s", "-o", "json")
        assert good.code == 0, good.err
        bad = world.run(guard, release=world.release("bad", errors=0.3))
        assert bad.code == 10, bad.err

    for done in (good, bad):
        rollout = done.data["rollout"]
        again = world.cli("why", rollout, "--replay", "-o", "json")
        assert again.code == 0, again.err + again.out
        replay = again.data["replay"]
        assert (replay["identical"], replay["difference"], replay["missing"], replay["lost"]) == (True, None, [], [])
        assert replay["moves"] >= 4
        ledger = [json.loads(line) for line in world.cli("ledger", "export", "shop", "--rollout", rollout).out.splitlines()]
        assert replay["entries"] + len(replay["carried"]) == len(ledger)
        assert len(replay["carried"]) <= 1

    rows = world.cli("policy", "simulate", guard, "-o", "json").data["rollouts"]
    assert [(row["result"], row["earlier_s"]) for row in rows] == [("passed", 0.0), ("caught", 0.0)]

    text = world.cli("why", "--replay").out
    assert text.startswith(world.why().split(" (stable since")[0])
    assert "identical to the ledger" in text
    condemned = next(entry for entry in ledger if entry["phase"] == "rolling_back")
    one = world.cli("why", f"{rollout}/{condemned['n']}", "--replay", "-o", "json").data
    assert (one["phase"], one["checks"][0]["verdict"]) == ("rolling_back", "fail")
    assert one["checks"][0]["evidence"] == condemned["data"]["findings"][0]["value"]
