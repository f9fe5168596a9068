"""What a check reads in a scenario, poll by poll: one form of series for each kind of check.

Every series says what came in each poll, not what a counter shows: `total: "50x300"` is fifty requests in each of 301 polls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from deployguard.files.series import Series, expand
from deployguard.files.shape import listed
from deployguard.model.check import Check, SeriesCheck
from deployguard.model.fields import Rule, Share, Written, broken
from deployguard.model.units import parse_duration, parse_share

OTHER = "other"
"""The stratum of what belongs to none that has a name."""
_SHARE = re.compile(r"\d+(?:\.\d+)?\s*%")
_INFINITE = ("+Inf", "Inf")


def _series(value: Any) -> Any:
    if isinstance(value, str):
        expand(value)
    return value


def _signed(value: Any) -> Any:
    if isinstance(value, str):
        expand(value, signed=True)
    return value


def _part(value: Any) -> Any:
    if isinstance(value, str) and not _SHARE.fullmatch(value.strip()):
        expand(value)
    return value


def _edge(value: Any) -> Any:
    if isinstance(value, str):
        edge_of(value)
    return value


SeriesText = Annotated[str, BeforeValidator(_series), Field(examples=["45x600", "0x30 1x30 _x5"])]
GaugeText = Annotated[str, BeforeValidator(_signed), Field(examples=["100x600", "2e8+1e5x600"])]
PartText = Annotated[str, BeforeValidator(_part), Field(examples=["40x600", "80%"])]
EdgeText = Annotated[str, BeforeValidator(_edge)]


def edge_of(text: str) -> float | None:
    """The upper bound of a bucket in seconds, None for the last one. Raises ValueError that says what would be right."""
    if text in _INFINITE:
        return None
    try:
        found = float(text)
    except ValueError:
        try:
            found = parse_duration(text).total_seconds()
        except ValueError as error:
            raise ValueError(f"`{text}` is not the upper bound of a bucket; write `100ms`, `0.1` (seconds) or `+Inf`") from error
    if not 0 < found < float("inf"):
        raise ValueError(f"`{text}` is not the upper bound of a bucket; write one above 0, or `+Inf`")
    return found


class StratumSeries(Written):
    """What a check reads from one arm in one stratum."""

    total: SeriesText = Field(description="requests counted since the poll before", json_schema_extra={"x-unit": "requests"})
    bad: SeriesText | None = Field(None, description="bad ones among them; none when not given", json_schema_extra={"x-unit": "requests"})

    @model_validator(mode="after")
    def _fits(self) -> StratumSeries:
        _inside(self.total, self.bad)
        return self


class ArmSeries(Written):
    """What a check reads from one arm, poll by poll. Exactly one of: `total` (and `bad`), `buckets`, `classes`, `value`, `strata`, `green`.
    With `total` beside them, `buckets` and `classes` hold shares of it.
    """

    total: SeriesText | None = Field(None, description="requests counted since the poll before", json_schema_extra={"x-unit": "requests"})
    bad: SeriesText | None = Field(None, description="bad ones among them; none when not given", json_schema_extra={"x-unit": "requests"})
    buckets: Annotated[dict[EdgeText, PartText], Field(min_length=2, max_length=200)] | None = Field(
        None,
        description="requests by latency, up to this bound and above the one before (not `le`): a series or a share of `total` each",
        examples=[{"100ms": "40x300", "250ms": "8x300", "+Inf": "2x300"}],
    )
    classes: Annotated[list[PartText], Field(min_length=2, max_length=16)] | None = Field(
        None, description="requests by class, the best class first, a series or a share of `total` each", examples=[["96%", "3%", "1%"]]
    )
    value: GaugeText | None = Field(None, description="what the gauge shows on every instance of the arm")
    strata: dict[str, StratumSeries] | None = Field(
        None, description="requests by stratum: the values that the check names, and `other` for the rest"
    )
    green: SeriesText | None = Field(None, description="walks of a probe: 1 for green, 0 for red")
    clumps: int = Field(
        1,
        ge=1,
        le=1000,
        description="bad requests come in clumps of so many, each on one instance",
        json_schema_extra={"x-unit": "requests"},
    )
    lost: Share = Field(0.0, description="share of the single instances' scrapes that do not come; the next one shows what they missed")

    @model_validator(mode="after")
    def _fits(self) -> ArmSeries:
        given = self.forms
        if not given:
            raise broken("the arm reads nothing; give `total` (and `bad`), or one of `buckets`, `classes`, `value`, `strata`, `green`", ())
        if len(given) > 1:
            raise broken(f"`{given[0]}` and `{given[1]}` are both given; an arm reads one thing", (given[1],))
        if self.bad is not None and given != ["total"]:
            right = "write its red walks as 0 in `green`" if given == ["green"] else "it goes with `total`"
            raise broken(f"`{given[0]}` has no `bad`; {right}", ("bad",))
        if self.clumps > 1 and given[0] not in ("total", "strata"):
            raise broken("`clumps` is about bad requests; it goes with `total` and `bad`, or with `strata`", ("clumps",))
        if self.lost >= 1:
            raise broken("`100%` loses everything; leave the arm out instead", ("lost",))
        {"total": self._counts, "green": self._walks, "buckets": self._buckets, "classes": self._classes}.get(given[0], self._same_length)()
        return self

    @property
    def forms(self) -> list[str]:
        """The forms in which something is written; one, when the arm is well."""
        names = [name for name in ("buckets", "classes", "value", "strata", "green") if getattr(self, name) is not None]
        shares = self.total is not None and names in (["buckets"], ["classes"])
        return names if self.total is None or shares else ["total", *names]

    @property
    def edges(self) -> tuple[float, ...]:
        """The upper bounds of the buckets in rising order; empty for all other forms."""
        return tuple(sorted(edge for edge in map(edge_of, self.buckets or ()) if edge is not None))

    @property
    def parts(self) -> dict[str, tuple[Series, ...]]:
        """The columns by stratum (`""` without strata): bad and total, requests by category with the best first, a value, or walks."""
        if self.strata is not None:
            return {name: _columns(one.total, one.bad) for name, one in self.strata.items()}
        if self.buckets is not None:
            by_edge = {edge_of(text): part for text, part in self.buckets.items()}
            return {"": self._split([by_edge.get(edge, "") for edge in (*self.edges, None)])}
        if self.classes is not None:
            return {"": self._split(self.classes)}
        if self.value is not None:
            return {"": (expand(self.value, signed=True),)}
        if self.green is not None:
            return {"": (expand(self.green),)}
        assert self.total is not None
        return {"": _columns(self.total, self.bad)}

    @property
    def polls(self) -> int:
        """For how many polls something is written."""
        return max(len(column) for columns in self.parts.values() for column in columns)

    def _split(self, parts: Sequence[str]) -> tuple[Series, ...]:
        if self.total is None:
            found = [expand(part) if part else None for part in parts]
            length = max(len(one) for one in found if one is not None)
            return tuple(one if one is not None else [0.0] * length for one in found)
        total = expand(self.total)
        shares = [parse_share(part) if part else 0.0 for part in parts]
        return tuple([None if value is None else value * share for value in total] for share in shares)

    def _counts(self) -> None:
        assert self.total is not None
        _inside(self.total, self.bad)

    def _walks(self) -> None:
        assert self.green is not None
        if any(value not in (0, 1, None) for value in expand(self.green)):
            raise broken("a walk is green or red; write 1, 0 or `_`", ("green",))

    def _buckets(self) -> None:
        assert self.buckets is not None
        seen: dict[float | None, str] = {}
        for text in self.buckets:
            edge = edge_of(text)
            if edge in seen:
                raise broken(f"`{text}` and `{seen[edge]}` are the same bound; write each once", ("buckets", text))
            seen[edge] = text
        self._shared({("buckets", text): part for text, part in self.buckets.items()})

    def _classes(self) -> None:
        self._shared({("classes", n): part for n, part in enumerate(self.classes or ())})

    def _shared(self, parts: dict[tuple[str, str | int], str]) -> None:
        """All parts are series, or all are shares of `total` that make the whole."""
        for place, part in parts.items():
            share = _SHARE.fullmatch(part.strip()) is not None
            if share and self.total is None:
                raise broken(f"`{part}` is a share of nothing; give `total` as well, or write a series", place)
            if not share and self.total is not None:
                raise broken(f"`{part}` is a series beside `total`; write a share of it, such as `80%`, or take `total` away", place)
        if self.total is None:
            self._same_length()
        elif abs((whole := sum(map(parse_share, parts.values()))) - 1) > 1e-9:
            raise broken(f"the shares make {100 * whole:g}% of `total`; write shares that make 100%", (next(iter(parts))[0],))

    def _same_length(self) -> None:
        """All parts are as long as the first."""
        form = self.forms[0]
        parts: dict[str | int, str] = dict(enumerate(self.classes or ()))
        parts.update(self.buckets or {})
        parts.update({name: one.total for name, one in (self.strata or {}).items()})
        for name, text in parts.items():
            first = next(iter(parts))
            if (have := len(expand(text))) != (want := len(expand(parts[first]))):
                raise broken(f"this has {have} polls and `{first}` {want}; write as many for all", (form, name))


def _columns(total: str, bad: str | None) -> tuple[Series, Series]:
    all_of_it = expand(total)
    return expand(bad) if bad is not None else [0.0] * len(all_of_it), all_of_it


def _inside(total: str, bad: str | None) -> None:
    """Raises unless there are as many polls of both, and no more bad requests than there are in all."""
    if bad is None:
        return
    all_of_it, part = expand(total), expand(bad)
    if len(all_of_it) != len(part):
        raise broken(f"`bad` has {len(part)} polls and `total` {len(all_of_it)}; write as many for both", ("bad",))
    if any(b is not None and t is not None and b > t for b, t in zip(part, all_of_it, strict=True)):
        raise broken("`bad` counts more than `total`; bad requests are among all", ("bad",))


class CheckSeries(Written):
    """What a check reads from both arms; an arm that is not given is silent."""

    stable: ArmSeries | None = Field(None, description="the stable arm")
    candidate: ArmSeries | None = Field(None, description="the candidate arm, from its first exposure")

    @property
    def arms(self) -> dict[str, ArmSeries]:
        """The arms that are given, by name."""
        return {arm: one for arm, one in (("stable", self.stable), ("candidate", self.candidate)) if one is not None}


def forms_of(check: Check) -> tuple[str, ...]:
    """The forms of series that a check can read, the most usual first."""
    if check.source == "probe":
        return ("green",)
    if not isinstance(check, SeriesCheck):
        return ("total",)
    if check.gauge:
        return ("value",)
    if check.classes:
        return ("classes",)
    if check.histogram:
        return ("buckets",) if check.within is None else ("buckets", "total")
    return ("total", "strata") if check.strata else ("total",)


def misfit(check: Check, series: ArmSeries) -> Rule | None:
    """What of an arm's series the check cannot read, and what would be right; None when all is well."""
    form, right = series.forms[0], forms_of(check)
    if form not in right:
        reads = listed(["total` and `bad" if name == "total" else name for name in right])
        return Rule(f"this does not fit the check `{check.name}`; it reads {reads}", ((),))
    if series.lost and check.source != "scrape":
        text = "`lost` is about single scrapes; a poll without an answer is `_` in the series"
        return Rule(text, (("lost",),))
    if not isinstance(check, SeriesCheck):
        return None
    if series.classes is not None and check.classes is not None and len(series.classes) != len(check.classes):
        text = f"{len(series.classes)} classes stand here and the check `{check.name}` has {len(check.classes)}; write one for each"
        return Rule(text, (("classes",),))
    if series.buckets is not None and check.within is not None and within_edge(check, series) is None:
        text = f"every bucket but the last ends before `within` of the check `{check.name}`; write one that ends there or later"
        return Rule(text, (("buckets",),))
    named = {*next(iter(check.strata.values()), ()), OTHER}
    for name in series.strata or ():
        if name not in named:
            return Rule(f"the check `{check.name}` has no stratum `{name}`; there are {listed(sorted(named))}", (("strata", name),))
    return None


def within_edge(check: SeriesCheck, series: ArmSeries) -> float | None:
    """The smallest bound of a bucket that is not below `within`; None when there is none."""
    assert check.within is not None
    return next((edge for edge in series.edges if edge >= check.within.total_seconds() - 1e-12), None)
