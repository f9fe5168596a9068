"""Checks as people write them: one question about health each, told apart by their `source`."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deployguard.model.fields import Place, PositiveDuration, Rule, SelectorText, Share, Written, broken
from deployguard.model.selector import parse_selector

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Worse(Written):
    """How much worse than stable is still tolerated: bad <= ratio x stable + margin, and never below the floor.

    For a latency histogram "bad" is being among stable's slowest; with `{ratio: 1, margin: 0%}` the whole distributions are compared.
    The floor is for counts, the margin not for gauges.
    """

    ratio: float = Field(
        1.25, ge=1, le=100, json_schema_extra={"x-unit": "times"}, description="tolerated ratio of the candidate's rate to stable's"
    )
    margin: Share = Field(0.0002, description="tolerated difference on top of the ratio, in points of the rate")
    floor: Share = Field(0.001, description="a rate at or below this is never a reason to roll back")


class JudgedCheck(Written):
    """What all checks share that are judged by numbers."""

    name: Name = Field(description="the check's name, unique in the guard")
    worse_than_stable: Worse | None = Field(Worse(), description="compare the candidate with stable; null to switch off")
    claims: float = Field(
        2.0,
        gt=1,
        le=1000,
        json_schema_extra={"x-unit": "times"},
        description="the smallest ratio to stable that this check must be able to see",
    )
    limit: Share | None = Field(None, description="absolute limit of the rate of bad requests, whatever stable does")
    dispersion: Literal["measured"] | Annotated[float, Field(ge=1, le=12)] = Field(
        "measured",
        json_schema_extra={"x-unit": "errors per clump"},
        description="how many errors come in one clump (phi): `measured` on stable, or a number; 1 when they are independent",
    )
    required: bool = Field(True, description="promotion needs this signal; without it the check can only stop a rollout")

    @property
    def phi(self) -> float | None:
        """The dispersion that the policy states; None when it is to be measured."""
        return None if self.dispersion == "measured" else float(self.dispersion)


class CountsCheck(JudgedCheck):
    """A check on bad and total counts."""

    @model_validator(mode="after")
    def _asks_something(self) -> CountsCheck:
        if self.worse_than_stable is None and self.limit is None:
            raise broken("the check asks nothing; give `worse_than_stable`, `limit`, or both", ("worse_than_stable",))
        return self


class ScrapeCheck(JudgedCheck):
    """Series on the instances' own metrics page, in a Prometheus or OpenMetrics format.

    Exactly one of: `bad` and `total` (counters), `histogram` (latency), `classes` (counters from best to worst), `gauge`.
    """

    source: Literal["scrape"] = Field("scrape", description="the instances' own metrics page")
    bad: SelectorText | None = Field(None, description="the series that count bad requests")
    total: SelectorText | None = Field(None, description="the series that count all requests")
    histogram: SelectorText | None = Field(
        None,
        description="a latency histogram, without `_bucket`; compared as a whole, or by the requests slower than `within`",
        examples=["http_request_duration_seconds"],
    )
    within: PositiveDuration | None = Field(
        None,
        description="requests of the histogram that take longer are bad: judged by counts, with `limit` and `worse_than_stable`; "
        "counted at the smallest bucket bound that is not below it",
    )
    classes: Annotated[list[SelectorText], Field(min_length=2, max_length=16)] | None = Field(
        None, description="series that count requests by class, the best class first; what two of them select is of the worse class"
    )
    gauge: SelectorText | None = Field(
        None, description="a gauge, summed over its series on an instance: memory, a queue, an exported quantile"
    )
    worse_when: Literal["higher", "lower"] = Field("higher", description="which values of the gauge are the bad ones")
    bound: float | None = Field(None, description="the gauge's mean must not be beyond this, in the gauge's own unit")
    strata: dict[Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], Annotated[list[str], Field(min_length=1, max_length=7)]] = (
        Field(
            {},
            max_length=1,
            description="compare within each of these values of one label, and within the rest, when the arms serve a different mix",
            examples=[{"route": ["/login", "/checkout"]}],
        )
    )
    path: str = Field("/metrics", pattern=r"^/", description="where the instances expose their metrics")

    @model_validator(mode="after")
    def _reads_one_thing(self) -> ScrapeCheck:
        ways = {"total": self.total or self.bad, "histogram": self.histogram, "classes": self.classes, "gauge": self.gauge}
        given = [name for name, value in ways.items() if value]
        if not given:
            raise broken("the check reads nothing; give `bad` and `total`, or one of `histogram`, `classes`, `gauge`", ())
        if len(given) > 1:
            raise broken(f"`{given[0]}` and `{given[1]}` are both given; a check reads one thing, so make two of it", (given[1],))
        if given == ["total"] and not (self.bad and self.total):
            missing = "bad" if self.total else "total"
            raise broken(f"`{missing}` is missing; a check on counters needs `bad` and `total`", (missing,), ())
        if self.histogram:
            self._names_a_histogram(self.histogram)
        self._fits(given[0])
        return self

    @staticmethod
    def _names_a_histogram(text: str) -> None:
        selector = parse_selector(text)
        if selector.name.endswith("_bucket"):
            right = selector.name.removesuffix("_bucket")
            raise broken(f"`histogram` names `{selector.name}`, one part of the histogram; write `{right}`", ("histogram",))
        if any(matcher.label == "le" for matcher in selector.matchers):
            raise broken(
                "`histogram` has a condition on `le`, and all buckets are needed; say with `within` from when on is slow", ("histogram",)
            )

    def _fits(self, way: str) -> None:
        only = {
            "within": ("histogram", self.within is not None),
            "bound": ("gauge", self.bound is not None),
            "worse_when": ("gauge", self.worse_when != "higher"),
            "strata": ("total", bool(self.strata)),
        }
        for name, (belongs, given) in only.items():
            if given and way != belongs:
                raise broken(f"`{name}` goes with `{belongs}` alone; take it away here", (name,))
        if self.limit is not None and self.kind != "counts":
            right = {"histogram": "give `within` as well", "gauge": "a gauge has `bound`"}.get(way, "give `bad` and `total`")
            raise broken(f"`limit` is a rate of bad requests, and this check counts none; {right}", ("limit",))
        if self.worse_than_stable is None and (self.limit if self.kind == "counts" else self.bound) is None:
            also = {"counts": ", `limit`, or both", "gauge": ", `bound`, or both"}.get(self.kind, "")
            raise broken(f"the check asks nothing; give `worse_than_stable`{also}", ("worse_than_stable",))

    @property
    def kind(self) -> Literal["counts", "categories", "gauge"]:
        """What its evidence is made of."""
        if self.gauge:
            return "gauge"
        return "counts" if self.within is not None or self.total else "categories"


class BalancerCheck(CountsCheck):
    """Requests counted by the local fleet's own balancer: no metrics needed, nothing the service could get wrong."""

    source: Literal["balancer"] = Field("balancer", description="the local fleet's balancer")

    @property
    def kind(self) -> Literal["counts"]:
        """What its evidence is made of."""
        return "counts"


class Expect(Written):
    """What must hold of a response; everything given must hold."""

    status: int | None = Field(None, ge=100, le=599, description="the status code; 200 to 399 when nothing is said")
    contains: str | None = Field(None, description="text that the body contains")
    not_contains: str | None = Field(None, description="text that the body does not contain")
    json_: dict[str, Any] | None = Field(None, alias="json", description="JSONPath (`$.a.b[0]`) to expected value")
    within: PositiveDuration | None = Field(None, description="the longest time until the body has arrived")


class Step(Written):
    """One request of a journey: exactly one of get, post, put, delete."""

    get: str | None = Field(None, description="URL, or a path below the guarded service")
    post: str | None = Field(None, description="URL or path")
    put: str | None = Field(None, description="URL or path")
    delete: str | None = Field(None, description="URL or path")
    headers: dict[str, str] = Field({}, description="request headers")
    form: dict[str, str] | None = Field(None, description="form fields, sent url-encoded")
    body: str | None = Field(None, description="the request's body as text")
    json_: Any = Field(None, alias="json", description="the request's body as JSON")
    expect: Expect = Field(Expect(), description="what must hold of the response")

    @model_validator(mode="after")
    def _one_method(self) -> Step:
        given = [method for method in ("get", "post", "put", "delete") if getattr(self, method) is not None]
        if not given:
            raise broken("the step requests nothing; give exactly one of `get`, `post`, `put`, `delete`", ())
        if len(given) > 1:
            raise broken(f"a step is one request, this is {len(given)}; give exactly one of `get`, `post`, `put`, `delete`", (given[1],))
        bodies = [name for name, value in (("form", self.form), ("body", self.body), ("json", self.json_)) if value is not None]
        if len(bodies) > 1:
            raise broken(f"`{bodies[0]}` and `{bodies[1]}` are both given; a request has one body", (bodies[1],))
        return self

    @property
    def request(self) -> tuple[str, str]:
        """Method and URL."""
        for method in ("get", "post", "put", "delete"):
            url = getattr(self, method)
            if url is not None:
                return method.upper(), url
        raise AssertionError("a step without a method was refused")


class ProbeCheck(Written):
    """A user's journey, walked from outside by a process of its own, on stable's path and on the candidate's."""

    name: Name = Field(description="the check's name, unique in the guard")
    source: Literal["probe"] = Field("probe", description="journeys from outside")
    steps: list[Step] = Field(min_length=1, max_length=50, description="the journey; cookies are kept between its steps")
    every: PositiveDuration = Field(dt.timedelta(seconds=1), description="a new walk starts this often")
    timeout: PositiveDuration = Field(dt.timedelta(seconds=5), description="the longest time for one step")
    veto: bool = Field(True, description="three red walks in a row on the candidate's path, green on stable's, roll back")
    required: bool = Field(True, description="promotion needs this signal")

    @property
    def kind(self) -> Literal["journey"]:
        """What its evidence is made of."""
        return "journey"


def same_names(checks: list[Check], at: Place = ("checks",)) -> list[Rule]:
    """A broken rule for each check that has the name of an earlier one."""
    rules, first = [], dict[str, int]()
    for index, check in enumerate(checks):
        if check.name in first:
            text = f"the name `{check.name}` is taken by check {first[check.name] + 1}; give each check a name of its own"
            rules.append(Rule(text, ((*at, index, "name"), (*at, first[check.name], "name"))))
        first.setdefault(check.name, index)
    return rules


Check = Annotated[ScrapeCheck | BalancerCheck | ProbeCheck, Field(discriminator="source")]
