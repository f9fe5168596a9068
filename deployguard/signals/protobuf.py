"""Reads metrics pages in Prometheus' protobuf format, the only one that shows native histograms.

The format is a sequence of `io.prometheus.client.MetricFamily` messages, each behind its length (Prometheus, exposition formats, and
`metrics.proto` of prometheus/client_model). Only the fields that are read are described here; the decoder passes over all others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from deployguard.signals.exposition import Column, Memo, Series
from deployguard.signals.histogram import Native

_PACKAGE = "io.prometheus.client"
_TYPES = {
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "sint64": descriptor_pb2.FieldDescriptorProto.TYPE_SINT64,
    "sint32": descriptor_pb2.FieldDescriptorProto.TYPE_SINT32,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}
_MESSAGES = {
    "LabelPair": "string name = 1, string value = 2",
    "Gauge": "double value = 1",
    "Counter": "double value = 1",
    "Untyped": "double value = 1",
    "Quantile": "double quantile = 1, double value = 2",
    "Summary": "uint64 sample_count = 1, double sample_sum = 2, Quantile* quantile = 3",
    "Bucket": "uint64 cumulative_count = 1, double cumulative_count_float = 4, double upper_bound = 2",
    "BucketSpan": "sint32 offset = 1, uint32 length = 2",
    "Histogram": (
        "uint64 sample_count = 1, double sample_count_float = 4, double sample_sum = 2, Bucket* bucket = 3, sint32 schema = 5, "
        "double zero_threshold = 6, uint64 zero_count = 7, double zero_count_float = 8, "
        "BucketSpan* negative_span = 9, sint64* negative_delta = 10, double* negative_count = 11, "
        "BucketSpan* positive_span = 12, sint64* positive_delta = 13, double* positive_count = 14"
    ),
    "Metric": (
        "LabelPair* label = 1, Gauge gauge = 2, Counter counter = 3, Summary summary = 4, Untyped untyped = 5, Histogram histogram = 7"
    ),
    "MetricFamily": "string name = 1, Metric* metric = 4",
}
"""Messages by name; a star marks what is repeated."""
_SUFFIXES = ("_bucket", "_count", "_sum")
Labels = tuple[tuple[str, str], ...]


@cache
def family_type() -> Any:
    """The class of `MetricFamily`, with those of its parts."""
    file = descriptor_pb2.FileDescriptorProto(name="io/prometheus/client/metrics.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split(", "):
            kind, field, _, number = text.split()
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if repeated else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            added = message.field.add(name=field, number=int(number), label=label)
            if kind in _TYPES:
                added.type = _TYPES[kind]
            else:
                added.type, added.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.MetricFamily"))


def parse_protobuf(
    page: bytes, wanted: Collection[str], histograms: Collection[str], memo: Memo
) -> tuple[dict[str, Column], dict[str, list[tuple[Series, Native]]]]:
    """The samples of the `wanted` metrics, named as in the text format, and the native `histograms`.

    Raises ValueError when the page is cut off or is not what it says it is.
    """
    found: dict[str, tuple[list[Series], list[float]]] = {name: ([], []) for name in wanted}
    natives: dict[str, list[tuple[Series, Native]]] = {}
    families = {*wanted, *histograms, *(name.removesuffix(suffix) for name in wanted for suffix in _SUFFIXES)}
    for family in _families(page, {name.encode() for name in families}):
        for metric in family.metric:
            labels = tuple((pair.name, pair.value) for pair in metric.label)
            for name, more, value in _samples(family.name, metric):
                if (column := found.get(name)) is not None:
                    column[0].append(memo.labelled(name, labels + more))
                    column[1].append(value)
            if family.name in histograms and metric.HasField("histogram") and (native := _native(metric.histogram)):
                natives.setdefault(family.name, []).append((memo.labelled(family.name, labels), native))
    return {name: Column(tuple(series), tuple(values)) for name, (series, values) in found.items()}, natives


def _families(page: bytes, wanted: Collection[bytes]) -> Iterator[Any]:
    """The families of these names; the others are not decoded when their name comes first, as clients write it."""
    kind, view, at = family_type(), memoryview(page), 0
    while at < len(page):
        size, begin = _varint(page, at)
        at = begin + size
        if at > len(page):
            raise ValueError("the protobuf metrics page is cut off")
        if size and page[begin] == 0x0A:
            length, text = _varint(page, begin + 1)
            if page[text : text + length] not in wanted:
                continue
        try:
            family = kind.FromString(view[begin:at])
        except (DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the protobuf metrics page at byte {begin}: {error}") from error
        if family.name.encode() in wanted:
            yield family


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while at < len(page) and shift < 35:
        byte = page[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"the protobuf metrics page is cut off, or is none: no length at byte {at}")


def _samples(name: str, metric: Any) -> Iterator[tuple[str, Labels, float]]:
    """Name, labels beside the metric's own, and value, as the text format has them."""
    if metric.HasField("counter"):
        yield name, (), metric.counter.value
    elif metric.HasField("gauge"):
        yield name, (), metric.gauge.value
    elif metric.HasField("untyped"):
        yield name, (), metric.untyped.value
    elif metric.HasField("summary"):
        for one in metric.summary.quantile:
            yield name, (("quantile", _text(one.quantile)),), one.value
        yield f"{name}_sum", (), metric.summary.sample_sum
        yield f"{name}_count", (), float(metric.summary.sample_count)
    elif metric.HasField("histogram"):
        found = metric.histogram
        for bucket in found.bucket:
            yield f"{name}_bucket", (("le", _text(bucket.upper_bound)),), bucket.cumulative_count_float or float(bucket.cumulative_count)
        yield f"{name}_sum", (), found.sample_sum
        yield f"{name}_count", (), found.sample_count_float or float(found.sample_count)


def _text(number: float) -> str:
    return "+Inf" if number == math.inf else repr(number)


def _native(found: Any) -> Native | None:
    """The histogram's native buckets; None when it has none, which an empty span without length tells from being empty."""
    if not (found.positive_span or found.negative_span or found.zero_threshold > 0 or found.zero_count or found.zero_count_float):
        return None
    indices, counts = _spread(found.positive_span, found.positive_delta, found.positive_count)
    _, below = _spread(found.negative_span, found.negative_delta, found.negative_count)
    zero = found.zero_count_float or float(found.zero_count)
    return Native(found.schema, found.zero_threshold, zero, sum(below), indices, counts)


def _spread(spans: Any, deltas: Any, counts: Any) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Index and count of each bucket; whole numbers are written as differences to the bucket before."""
    values = tuple(counts) or tuple(map(float, accumulate(deltas)))
    parts = tuple((span.offset, span.length) for span in spans)
    if sum(length for _, length in parts) != len(values):
        raise ValueError("the protobuf metrics page has a native histogram whose spans do not fit its buckets")
    if values and not (min(values) >= 0 and math.isfinite(sum(values))):
        raise ValueError("the protobuf metrics page has a native histogram with a bucket that shows no count")
    return _indices(parts), values


@lru_cache(maxsize=1024)
def _indices(parts: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """The indices of consecutive buckets; each part begins so many places after the last one, the first one after zero."""
    found: list[int] = []
    begin = 0
    for gap, length in parts:
        found += range(begin + gap, begin + gap + length)
        begin += gap + length
    return tuple(found)
