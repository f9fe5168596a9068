"""What a store in a cluster has to survive: lost answers, other writers, edits by hand, documents that grow."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest

from deployguard.errors import Bug, ForeignState, StaleView, UserError, WorldError
from deployguard.kube import paths
from deployguard.kube.client import Kube
from deployguard.kube.errors import NotFound, Unreachable
from deployguard.model.document import Claim, Document, Request
from deployguard.stores import kube_stop
from deployguard.stores.kube import DRIVEN_UNTIL, KubeStore, documents, guards
from deployguard.stores.kube_objects import STOP, object_name
from tests.cluster.api import Api, until

pytestmark = pytest.mark.cluster

NOW = dt.datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=dt.UTC)


class Flaky:
    """The cluster, whose next answers to writes are lost: before the request arrives, or after it was carried out."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.lose: list[str] = []
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._kube, name)
        if name not in ("get", "list", "create", "merge", "replace", "patch", "delete"):
            return real

        def call(path: str, *arguments: Any, **more: Any) -> Any:
            self.asked.append(f"{name} {path.rpartition('/')[2]}")
            lost = self.lose.pop(0) if self.lose and name in ("create", "merge", "replace") else ""
            if lost == "before":
                raise Unreachable("lost", uncertain=True)
            found = real(path, *arguments, **more)
            if lost == "after":
                raise Unreachable("lost", uncertain=True)
            return found

        return call


@pytest.fixture
def flaky(kube: Kube) -> Flaky:
    """The cluster with answers that can be lost."""
    return Flaky(kube)


@pytest.fixture
def store(flaky: Flaky, namespace: str) -> KubeStore:
    """A store before that cluster."""
    return KubeStore(flaky, namespace, "shop")  # type: ignore[arg-type]


def stored(kube: Kube, namespace: str, guard: str = "shop") -> dict[str, Any]:
    return kube.get(paths.configmap(namespace, object_name(guard)))


def grown(names: int, text: Callable[[], str]) -> Document:
    """A document with so many names."""
    return Document(guard="shop", names={f"sha256:{n:064d}": text() for n in range(names)})


def test_a_save_whose_answer_was_lost_is_looked_up(store: KubeStore, flaky: Flaky) -> None:
    """A save that landed without an answer counts as saved, the first one too; one that did not land is an error that changes nothing."""
    flaky.lose = ["after"]
    revision = store.save(Document(guard="shop", fence=1), "")
    flaky.lose = ["after"]
    revision = store.save(Document(guard="shop", fence=2), revision)
    assert store.load() == (Document(guard="shop", fence=2), revision)
    flaky.lose = ["before"]
    with pytest.raises(Unreachable, match="lost"):
        store.save(Document(guard="shop", fence=3), revision)
    assert store.load() == (Document(guard="shop", fence=2), revision)


def test_a_lost_save_that_somebody_overtook_is_stale(store: KubeStore, flaky: Flaky, kube: Kube, namespace: str) -> None:
    """When the answer was lost and another document is there since, the view is stale."""
    revision = store.save(Document(guard="shop", fence=1), "")
    flaky.lose = ["before"]
    other = KubeStore(kube, namespace, "shop")
    other.save(Document(guard="shop", fence=9), revision)
    with pytest.raises(StaleView, match="somebody saved in between"):
        store.save(Document(guard="shop", fence=2), revision)
    assert store.load()[0].fence == 9


def test_a_tick_reads_with_one_request(store: KubeStore, flaky: Flaky) -> None:
    """Document, requests, stop switch and ledger of one tick cost one list; whoever asks twice within a tick sees anew."""
    inbox = store.inbox()
    store.save(Document(guard="shop"), "")
    inbox.put(Request("r-1", "abort", "maria", NOW))
    store.load()
    store.stopped()
    store.ledgered("none")
    for _ in range(3):
        flaky.asked.clear()
        store.load()
        assert ([each.id for each in inbox.pending()], store.stopped()) == (["r-1"], "")
        assert flaky.asked == ["get configmaps"]
    inbox.remove(("r-1",))
    assert inbox.pending() == ()


def test_a_ledger_that_is_known_costs_no_request(store: KubeStore, flaky: Flaky) -> None:
    """What the driver asks at every tick, the highest entry of its own rollout, is answered from memory."""
    from tests.contracts.kube.test_kube_ledger import entry

    store.append((entry(1), entry(2)))
    flaky.asked.clear()
    assert [store.ledgered("r1") for _ in range(5)] == [2] * 5
    assert flaky.asked == []


def test_a_large_document_is_compressed_and_a_huge_one_refused(store: KubeStore, kube: Kube, namespace: str) -> None:
    """The object stays small whatever the document; one that would not is refused with what to do, and the old one stays."""
    revision = store.save(Document(guard="shop", fence=1), "")
    large = grown(4000, lambda: "web release 1.9")
    revision = store.save(large, revision)
    assert store.load() == (large, revision)
    assert set(stored(kube, namespace)["data"]) == {"document.z"}
    assert len(stored(kube, namespace)["data"]["document.z"]) < 60_000
    noise = random.Random(5)
    with pytest.raises(WorldError, match=r"even compressed.*256 KiB at most"):
        store.save(grown(10_000, lambda: noise.randbytes(32).hex()), revision)
    assert store.load() == (large, revision)
    store.save(Document(guard="shop", fence=2), revision)
    assert set(stored(kube, namespace)["data"]) == {"document"}


def test_the_object_tells_people_and_keeps_what_others_put_on_it(kube: Kube, namespace: str) -> None:
    """The claim's end is an annotation, labels of others stay, and the owner takes the document along."""
    owner = kube.create(paths.configmaps(namespace), {"metadata": {"name": "web"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "web", "uid": owner["metadata"]["uid"], "controller": False}
    store = KubeStore(kube, namespace, "shop", reference)
    revision = store.save(Document(guard="shop", claim=Claim("me", NOW)), "")
    metadata = kube.merge(paths.configmap(namespace, object_name("shop")), {"metadata": {"labels": {"team": "blue"}}})["metadata"]
    assert (metadata["annotations"][DRIVEN_UNTIL], metadata["ownerReferences"]) == ("2026-03-29T01:30:00Z", [reference])
    with pytest.raises(StaleView):
        store.save(Document(guard="shop"), revision)
    store.save(Document(guard="shop", fence=1), store.load()[1])
    metadata = stored(kube, namespace)["metadata"]
    assert (DRIVEN_UNTIL in metadata.get("annotations", {}), metadata["labels"]["team"]) == (False, "blue")
    kube.delete(paths.configmap(namespace, "web"), uid=owner["metadata"]["uid"])
    until("the document goes with its owner", lambda: store.load()[1] == "")


def test_what_is_no_document_is_foreign(kube: Kube, namespace: str) -> None:
    """A ConfigMap of that name without a document is an error that names it; one that lost its labels is still found."""
    kube.create(paths.configmaps(namespace), {"metadata": {"name": object_name("shop")}, "data": {"other": "1"}})
    with pytest.raises(ForeignState, match=f"in ConfigMap deployguard-shop of {namespace}: it holds none"):
        KubeStore(kube, namespace, "shop").load()
    store = KubeStore(kube, namespace, "web")
    store.save(Document(guard="web", fence=3), "")
    labels = dict.fromkeys(stored(kube, namespace, "web")["metadata"]["labels"])
    kube.merge(paths.configmap(namespace, object_name("web")), {"metadata": {"labels": labels}})
    document, revision = store.load()
    assert document.fence == 3
    store.save(document, revision)
    assert guards(kube, namespace) == [(namespace, "web")]


def test_guards_are_found_in_one_namespace_and_in_all(kube: Kube, namespace: str) -> None:
    """Every saved guard is listed, with its document, however long its name."""
    names = ["web", "api.v2", "x" * 150]
    for name in names:
        KubeStore(kube, namespace, name).save(Document(guard=name, fence=len(name)), "")
    assert guards(kube, namespace) == sorted((namespace, name) for name in names)
    assert set(guards(kube, None)) >= set(guards(kube, namespace))
    assert [(name, found.fence) for _, name, found in documents(kube, namespace) if isinstance(found, Document)] == sorted(
        (name, len(name)) for name in names
    )


@pytest.mark.parametrize("name", ["", "Shop", "a/b", "-a", "stop", "web-inbox", "web-ledger-0001", "x" * 300])
def test_a_guard_whose_name_cannot_be_an_objects_is_refused(kube: Kube, name: str) -> None:
    """A name that a cluster would not take, or that is used for something else, is the user's error."""
    with pytest.raises(UserError, match="could not keep the state of guard"):
        KubeStore(kube, "default", name)


def test_a_blind_save_is_a_mistake_of_ours(kube: Kube, namespace: str) -> None:
    """Revision 0, which the server takes for whatever is there, is never sent."""
    with pytest.raises(Bug):
        KubeStore(kube, namespace, "shop").save(Document(guard="shop"), "0")


def test_an_absent_namespace_is_said(kube: Kube) -> None:
    """Saving where there is no namespace is an error of the world that names it, not a stale view for ever."""
    with pytest.raises(NotFound, match="none-such"):
        KubeStore(kube, "none-such", "shop").save(Document(guard="shop"), "")


def test_requests_of_many_people_meet_nobody(kube: Kube, namespace: str) -> None:
    """Requests and their removal never touch the document's revision; a request with an odd id is kept; rubbish is left out."""
    store = KubeStore(kube, namespace, "shop")
    revision = store.save(Document(guard="shop"), "")
    odd = Request("a/../b ü", "pause", "maria", NOW)
    KubeStore(kube, namespace, "shop").inbox().put(odd)
    kube.merge(paths.configmap(namespace, object_name("shop", "inbox")), {"data": {"torn": '{"id":', "renamed": '{"id":"x"}'}})
    assert store.inbox().pending() == (odd,)
    store.inbox().remove((odd.id, "unknown"))
    assert store.inbox().pending() == ()
    assert store.save(Document(guard="shop", fence=1), revision) != revision


def test_a_request_whose_answer_was_lost_is_there_once(store: KubeStore, flaky: Flaky) -> None:
    """Putting goes on after a lost answer: it is the same key and value again."""
    asked = Request("r-1", "abort", "maria", NOW)
    for lost in (["after"], ["before", "after"], ["after", "before"]):
        flaky.lose = lost
        store.inbox().put(asked)
        assert store.inbox().pending() == (asked,)


@pytest.fixture
def by_hand(api: Api, namespace: str) -> None:
    """A stop switch as `kubectl create configmap deployguard-stop` makes it."""
    api.create(paths.configmaps(namespace), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": STOP}})


def test_stop_is_for_everybody_in_the_namespace_until_it_is_cleared(kube: Kube, namespace: str) -> None:
    """The switch names who and why, also for a driver in mid rollout, and is empty before and after."""
    store = KubeStore(kube, namespace, "shop")
    kube_stop.clear(kube, namespace)
    assert (kube_stop.stopped(kube, namespace), store.stopped()) == ("", "")
    kube_stop.stop(kube, namespace, "maria", "INC-912")
    kube_stop.stop(kube, namespace, "maria", "INC-913")
    store.load()
    for said in (kube_stop.stopped(kube, namespace), store.stopped()):
        assert said.startswith("stopped by maria at 2")
        assert said.endswith(" UTC: INC-913")
    kube_stop.clear(kube, namespace)
    assert (kube_stop.stopped(kube, namespace), store.stopped()) == ("", "")


@pytest.mark.usefixtures("by_hand")
def test_a_stop_by_hand_counts(kube: Kube, namespace: str) -> None:
    """A switch that says nothing, and has no label, stops as well; one that cannot be read is taken for set."""
    store = KubeStore(kube, namespace, "shop")
    store.load()
    assert "does not say by whom" in store.stopped()
    assert "does not say by whom" in kube_stop.stopped(kube, namespace)
    kube_stop.clear(kube, namespace)
    assert store.stopped() == ""


def test_a_stop_that_cannot_be_read_counts_as_set(flaky: Flaky, store: KubeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer nobody promotes."""

    def lost(*arguments: Any, **more: Any) -> Any:
        raise Unreachable("could not list configmaps")

    monkeypatch.setattr(flaky._kube, "get", lost)
    assert store.stopped() == "treated as stopped: could not list configmaps"
