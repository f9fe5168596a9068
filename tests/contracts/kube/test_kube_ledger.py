"""The ledger in a cluster: one chain over many objects, whoever writes, and what is found when it was changed."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from deployguard.errors import StaleView
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import Unreachable
from deployguard.model.document import Document
from deployguard.model.rollout import Entry, Rollout, Waiting
from deployguard.model.version import Version
from deployguard.stores.kube import KubeStore
from deployguard.stores.kube_ledger import KubeLedger

pytestmark = pytest.mark.cluster

NOW = dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC)
Opener = Callable[..., KubeLedger]


def entry(n: int, rollout: str = "r1", phase: str = "advancing", event: str = "transition", **data: object) -> Entry:
    return Entry(rollout, n, NOW + dt.timedelta(seconds=n), "shop", event, phase, f"step {n}", data)


@pytest.fixture
def opener(kube: Kube, namespace: str) -> Opener:
    """Opens one more ledger over the same objects, as another driver would; segments hold three lines or so."""
    return lambda **more: KubeLedger(kube, namespace, "shop", **({"segment_bytes": 1000} | more))


def segments(kube: Kube, namespace: str) -> list[dict[str, Any]]:
    found = kube.list(paths.configmaps(namespace), {"labelSelector": "deployguard.dev/state=ledger"})
    return sorted(found, key=lambda each: each["metadata"]["name"])


def numbers(ledger: KubeLedger) -> list[str]:
    return [each.id for each in ledger.entries()]


def test_an_entry_comes_back_as_it_was_appended(opener: Opener) -> None:
    """Every field of an entry, nested data included, is read back equal, by all or by its rollout."""
    odd = Entry("r/1 ü", 1, NOW, "shop", "reading", "analyzing", 'a "quoted"\nline\x00', {"counts": {"a": [1, 2.5, None]}, "hash": "y"})
    opener().append((odd, entry(1)))
    assert list(opener().entries()) == [odd, entry(1)]
    assert list(opener().entries("r/1 ü")) == [odd]
    assert list(opener().entries(limit=1)) == [entry(1)]


def test_the_chain_goes_on_over_its_segments(opener: Opener, kube: Kube, namespace: str) -> None:
    """Segments that are full are immutable, the next one names the last line before it, and the whole verifies with plain tools."""
    ledger = opener()
    for n in range(1, 12, 2):
        ledger.append((entry(n), entry(n + 1)))
    found = segments(kube, namespace)
    assert [each["metadata"]["name"] for each in found][:2] == ["deployguard-shop-ledger-0001", "deployguard-shop-ledger-0002"]
    assert [bool(each.get("immutable")) for each in found] == [True] * (len(found) - 1) + [False]
    lines = [line for each in found for line in each["data"]["ledger.jsonl"].encode().splitlines()]
    assert [json.loads(line)["prev"] for line in lines] == ["", *(hashlib.sha256(line).hexdigest() for line in lines[:-1])]
    assert found[1]["data"]["before"] == json.loads(found[1]["data"]["ledger.jsonl"].splitlines()[0])["prev"]
    verified = opener().verify("r1", 12)
    assert (verified.ok, verified.lines, opener().highest("r1")) == (True, 12, 12)


def test_many_entries_at_once_fill_several_segments(opener: Opener, kube: Kube, namespace: str) -> None:
    """An append larger than a segment is spread over as many as it needs; one line larger than a segment has one of its own."""
    opener(kept=100).append((*(entry(n) for n in range(1, 20)), entry(20, blob="x" * 3000), entry(21)))
    assert numbers(opener()) == [f"r1/{n}" for n in range(1, 22)]
    assert opener().verify().ok
    assert all(len(each["data"]["ledger.jsonl"]) <= 3600 for each in segments(kube, namespace))


def test_the_oldest_segments_are_collected(opener: Opener, kube: Kube, namespace: str) -> None:
    """Only the newest segments stay; what is left still verifies, says how much is gone, and a later change is still found."""
    for n in range(1, 31):
        opener(kept=3).append((entry(n),))
    found = segments(kube, namespace)
    assert len(found) == 3
    kept = numbers(opener())
    assert kept == [f"r1/{n}" for n in range(31 - len(kept), 31)]
    verified = opener().verify("r1", 30)
    assert (verified.ok, verified.lines) == (True, len(kept))
    assert f"the first {30 - len(kept)} are no longer kept" in verified.text
    assert opener().highest("r1") == 30
    changed = found[-1]["data"] | {"ledger.jsonl": found[-1]["data"]["ledger.jsonl"].replace("step", "stop", 1)}
    kube.replace(paths.configmap(namespace, found[-1]["metadata"]["name"]), found[-1] | {"data": changed})
    broken = opener().verify()
    assert (broken.ok, "was changed after it was written" in broken.text) == (False, True)
    assert broken.first_bad_line == int(found[-1]["data"]["lines-before"]) + 1


def test_a_lost_segment_is_found(opener: Opener, kube: Kube, namespace: str) -> None:
    """A segment that somebody deleted from the middle breaks the chain where it was."""
    opener(kept=9).append(tuple(entry(n) for n in range(1, 12)))
    found = segments(kube, namespace)
    kube.delete(paths.configmap(namespace, found[1]["metadata"]["name"]), uid=found[1]["metadata"]["uid"])
    verified = opener().verify()
    assert (verified.ok, "does not follow" in verified.text) == (False, True)
    opener(kept=9).append((entry(12),))
    assert numbers(opener())[-1] == "r1/12"


def test_drivers_that_append_at_once_make_one_chain(opener: Opener) -> None:
    """Entries of several writers are all there, each id once, in one chain, whoever begins the next segment."""

    def write(name: str) -> None:
        ledger = opener(kept=100)
        for n in range(1, 9):
            # Three writers at once may lose more often than one append tries.
            while True:
                with contextlib.suppress(StaleView):
                    ledger.append((entry(n, name), entry(n, "both")))
                    break

    with cf.ThreadPoolExecutor(3) as pool:
        list(pool.map(write, ("a", "b", "c")))
    assert opener().verify().ok
    assert sorted(numbers(opener())) == sorted(f"{name}/{n}" for name in ("a", "b", "c", "both") for n in range(1, 9))


def test_a_driver_with_an_old_view_cannot_fork_the_chain(opener: Opener) -> None:
    """A writer that slept while others filled its segment and began the next goes on at the true end."""
    old, busy = opener(kept=100), opener(kept=100)
    old.append((entry(1),))
    # It does not fit beside the first, so the next segment begins; what follows would still fit into the one before.
    busy.append((entry(2, blob="x" * 900),))
    old.append((entry(3),))
    for n in range(4, 9):
        busy.append((entry(n),))
    old.append((entry(9), entry(3)))
    assert numbers(opener()) == [f"r1/{n}" for n in range(1, 10)]
    assert opener().verify().ok


def test_an_append_whose_answer_was_lost_is_not_written_twice(kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a lost answer the ledger looks what became of it, and adds only what is missing."""
    ledger = KubeLedger(kube, namespace, "shop")
    ledger.append((entry(1),))
    real = kube.replace

    def landed(*arguments: Any) -> Any:
        real(*arguments)
        raise Unreachable("lost", uncertain=True)

    with monkeypatch.context() as patched:
        patched.setattr(kube, "replace", landed)
        with pytest.raises(Unreachable):
            ledger.append((entry(2),))
    assert ledger.highest("r1") == 2
    ledger.append((entry(2), entry(3)))
    assert numbers(ledger) == ["r1/1", "r1/2", "r1/3"]
    assert ledger.verify().ok


def test_a_cut_end_is_found_against_the_document(kube: Kube, namespace: str) -> None:
    """A chain without its last lines is whole in itself; the saved document knows that there was more."""
    store = KubeStore(kube, namespace, "shop")
    version = Version("sha256:" + "a" * 64)
    rollout = Rollout("r1", "candidate", "shop", "web", {}, version, version, 1, Waiting(), NOW, NOW, outbox=(entry(4),), written=4)
    store.save(Document(guard="shop", rollout=rollout), "")
    store.append(tuple(entry(n) for n in range(1, 4)))
    assert store.verify().ok
    assert [each.n for each in store.told("r1", rollout)] == [1, 2, 3, 4]
    last = segments(kube, namespace)[-1]
    cut = "".join(last["data"]["ledger.jsonl"].splitlines(keepends=True)[:2])
    kube.replace(paths.configmap(namespace, last["metadata"]["name"]), last | {"data": last["data"] | {"ledger.jsonl": cut}})
    assert (store.verify().ok, store.verify().first_bad_line) == (False, 3)


def test_rubbish_by_hand_costs_only_itself(opener: Opener, kube: Kube, namespace: str) -> None:
    """A line that somebody wrote into the ledger is left out by readers, named by the check, and not in the way of appends."""
    opener().append((entry(1),))
    last = segments(kube, namespace)[-1]
    edited = last["data"]["ledger.jsonl"] + "not ours"
    kube.replace(paths.configmap(namespace, last["metadata"]["name"]), last | {"data": last["data"] | {"ledger.jsonl": edited}})
    opener().append((entry(2),))
    assert numbers(opener()) == ["r1/1", "r1/2"]
    assert (opener().verify().ok, opener().verify().first_bad_line) == (False, 2)


def test_history_is_told_as_from_a_file(opener: Opener) -> None:
    """Each rollout is summed up, the newest first, across segments."""
    opener().append((entry(1, candidate="v2"), *(entry(n) for n in range(2, 9)), entry(9, phase="rolled_back"), entry(20, "r2")))
    newest, oldest = opener().history()
    assert (oldest.rollout, oldest.candidate, oldest.outcome, oldest.entries) == ("r1", "v2", "rolled_back", 9)
    assert (newest.rollout, newest.ended) == ("r2", None)
