"""What recordings say about the stable version, block by block."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import msgspec

from deployguard.engine.recording import Recorder
from deployguard.model.action import Observation
from deployguard.model.document import Document, StableVersion
from deployguard.model.reading import Buckets, Missing
from deployguard.model.rollout import Analyzing, Rollout
from deployguard.model.target import Instance, TargetView
from deployguard.model.version import Version
from deployguard.stores.readings import FileReadings
from deployguard.wiring.past import stable_blocks
from tests.unit.recorded import FIRST, START, Yard

OLD, NEW = Version("sha256:" + "a" * 64), Version("sha256:" + "b" * 64)


def test_blocks_are_what_the_stable_instances_counted(tmp_path: Path) -> None:
    """Each block of each instance of the version that is stable now is what its server counted between the two polls."""
    yard = Yard(tmp_path, {"watch": "5m"})
    version = yard.begin("r-1", 0.003)
    document = yard.run()
    assert document.stable[0].version == version
    (name,) = blocks = stable_blocks(yard.readings, document)
    assert name == "errors"
    assert all(10 <= seconds <= 12 for seconds, _ in blocks[name])
    total = sum(seconds for seconds, _ in blocks[name])
    assert 290 <= total <= 360
    last = {i.uid for i in yard.target.instances}
    assert set(blocks[name][-1][1]) == last
    for uid in last:
        counted = sum(grown[uid][1] for _, grown in blocks[name] if uid in grown)
        whole = yard.requests.counted[uid][1].total
        assert 0.7 * whole < counted <= whole
    assert math.isclose(sum(sum(grown[uid][1] for uid in grown) for _, grown in blocks[name][-5:]) / 5 / 10 / 8, 20, rel_tol=0.1)


def test_the_arm_that_was_stable_counts_and_the_candidate_does_not(tmp_path: Path) -> None:
    """After a way back the instances that never changed are told, and those of the other version are not."""
    yard = Yard(tmp_path)
    yard.begin("r-1", 0.003)
    for _ in range(17):
        yard.tick()
    yard.ask("abort")
    document = yard.run()
    assert document.stable[0].version == FIRST
    (block, *_) = stable_blocks(yard.readings, document)["errors"]
    assert set(block[1]) <= {f"{n}-0" for n in range(8)}
    assert len(block[1]) == 7


class Log:
    """A recording of ticks that are given."""

    def __init__(self, state: Path, checks: list[dict[str, Any]], rollout: str = "r-1") -> None:
        self.readings, self.rollout = FileReadings(state), rollout
        self.recorder = Recorder("me", "0")
        self.begun = Rollout(
            rollout, "candidate", "web", "web", {"checks": checks, "interval": "1s"}, NEW, OLD, 1, Analyzing(0, START, START), START, START
        )
        self.document = Document("web", rollout=self.begun, stable=(StableVersion(OLD, START),))
        self.readings.append(rollout, self.recorder.document(self.document, START))

    def tick(self, second: float, answer: Any, *uids: str) -> None:
        """A tick at which these instances ran the stable version."""
        at = START + dt.timedelta(seconds=second)
        instances = tuple(Instance(uid, uid, OLD, OLD, ready=True) for uid in uids)
        seen = Observation(TargetView(1, "b", len(uids), None, instances), {"slow": {"stable": answer}})
        self.readings.append(self.rollout, self.recorder.tick(seen, at, self.begun, saved=False, digest=""))


def buckets(second: float, **by: tuple[float, ...]) -> Buckets:
    return Buckets(START + dt.timedelta(seconds=second), (0.1, 0.5), by)


def test_resets_first_sights_and_gaps(tmp_path: Path) -> None:
    """A counter that fell is its own increment, a new instance only a beginning, and a minute without a poll is no block."""
    log = Log(tmp_path, [{"name": "slow", "source": "scrape", "histogram": "h"}])
    log.tick(0, buckets(0, a=(5.0, 1.0, 0.0)), "a")
    log.tick(5, Missing("timeout"), "a")
    log.tick(10, buckets(10, a=(7.0, 1.0, 0.0), b=(9.0, 9.0, 9.0)), "a", "b")
    log.tick(20, buckets(20, a=(1.0, 0.0, 2.0), b=(10.0, 9.0, 9.0), c=(1.0, 1.0, 1.0)), "a", "b")
    log.tick(100, buckets(100, a=(3.0, 0.0, 2.0), b=(20.0, 9.0, 9.0)), "a", "b")
    log.tick(110, buckets(110, a=(4.0, 0.0, 2.0), b=(20.0, 9.0, 9.0)), "a", "b")
    assert stable_blocks(log.readings, log.document) == {
        "slow": [
            (10.0, {"a": (2.0, 0.0, 0.0)}),
            (10.0, {"a": (1.0, 0.0, 2.0), "b": (1.0, 0.0, 0.0)}),
            (10.0, {"a": (1.0, 0.0, 0.0), "b": (0.0, 0.0, 0.0)}),
        ]
    }


def test_only_the_last_hour_is_told_and_the_newest_way_of_reading(tmp_path: Path) -> None:
    """Of a long recording the end is read, and an older recording whose check read something else adds nothing."""
    old = Log(tmp_path, [{"name": "slow", "source": "scrape", "histogram": "other"}], "r-0")
    old.tick(0, buckets(0, a=(1.0, 0.0, 0.0)), "a")
    old.tick(10, buckets(10, a=(2.0, 0.0, 0.0)), "a")
    old.readings.flush()
    log = Log(tmp_path, [{"name": "slow", "source": "scrape", "histogram": "h", "claims": 3.0}])
    for n in range(700):
        log.tick(10 * n, buckets(10 * n, a=(float(n), 0.0, 0.0)), "a")
    found = stable_blocks(log.readings, log.document)["slow"]
    assert len(found) == 360
    assert {seconds for seconds, _ in found} == {10.0}
    lines = (log.readings.directory / "r-1.jsonl").read_bytes().splitlines()
    assert sum(line.startswith(b'{"k":"whole"') for line in lines) >= 23
    short = Log(tmp_path / "short", [{"name": "slow", "source": "scrape", "histogram": "h"}])
    short.tick(0, buckets(0, a=(1.0, 0.0, 0.0)), "a")
    short.tick(10, buckets(10, a=(2.0, 0.0, 0.0)), "a")
    assert stable_blocks(short.readings, short.document) == {"slow": [(10.0, {"a": (1.0, 0.0, 0.0)})]}


def test_nothing_is_said_without_a_stable_version_or_a_recording(tmp_path: Path) -> None:
    """And a recording that is damaged or of another time is passed over."""
    log = Log(tmp_path, [{"name": "slow", "source": "scrape", "histogram": "h"}])
    assert stable_blocks(log.readings, msgspec.structs.replace(log.document, stable=())) == {}
    assert stable_blocks(FileReadings(tmp_path / "none"), log.document) == {}
    log.tick(0, buckets(0, a=(1.0, 0.0, 0.0)), "a")
    log.tick(10, buckets(10, a=(2.0, 0.0, 0.0)), "a")
    log.readings.flush()
    (log.readings.directory / "r-2.jsonl").write_text('{"at":"x","seq":1,"answers":{}}\n')
    (log.readings.directory / "r-3.jsonl").write_text('{"k":"do')
    assert len(stable_blocks(log.readings, log.document)["slow"]) == 1
