"""The reader of protobuf metrics pages, on pages written by the protobuf library and on pages that are broken."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployguard.signals.exposition import Memo
from deployguard.signals.histogram import Native
from deployguard.signals.protobuf import family_type, parse_protobuf

PAGE = (Path(__file__).parents[1] / "contracts" / "native" / "page.pb").read_bytes()
WANTED = ("jobs", "queue", "old_seconds", "old_seconds_count", "both_seconds_bucket", "plain_seconds_count")
HISTOGRAMS = ("plain_seconds", "odd_seconds", "both_seconds")


def page(*families: Any) -> bytes:
    """The families, each behind its length."""
    parts = []
    for family in families:
        body, size = family.SerializeToString(), []
        rest = len(body)
        while rest >= 0x80:
            size.append(rest & 0x7F | 0x80)
            rest >>= 7
        parts.append(bytes([*size, rest]) + body)
    return b"".join(parts)


def histogram(**fields: Any) -> Any:
    """A family `h` with one histogram."""
    family = family_type()(name="h")
    found = family.metric.add().histogram
    for name in ("positive", "negative"):
        for offset, length in fields.pop(f"{name}_span", ()):
            getattr(found, f"{name}_span").add(offset=offset, length=length)
    for name, value in fields.items():
        getattr(found, name).extend(value) if isinstance(value, list) else setattr(found, name, value)
    return family


def native(family: Any) -> Native:
    """The native histogram of the family."""
    ((_, found),) = parse_protobuf(page(family), (), ("h",), Memo())[1]["h"]
    return found


def test_spans_and_differences() -> None:
    """A span begins after the end of the one before; whole numbers are differences, broken ones are written as they are."""
    spans = [(-3, 2), (4, 1)]
    whole = native(
        histogram(schema=1, positive_span=spans, positive_delta=[5, -2, 4], negative_span=[(0, 2)], negative_delta=[1, 1], zero_count=9)
    )
    assert whole == Native(1, 0.0, 9.0, 3.0, (-3, -2, 3), (5.0, 3.0, 7.0))
    broken = native(histogram(schema=-1, positive_span=spans, positive_count=[0.5, 0.0, 2.5], zero_count_float=1.5, zero_threshold=0.1))
    assert broken == Native(-1, 0.1, 1.5, 0.0, (-3, -2, 3), (0.5, 0.0, 2.5))


def test_families_are_found_in_any_order_of_their_fields() -> None:
    """A family whose name does not come first is read too, and one that nobody wants is passed over."""
    family = family_type()
    metrics, name = family(), family(name="n")
    metrics.metric.add().untyped.value = 4
    turned = metrics.SerializeToString() + name.SerializeToString()
    other = family(name="other")
    other.metric.add().gauge.value = 1
    body = page(other) + bytes([len(turned)]) + turned + b"\0"
    column = parse_protobuf(body, ("n",), (), Memo())[0]["n"]
    assert (column.values, [one.name for one in column.series]) == ((4.0,), ["n"])


def test_a_memo_gives_one_series_object_over_many_pages() -> None:
    """The same series is the same object at each poll, as in text."""
    memo = Memo()
    first, second = (parse_protobuf(PAGE, WANTED, HISTOGRAMS, memo) for _ in range(2))
    assert all(a is b for name in WANTED for a, b in zip(first[0][name].series, second[0][name].series, strict=True))
    assert first[1]["plain_seconds"][0][0] is second[1]["plain_seconds"][0][0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (page(histogram(positive_span=[(0, 3)], positive_delta=[1])), "spans do not fit"),
        (page(histogram(positive_span=[(0, 4_000_000_000)], positive_delta=[1])), "spans do not fit"),
        (page(histogram(positive_span=[(0, 2)], positive_delta=[1, -2])), "shows no count"),
        (page(histogram(positive_span=[(0, 1)], positive_count=[float("nan")])), "shows no count"),
        (page(histogram(positive_span=[(0, 1)], positive_count=[float("inf")])), "shows no count"),
        (b"\x05\x0a", "cut off"),
        (b"\xff\xff\xff\xff\xff\xff", "no length at byte"),
        (b"\x03\x0a\x01h", None),
        (b"\x05\x0a\x01h\x22\x09", "cannot read the protobuf metrics page at byte 1"),
        (b"<html>not found</html>", "the protobuf metrics page"),
    ],
)
def test_a_broken_page_is_refused(body: bytes, said: str | None) -> None:
    """Lengths, spans and counts that make no sense are an error that says so; a family without metrics is none."""
    if said is None:
        assert parse_protobuf(body, ("h",), ("h",), Memo())[1] == {}
        return
    with pytest.raises(ValueError, match=said):
        parse_protobuf(body, ("h",), ("h",), Memo())


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_whatever_comes_is_read_or_refused(seed: int, changes: int) -> None:
    """Bytes that changed on the way give numbers or a ValueError, nothing else."""
    chance, body = random.Random(seed), bytearray(PAGE)
    for _ in range(changes):
        body[chance.randrange(len(body))] = chance.randrange(256)
    with contextlib.suppress(ValueError):
        parse_protobuf(bytes(body[: chance.choice((len(body), chance.randrange(len(body))))]), WANTED, HISTOGRAMS, Memo())
