"""Queries for Prometheus' HTTP API, and what its answers say. Pure text and numbers.

What is asked for are the counters themselves, not `increase()` or `rate()`, which extrapolate to the ends of a window and over its gaps.
Labels that no selector mentions are summed away by the server, so an answer has a few rows for each instance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from deployguard.model.check import SeriesCheck
from deployguard.model.selector import Matcher, Selector, parse_selector

TAG = "deployguard"
"""The label that says which part of the query a row answers."""
SAMPLED = "sampled at"
"""Its value for the rows that say when an instance was sampled last."""
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")
_NUMBERS = ("le", "quantile")  # written 1 by one and 1.0 by another, so they are compared here, not there


class Refused(Exception):
    """The answer is no result: `reason` is one of those of `Missing`, the message says why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Row(msgspec.Struct, frozen=True):
    """One element of an instant vector; native histograms have no value."""

    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None


class _Data(msgspec.Struct, frozen=True):
    resultType: str
    result: msgspec.Raw


class _Body(msgspec.Struct, frozen=True):
    status: str
    data: _Data | None = None
    errorType: str = ""
    error: str = ""
    warnings: list[str] = []


_body = msgspec.json.Decoder(_Body)
_rows = msgspec.json.Decoder(list[Row])
_scalar = msgspec.json.Decoder(tuple[float, str])


@dataclass(frozen=True, slots=True)
class Wanted:
    """One metric that a check reads: its name, the conditions that all of its selectors share, and the labels they tell series apart by."""

    name: str
    matchers: tuple[Matcher, ...]
    labels: tuple[str, ...]


def wanted_of(check: SeriesCheck) -> tuple[Wanted, ...]:
    """What has to be asked for so that `check` finds all that its selectors select."""
    if check.histogram:
        selector = parse_selector(check.histogram)
        labels = tuple(sorted({matcher.label for matcher in selector.matchers}))
        matchers = tuple(one for one in selector.matchers if one.label not in _NUMBERS)
        return (
            Wanted(f"{selector.name}_bucket", matchers, tuple(sorted({"le", *labels}))),
            Wanted(f"{selector.name}_count", matchers, labels),
        )
    texts = [text for text in (check.total, check.bad, check.gauge, *(check.classes or ())) if text]
    selectors = [parse_selector(text) for text in texts]
    return tuple(_wanted(name, [s for s in selectors if s.name == name], check.strata) for name in dict.fromkeys(s.name for s in selectors))


def _wanted(name: str, selectors: Sequence[Selector], strata: Iterable[str]) -> Wanted:
    labels = {matcher.label for selector in selectors for matcher in selector.matchers} | set(strata)
    shared = [
        one
        for one in selectors[0].matchers
        if one.label not in _NUMBERS and all(any(_same(one, other) for other in more.matchers) for more in selectors[1:])
    ]
    return Wanted(name, tuple(shared), tuple(sorted(labels)))


def _same(one: Matcher, other: Matcher) -> bool:
    return (one.label, one.op, one.value) == (other.label, other.op, other.value)


def arm_matcher(label: str, values: Iterable[str]) -> str:
    """The condition that takes the instances with these values of `label`: `pod=~"web-1|web-2"`."""
    names = "|".join(_SPECIAL.sub(r"\\\1", value) for value in values)
    return f'{label}=~"{quoted(names)}"'


def quoted(text: str) -> str:
    """`text` as it stands between double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def query_of(wanted: Sequence[Wanted], label: str, arm: str, also: Iterable[str] = ()) -> str:
    """One query for all that is wanted of the arm, summed by the label of the instances, and for when each of them was sampled.

    `also` are labels that are kept apart as well.
    """
    kept = ", ".join(dict.fromkeys((label, *also)))
    parts = []
    for one in wanted:
        labels = ", ".join(dict.fromkeys((label, *also, *one.labels)))
        parts.append(_tagged(f"sum by ({labels}) ({_selected(one, arm)})", one.name))
    telling = [one for one in wanted if "le" in one.labels] or wanted
    last = " or ".join(f"timestamp({_selected(one, arm, one_bucket=True)})" for one in telling)
    parts.append(_tagged(f"max by ({kept}) ({last})", SAMPLED))
    return " or ".join(parts)


def _selected(one: Wanted, arm: str, *, one_bucket: bool = False) -> str:
    conditions = [*(f'{m.label}{m.op}"{quoted(m.value)}"' for m in one.matchers), arm]
    if one_bucket and "le" in one.labels:
        conditions.append('le="+Inf"')
    return f"{one.name}{{{', '.join(conditions)}}}"


def _tagged(expression: str, tag: str) -> str:
    return f'label_replace({expression}, "{TAG}", "{tag}", "", "")'


def filled(query: str, arm: str, milliseconds: int) -> str:
    """A query of the user with the condition on the instances and the window in their places."""
    return query.replace("$arm", arm).replace("$window", f"{milliseconds}ms")


def rows_of(status: int, body: bytes) -> list[Row]:
    """The rows of an answer; a number alone is a row without labels. Raises `Refused` when it is no result, or not a whole one."""
    if status in _STATUS:
        raise Refused("error", _STATUS[status])
    if 300 <= status < 400:
        raise Refused("error", f"it answered {status}, a redirect; write the address that it leads to")
    try:
        found = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        words = f"it answered {status}" if status != 200 else "it answered something else than Prometheus' API does"
        raise Refused("error", words) from error
    if found.status != "success" or found.data is None or status != 200:
        kind = "timeout" if found.errorType == "timeout" else "error"
        raise Refused(kind, f"it answered {status}: {found.errorType or 'no result'}{': ' if found.error else ''}{found.error[:300]}")
    # Thanos and its kin warn when a part of the data was out of reach; a sum of a part would look like a counter that was reset.
    partial = [text for text in found.warnings if not text.startswith("PromQL ")]
    if partial:
        raise Refused("error", f"the answer is not whole: {partial[0][:300]}")
    try:
        if found.data.resultType == "vector":
            return _rows.decode(found.data.result)
        if found.data.resultType == "scalar":
            return [Row({}, _scalar.decode(found.data.result))]
    except msgspec.DecodeError as error:
        raise Refused("error", f"the answer cannot be read: {error}") from error
    raise Refused("error", f"the query gives a {found.data.resultType}, and an instant vector is needed")


_STATUS: Mapping[int, str] = {
    401: "it does not accept the credentials, or asks for some (401)",
    403: "it does not let these credentials ask (403)",
    404: "there is no Prometheus API at this address (404)",
    429: "it was asked too often (429)",
}
