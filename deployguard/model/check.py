"""Checks as people write them: one question about health each, told apart by their `source`."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deployguard.model.fields import PatternText, Place, PositiveDuration, Rule, Written, broken
from deployguard.model.judged import CountsCheck, JudgedCheck, Name, Worse
from deployguard.model.series_check import HeaderValue, PrometheusCheck, ScrapeCheck, SeriesCheck

__all__ = [
    "BalancerCheck",
    "Check",
    "CountsCheck",
    "Expect",
    "HeaderValue",
    "JudgedCheck",
    "LogsCheck",
    "Name",
    "Numbers",
    "ProbeCheck",
    "PrometheusCheck",
    "ScrapeCheck",
    "SeriesCheck",
    "Step",
    "Worse",
    "same_names",
]


class BalancerCheck(CountsCheck):
    """Requests counted by the local fleet's own balancer: no metrics needed, nothing the service could get wrong."""

    source: Literal["balancer"] = Field("balancer", description="the local fleet's balancer")

    @property
    def kind(self) -> Literal["counts"]:
        """What its evidence is made of."""
        return "counts"


class LogsCheck(CountsCheck):
    """Lines of the instances' logs: those that match `bad`, of those that match `total`."""

    source: Literal["logs"] = Field("logs", description="the instances' logs")
    bad: PatternText = Field(description="a regular expression that bad lines hold", examples=["ERROR|FATAL"])
    total: PatternText | None = Field(
        None, description="a regular expression that every line to be counted holds, say one per request; all lines when not given"
    )
    container: str | None = Field(None, min_length=1, description="in a cluster: whose log it is, where pods have several containers")

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


Numbers = ScrapeCheck | PrometheusCheck | LogsCheck | BalancerCheck
"""The checks that are judged by numbers."""
Check = Annotated[Numbers | ProbeCheck, Field(discriminator="source")]
