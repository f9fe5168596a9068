"""The contract of the Store port, run on every store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import inspect
from msgspec.structs import replace

from deployguard.errors import Bug, StaleView, WorldError
from deployguard.model.base import Frozen
from deployguard.model.document import SCHEMA, Document
from deployguard.model.evidence import CountsEvidence, Process
from deployguard.model.rollout import Entry, Phase
from deployguard.ports import Store
from deployguard.stores.file import FileStore
from deployguard.stores.kube import KubeStore
from deployguard.stores.memory import MemoryStore, MemoryWorld

NOW = dt.datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=dt.UTC)
PHASES: tuple[type[Frozen], ...] = get_args(Phase)
Opener = Callable[[], Store]


@pytest.fixture(params=["file", "memory", pytest.param("cluster", marks=pytest.mark.cluster)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens one more store over the same state each time it is called, as a second driver would."""
    if request.param == "file":
        return lambda: FileStore(tmp_path, "shop")
    if request.param == "cluster":
        kube, namespace = request.getfixturevalue("kube"), request.getfixturevalue("namespace")
        return lambda: KubeStore(kube, namespace, "shop")
    world = MemoryWorld()
    return lambda: MemoryStore(world, "shop")


def entry(n: int, rollout: str = "r1", text: str = "errors 4,9 % — zu viele") -> Entry:
    return Entry(rollout, n, NOW, "shop", "transition", "rolling_back", text, {"e": 1.5e17, "counts": {"candidate": [40, 812]}})


def filled(kind: inspect.Type) -> Any:
    """A value of the type with every field set to something that is not its default."""
    match kind:
        case inspect.StructType():
            return kind.cls(**{field.name: filled(field.type) for field in kind.fields})
        case inspect.VarTupleType():
            return (filled(kind.item_type), filled(kind.item_type))
        case inspect.DictType():
            return {"schlüssel": filled(kind.value_type)}
        case inspect.UnionType():
            return filled(next(each for each in kind.types if not isinstance(each, inspect.NoneType)))
        case inspect.LiteralType():
            return kind.values[-1]
        case inspect.DateTimeType():
            return NOW
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 2**53 - 1
        case inspect.FloatType():
            return -745.1332191019411
        case inspect.StrType():
            return 'errors 4,9 % — zu viele "\n\x00'
        case inspect.AnyType():
            return {"deep": [None, True, "ß", 0.1, {"e": 1.5e17}]}
    raise AssertionError(f"the test does not know how to fill {kind}")


def rich_document(phase: type[Frozen]) -> Document:
    """A document that uses every field there is, with a rollout in `phase`."""
    document: Document = filled(inspect.type_info(Document))
    assert document.rollout is not None
    rollout = replace(document.rollout, phase=filled(inspect.type_info(phase)))
    return replace(document, guard="shop", schema=SCHEMA, rollout=rollout)


def test_nothing_saved_is_an_empty_document(opener: Opener) -> None:
    """Before the first save there is an empty document with the empty revision."""
    assert opener().load() == (Document(guard="shop"), "")


@pytest.mark.parametrize("phase", PHASES, ids=lambda kind: kind.__name__)
def test_what_is_saved_comes_back_equal(opener: Opener, phase: type[Frozen]) -> None:
    """A document with every field set comes back equal in every phase, from another store over the same state."""
    document = rich_document(phase)
    revision = opener().save(document, "")
    assert opener().load() == (document, revision)


def test_a_save_on_an_outdated_revision_is_refused(opener: Opener) -> None:
    """Of two stores that loaded the same revision, the second to save gets StaleView and changes nothing."""
    first, second = opener(), opener()
    start = first.save(Document(guard="shop"), "")
    won = first.save(Document(guard="shop", fence=1), start)
    with pytest.raises(StaleView):
        second.save(Document(guard="shop", fence=2), start)
    with pytest.raises(StaleView):
        second.save(Document(guard="shop", fence=2), "")
    assert second.load() == (Document(guard="shop", fence=1), won)


def test_a_save_that_expects_a_document_needs_one(opener: Opener) -> None:
    """A revision of a document that vanished does not allow a save: a lost store is noticed, not papered over."""
    with pytest.raises(StaleView):
        opener().save(Document(guard="shop"), "sha256:gone")


def test_a_document_that_could_not_be_read_back_is_not_saved(opener: Opener) -> None:
    """Infinity has no JSON form: the save is refused as a Bug and the old document stays."""
    store = opener()
    revision = store.save(Document(guard="shop", fence=1), "")
    broken = rich_document(PHASES[0])
    assert broken.rollout is not None
    rollout = replace(broken.rollout, evidence={"errors": CountsEvidence(worse=Process((float("-inf"),)))})
    with pytest.raises(Bug, match="readable"):
        store.save(replace(broken, rollout=rollout), revision)
    assert store.load()[0].fence == 1


def test_a_document_of_another_guard_is_not_saved(opener: Opener) -> None:
    """Saving under the wrong guard is a Bug, whatever the store."""
    with pytest.raises(Bug, match="other"):
        opener().save(Document(guard="other"), "")


def test_entries_are_counted_once(opener: Opener) -> None:
    """Appending is idempotent by id, across stores, and `ledgered` names the highest number per rollout."""
    first, second = opener(), opener()
    assert first.ledgered("r1") == 0
    first.append((entry(1), entry(2)))
    second.append((entry(1), entry(2), entry(3)))
    first.append((entry(2), entry(1, "r2"), entry(1, "r2")))
    first.append(())
    assert [store.ledgered(r) for store in (first, second) for r in ("r1", "r2", "r3")] == [3, 1, 0, 3, 1, 0]


def test_memory_hooks_make_calls_fail_before_or_after_their_effect() -> None:
    """What `before` raises prevents the call; what `after` raises loses only its answer."""

    def lost(operation: str) -> None:
        raise WorldError(f"lost {operation}")

    world = MemoryWorld()
    store = MemoryStore(world, "shop")
    world.before = lost
    with pytest.raises(WorldError, match="lost save"):
        store.save(Document(guard="shop", fence=1), "")
    assert world.documents == {}
    world.before, world.after = MemoryWorld().before, lost
    with pytest.raises(WorldError, match="lost save"):
        store.save(Document(guard="shop", fence=1), "")
    world.after = MemoryWorld().after
    assert store.load()[0].fence == 1
