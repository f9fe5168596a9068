"""Names, labels and records on objects of a cluster: within their limits, and never taken for what they are not."""

from __future__ import annotations

import pytest

from deployguard.model.target import Desired
from deployguard.model.version import NOTHING, Version
from deployguard.targets.kubernetes import marks
from deployguard.targets.kubernetes.looking import selector
from deployguard.targets.kubernetes.marks import Shape, Told
from deployguard.targets.kubernetes.references import ConfigRef
from deployguard.targets.kubernetes.settings import ConfigContent, config_digest, content_digest

A, B = Version("sha256:" + "a" * 64), Version("sha256:" + "b" * 64, "sha256:" + "c" * 64)
TOLD = Told(Desired(7, A, B, 2, by="web/r1"), NOTHING, Shape(A.release), sources={"ConfigMap/x": "sha256:1"})


@pytest.mark.parametrize("name", ["web", "w" * 63, "some.name-" * 25 + "end"])
def test_names_stay_within_what_the_server_takes_and_differ_by_content(name: str) -> None:
    """Every name fits its limit, ends in a letter or digit, and is another one for other content or another owner."""
    canaries = {marks.canary_name(owner, version) for owner in (name, name + "x") for version in (A, B)}
    kept = {make(name, A.release) for make in (marks.release_name, marks.index_name, marks.copy_name)}
    assert (len(canaries), len(kept)) == (4, 3)
    assert max(map(len, canaries)) <= 63
    assert max(map(len, kept)) <= 253
    assert len(marks.label_value(name)) <= 63
    assert all(text[-1].isalnum() for text in (*canaries, *kept, marks.label_value(name)))


def test_a_record_counts_only_under_the_fence_it_was_written_for() -> None:
    """With another fence label, without one, or with text that is no record, nothing was told."""
    notes = {marks.TOLD: marks.written(TOLD)}
    assert marks.told({"metadata": {"labels": {marks.FENCE: "7"}, "annotations": notes}}) == TOLD
    assert marks.told({"metadata": {"labels": {marks.FENCE: "8"}, "annotations": notes}}) is None
    assert marks.told({"metadata": {"annotations": notes}}) is None
    assert marks.told({"metadata": {"labels": {marks.FENCE: "7"}, "annotations": {marks.TOLD: "{}"}}}) is None
    assert marks.record({"metadata": {"annotations": notes}}) == TOLD
    assert [marks.number({"metadata": {"labels": {marks.FENCE: text}}}, marks.FENCE) for text in ("12", "", "x", "-1", "²")] == [
        12,
        *[None] * 4,
    ]


def test_a_selector_is_asked_for_whole() -> None:
    """Labels and expressions both become the query for pods."""
    expressions = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "env", "operator": "NotIn", "values": ["x"]},
        {"key": "app", "operator": "Exists"},
    ]
    workload = {"spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": expressions}}}
    assert selector(workload) == "!old,app,app=web,env notin (x),tier in (a,b)"


def test_content_is_named_by_what_it_says_and_secrets_by_a_key() -> None:
    """Order does not matter, any value does, and nobody finds a secret's digest without the key."""
    one, two = ConfigContent(data={"a": "1", "b": "2"}), ConfigContent(data={"b": "2", "a": "1"})
    assert content_digest(one, None) == content_digest(two, None) != content_digest(ConfigContent(data={"a": "1"}), None)
    assert len({content_digest(one, key) for key in (None, b"k", b"l")}) == 3
    x, y = ConfigRef("ConfigMap", "x"), ConfigRef("Secret", "x")
    assert config_digest({x: "1", y: "2"}) == config_digest({y: "2", x: "1"}) != config_digest({x: "2", y: "1"})
    assert config_digest({}) == NOTHING
    assert ConfigContent.of({"kind": "Secret", "stringData": {"p": "q"}}) == ConfigContent(binary={"p": "cQ=="}, type="Opaque")
    assert "secret-value" not in repr(ConfigContent(data={"p": "secret-value"}, binary={"q": "secret-value"}))
